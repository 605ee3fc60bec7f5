"""Submissions, and the rules that score them, against what published systems made of the same data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from golden import cases

from sttrl.arc.candidates import Candidate, Find
from sttrl.arc.grids import as_grid
from sttrl.arc.scores import Solutions, first_attempts, hamming, kaggle, marc_evaluate, score, score_candidates, validate
from sttrl.arc.selections import SELECTIONS
from sttrl.arc.submission import Answers, Submission, as_json, build_submission, read_submission
from sttrl.arc.tasks import Pair, Task
from sttrl.errors import DataError

ARCHITECTS = cases("architects_submission")
MARC = cases("marc_submission_eval")
RULES = cases("scoring_rules")
SYSTEMS = {"architects-2024": ("mul_all_prob", {"mul_aug_prob": "mul_aug_prob_3"}), "poe-2025": ("mul_aug_prob", {})}


def tasks_in(file: dict[str, Any], ids: list[str] | None = None) -> list[Task]:
    return [
        Task(
            id=id,
            demos=tuple(Pair(input=as_grid(pair["input"]), output=as_grid(pair["output"])) for pair in file["tasks"][id]["train"]),
            tests=tuple(as_grid(test["input"]) for test in file["tasks"][id]["test"]),
        )
        for id in ids or file["tasks"]
    ]


def solutions_in(file: dict[str, Any], ids: list[str] | None = None) -> Solutions:
    return {id: tuple(map(as_grid, file["tasks"][id]["solutions"])) for id in ids or file["tasks"]}


def parsed(submission: dict[str, Any]) -> Submission:
    """A submission of golden data, as complete as it is."""
    return {id: tuple(tuple(as_grid(entry[name]) for name in sorted(entry)) for entry in inputs) for id, inputs in submission.items()}


@pytest.mark.parametrize(("file", "case"), ARCHITECTS, ids=range(len(ARCHITECTS)))
def test_submissions_of_architects(file: dict[str, Any], case: dict[str, Any], tmp_path: Path) -> None:
    solutions = solutions_in(file)
    if "expected_validate" in case:
        path = tmp_path / "submission.json"
        path.write_text(json.dumps(case["submission"]))
        if isinstance(case["expected_validate"], str):
            with pytest.raises(DataError):
                validate(read_submission(path), solutions)
        else:
            assert validate(read_submission(path), solutions) == pytest.approx(case["expected_validate"])
        return
    answers = {
        (id, index): list(map(as_grid, grids)) for id, inputs in (case["results"] or {}).items() for index, grids in enumerate(inputs)
    }
    submission, filled = build_submission(tasks_in(file), answers)
    assert as_json(submission) == case["expected"]
    assert filled.outputs == sum(map(len, solutions.values()))
    if "score" in case:
        assert validate(submission, solutions) == pytest.approx(case["score"])


@pytest.mark.parametrize(("file", "case"), MARC, ids=range(len(MARC)))
def test_the_evaluation_of_marc(file: dict[str, Any], case: dict[str, Any]) -> None:
    if case.get("op") == "hamming":
        assert hamming(as_grid(case["attempt"]), as_grid(case["truth"])) == pytest.approx(case["expected"])
        return
    evaluated = marc_evaluate(parsed(case["submission"]), solutions_in(file))
    for name, expected in case["evaluate"].items():
        assert [evaluated[name].numerator, evaluated[name].denominator, evaluated[name].value] == pytest.approx(expected), name
    if "predictions" in case:
        answers: Answers = {
            (name.split("-")[0], int(name.split("-")[1])): list(map(as_grid, grids))
            for name, grids in case["predictions"].items()
            if name not in case.get("dropped", [])
        }
        ours, _ = build_submission(tasks_in(file), answers)
        for id, inputs in as_json(ours).items():
            theirs = case["submission"].get(id, [])
            missing = [{"attempt_1": [[0]], "attempt_2": [[0]]}] * (len(inputs) - len(theirs))
            assert inputs == [*theirs, *missing], "what marc leaves out is filled in"


@pytest.mark.parametrize("system", sorted(SYSTEMS))
@pytest.mark.parametrize(("file", "case"), RULES, ids=range(len(RULES)))
def test_the_four_rules(file: dict[str, Any], case: dict[str, Any], system: str) -> None:
    expected, (default, renamed) = case["expected"][system], SYSTEMS[system]
    solutions = solutions_in(file, case["ids"])
    candidates = {
        (id, index): [candidate_of(value) for value in values] for id in case["ids"] for index, values in enumerate(case["candidates"][id])
    }
    answers = {place: SELECTIONS[default](found).attempts for place, found in candidates.items()}
    submission, _ = build_submission(tasks_in(file, case["ids"]), answers)
    assert as_json(submission) == expected["submission"]
    result = score(submission, solutions).rules
    assert result["kaggle"].value == pytest.approx(expected["rule1"])
    assert [result["kaggle"].numerator, result["kaggle"].denominator] == expected["rule1_hits"]
    assert result["per_task_mean"].numerator == pytest.approx(expected["rule2_sum"]) == validate(submission, solutions)
    assert result["per_task_mean"].value == pytest.approx(expected["rule2"])
    assert result["all_or_nothing"].value == pytest.approx(expected["rule3"])
    assert {name: ratio.value for name, ratio in marc_evaluate(submission, solutions).items()} == pytest.approx(expected["marc_evaluate"])
    assert kaggle(first_attempts(submission), solutions).value == pytest.approx(expected["attempt_1_only"]["rule1"])
    rule4 = expected["rule4"]
    names = {name: renamed.get(name, name) for name in rule4["accuracy"]}
    found = score_candidates(candidates, solutions, list(names.values()), guesses=rule4["n_guesses"])
    assert {name: found.per_algorithm[ours].value for name, ours in names.items()} == pytest.approx(rule4["accuracy"])
    assert found.oracle.value == pytest.approx(rule4["found_at_all"])


def candidate_of(value: dict[str, Any]) -> Candidate:
    grid = as_grid(value["output"])
    finds = tuple(Find(view=view, grid=grid, nll=nll) for view, nll in value["scores_inf"].items())
    return Candidate(grid=grid, find_F=finds, expert_nll=value["scores_aug"])
