"""What selections do with ties, with nothing to choose from, and with candidates that were not scored."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sttrl.arc.candidates import Candidate, Find, candidates_of, with_experts
from sttrl.arc.grids import shape
from sttrl.arc.selections import SELECTIONS
from sttrl.voting.ranking import rank


def candidates_with(*nlls: float) -> tuple[Candidate, ...]:
    found = candidates_of([Find(view="a", grid=((n,),), nll=nll) for n, nll in enumerate(nlls)])
    return with_experts(found, [{"a": nll} for nll in nlls])


@pytest.mark.parametrize("name", sorted(SELECTIONS))
def test_ties_are_recorded_and_the_first_found_is_first(name: str) -> None:
    selected = SELECTIONS[name](candidates_with(1.0, 1.0 + 1e-15, 1.0))
    grids = (((0,),), ((1,),), ((2,),))
    assert selected.tied == (grids,)
    assert sorted(selected.grid_R) == list(grids)
    if name != "marc":
        assert selected.grid_R == grids


@pytest.mark.parametrize("name", sorted(SELECTIONS))
def test_without_candidates_there_are_no_attempts(name: str) -> None:
    assert SELECTIONS[name](()).attempts == ()


@pytest.mark.parametrize("name", sorted(name for name in SELECTIONS if "aug" in name or name in ("kgmon", "mul_all_prob")))
def test_a_candidate_that_was_not_scored_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="product of experts"):
        SELECTIONS[name](candidates_of([Find(view="a", grid=((1,),), nll=0.0)]))


def test_only_the_likeliest_shape_is_preferred() -> None:
    finds = [("a", ((1, 1),), 1.0), ("b", ((1,),), 0.9), ("c", ((2,),), 1.5), ("d", ((1, 1),), 0.0)]
    found = candidates_of([Find(view=view, grid=grid, nll=nll) for view, grid, nll in finds])
    assert SELECTIONS["probsum"](found).grid_R == (((1, 1),), ((1,),), ((2,),))
    selected = SELECTIONS["probsum_likeliest_shape"](found)
    assert [shape(grid) for grid in selected.grid_R] == [(1, 1), (1, 1), (1, 2)]


@given(st.lists(st.sampled_from([0.0, 1.0, 1.0 + 1e-14, 2.0, -1.0, 5.0]), max_size=8))
def test_a_ranking_holds_every_class_once_in_the_order_of_scores(score_C: list[float]) -> None:
    ranking = rank(score_C)
    assert sorted(ranking.class_R) == list(range(len(score_C)))
    assert all(score_C[a] >= score_C[b] - 1e-12 for a, b in zip(ranking.class_R, ranking.class_R[1:], strict=False))
    for tied in ranking.tied_C:
        assert len(tied) > 1
        start = ranking.class_R.index(tied[0])
        assert ranking.class_R[start : start + len(tied)] == tied


def test_a_score_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="not a number"):
        rank([1.0, float("nan")])
