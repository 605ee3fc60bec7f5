"""ARC tasks on a page: what is right, wrong and unknown, and ids that would break a page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pages import Held, held, loaded, page_of

from sttrl.arc.records import CandidateRecord, TaskRecord, TestRecord, grid_text
from sttrl.arc.sources import ArcData, ArcSpec, read_tasks
from sttrl.ledger.records import FinishedQuestion, QuestionRecord
from sttrl.report import Grades
from sttrl.report.labels import Labels
from sttrl.report.tasks import TaskReport

HOSTILE = "</h3><script>alert(1)</script>'\""
TASKS = {"train": [{"input": [[1]], "output": [[2]]}], "test": [{"input": [[3]]}, {"input": [[4]]}]}
RIGHT, WRONG = ((5,),), ((6,),)


@pytest.fixture
def data(tmp_path: Path) -> ArcData:
    """One task with two test inputs and a hostile id."""
    (tmp_path / "own_challenges.json").write_text(json.dumps({HOSTILE: TASKS}))
    return read_tasks(ArcSpec(dataset=str(tmp_path / "own_challenges.json")))


def a_test(*grids: Any) -> TestRecord:
    records = [CandidateRecord(grid=grid_text(grid), score=-1.0, search_nll={"": 0.1}, expert_nll={}) for grid in grids]
    return TestRecord(candidates=records, tied=[], unreadable={}, cut={})


def evaluated(*tests: TestRecord) -> TaskRecord:
    return TaskRecord(views=2, selection="first", version=0, tests=list(tests), tokens=1, scored_tokens=0, requests=1)


def finished() -> list[FinishedQuestion]:
    polls = {"base": evaluated(a_test(WRONG), a_test()), "adapted": evaluated(a_test(WRONG, RIGHT), a_test(WRONG))}
    record = QuestionRecord(
        id=HOSTILE, index=0, attempt=1, status="done", stop="steps", error=None, answer="5", answer_source="adapted", polls=polls,
        steps=0, tokens_sampled=0, tokens_trained=0, tokens_evaluated=0,
    )  # fmt: skip
    return [FinishedQuestion(record=record, steps=())]


def shown_of(data: ArcData | str, grades: Grades, labels: Labels | None) -> tuple[Held, str]:
    known = None if isinstance(data, str) else data
    config = {"dataset": data if isinstance(data, str) else str(data.path), "model": HOSTILE}
    page = page_of(loaded(finished(), grades, config, kind=TaskReport(), data=known, labels=labels))
    return held(page), page


GRADED = Grades(verdicts={HOSTILE: {"0:5": True, "0:6": False, "1:6": False}})
LABELS = Labels(kind="grids", by_id={HOSTILE: "0:5\n1:7"})


def test_attempts_are_right_or_wrong(data: ArcData) -> None:
    (detail,) = shown_of(data, GRADED, LABELS)[0].details[0]
    first, second = detail["parts"]["tests"]
    assert detail["parts"]["demos"] == [["1", "2"]]
    assert (first["query"], first["solution"], second["query"], second["solution"]) == ("3", "5", "4", "7")
    right = {"grid": "5", "right": True}
    wrong = {"grid": "6", "right": False}
    assert first["sides"] == [{"name": "base", "attempts": [wrong]}, {"name": "adapted", "attempts": [wrong, right]}]
    assert second["sides"] == [{"name": "base", "attempts": []}, {"name": "adapted", "attempts": [wrong]}]
    assert [(c["grid"], c["right"], c["views"]) for c in first["candidates"]] == [("6", False, 1), ("5", True, 1)]
    assert first["found"] == 2


def test_without_solutions_nothing_is_right_or_wrong(data: ArcData) -> None:
    shown, _ = shown_of(data, Grades(verdicts={}), None)
    tests = shown.details[0][0]["parts"]["tests"]
    assert {attempt["right"] for test in tests for side in test["sides"] for attempt in side["attempts"]} == {None}
    assert {test["solution"] for test in tests} == {None}
    assert any("nothing says which attempts are right" in remark for remark in shown.runs[0]["remarks"])


def test_a_hostile_id_stays_text(data: ArcData) -> None:
    for source in (data, "gone"):
        shown, page = shown_of(source, GRADED, None)
        assert "<script>alert" not in page and shown.runs[0]["questions"][0]["id"] == HOSTILE


def test_a_data_set_that_is_gone_takes_the_grids_along(data: ArcData) -> None:
    shown, _ = shown_of("gone", GRADED, None)
    assert shown.details[0][0]["parts"] == {}
    assert any("no task is shown" in remark for remark in shown.runs[0]["remarks"])
