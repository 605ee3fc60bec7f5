"""Selections against the rankings of published systems, and what they do with ties."""

from __future__ import annotations

from typing import Any

import pytest
from golden import cases

from sttrl.arc.candidates import Candidate, Find, candidates_of, with_experts
from sttrl.arc.grids import Grid, as_grid
from sttrl.arc.marc_vote import majority_columns, majority_rows, marc_vote
from sttrl.arc.selections import SELECTIONS

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
