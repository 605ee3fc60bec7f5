"""Selections against the rankings of published systems, and what they do with ties."""

from __future__ import annotations

from typing import Any

import pytest
from golden import cases
from hypothesis import given
from hypothesis import strategies as st

from sttrl.arc.candidates import Candidate, Find, candidates_of, with_experts
from sttrl.arc.grids import Grid, as_grid, shape
from sttrl.arc.marc_vote import majority_columns, majority_rows, marc_vote
from sttrl.arc.selections import SELECTIONS
from sttrl.voting.ranking import rank

OURS = {
    "architects-2024/max_gen_prob": "max_gen_prob",
    "architects-2024/max_aug_prob": "max_aug_prob",
    "architects-2024/min_aug_prob": "min_aug_prob",
    "architects-2024/sum_aug_prob": "sum_aug_prob",
    "architects-2024/mul_aug_prob": "mul_aug_prob_3",
    "architects-2024/mul_all_prob": "mul_all_prob",
    "architects-2024/EvalTool": "mul_all_prob",
    "poe-2025/max_gen_prob": "max_gen_prob",
    "poe-2025/max_aug_prob": "max_aug_prob",
    "poe-2025/min_aug_prob": "min_aug_prob",
    "poe-2025/sum_aug_prob": "sum_aug_prob",
    "poe-2025/mul_aug_prob": "mul_aug_prob",
    "poe-2025/EvalTool": "mul_aug_prob",
    "kaggle-2024/first_only": "first",
    "kaggle-2024/keep_order_unique": "first",
    "kaggle-2024/keep_order": "first",
    "kaggle-2024/score_all_probsum": "probsum_likeliest_shape",
    "kaggle-2024/score_full_probmul_3": "full_probmul_3",
    "nvarc/score_full_probmul_3": "full_probmul_3",
    "nvarc/score_kgmon": "kgmon",
}
SELECTION_CASES = cases("selection")
VOTE_CASES = cases("marc_vote")


def candidates_in(case: dict[str, Any]) -> tuple[Candidate, ...]:
    grids = {name: as_grid(grid) for name, grid in case["grids"].items()}
    found = candidates_of([Find(view=f["view"], grid=grids[f["grid"]], nll=f["nll"]) for f in case["finds"]])
    names = {grid: name for name, grid in grids.items()}
    return with_experts(found, [case["aug_nll"][names[candidate.grid]] for candidate in found])


@pytest.mark.parametrize(("file", "case"), SELECTION_CASES, ids=range(len(SELECTION_CASES)))
def test_rankings_of_published_systems(file: dict[str, Any], case: dict[str, Any]) -> None:
    candidates = candidates_in(case)
    grids = {name: as_grid(grid) for name, grid in case["grids"].items()}
    for name, expected in case["expected"].items():
        selected = SELECTIONS[OURS[name]](candidates)
        if name.endswith("EvalTool"):
            check_evaltool(name, expected, case, candidates)
            continue
        ranking = [grids[letter] for letter in dict.fromkeys(expected["ranking"])]
        assert len(selected.grid_R) == len(candidates)
        if "scores" in expected:
            sign = -1 if expected.get("lower_is_better") else 1
            scores = {grids[letter]: sign * score for letter, score in expected["scores"].items()}
            assert dict(zip(selected.grid_R, selected.score_R, strict=True)) == pytest.approx(scores), name
            assert bool(selected.tied) == expected.get("tie", bool(selected.tied)), name
            assert [scores[grid] for grid in selected.grid_R] == pytest.approx([scores[grid] for grid in ranking]), name
        if not selected.tied or OURS[name] == "first":
            assert list(selected.grid_R[: len(ranking)]) == ranking, name


def check_evaltool(name: str, expected: dict[str, Any], case: dict[str, Any], candidates: tuple[Candidate, ...]) -> None:
    grids = {letter: as_grid(grid) for letter, grid in case["grids"].items()}
    selected = SELECTIONS[OURS[name]](candidates)
    if not selected.tied:
        assert list(selected.grid_R) == [grids[letter] for letter in expected["order_after"]]
    correct = grids.get(case["correct"])
    assert any(candidate.grid == correct for candidate in candidates) == bool(expected["found"])
    for algorithm, accuracy in expected["n_acc"].items():
        one = SELECTIONS[OURS[f"{name.split('/')[0]}/{algorithm}"]](candidates)
        if not one.tied:
            assert (correct in one.attempts) == bool(accuracy), algorithm


def vote(predictions: list[dict[str, Any]]) -> list[Grid]:
    finds = [
        Find(view=str(place), grid=as_grid(prediction["output"]), nll=0.0, group=prediction["inverter"])
        for place, prediction in enumerate(predictions)
    ]
    return list(marc_vote(candidates_of(finds)).attempts)


@pytest.mark.parametrize(("file", "case"), VOTE_CASES, ids=range(len(VOTE_CASES)))
def test_the_vote_of_marc(file: dict[str, Any], case: dict[str, Any]) -> None:
    if case.get("op") == "row_majority":
        outputs = [as_grid(output) for output in case["outputs"]]
        assert majority_rows(outputs) == as_grid(case["expected_rows"])
        assert majority_columns(outputs) == as_grid(case["expected_columns"])
        return
    top = vote(case["predictions"])
    if case["unique"]:
        assert top == [as_grid(grid) for grid in case["expected_top2"]]
    else:
        assert top in [[as_grid(grid) for grid in pair] for pair in case["acceptable"]]


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
