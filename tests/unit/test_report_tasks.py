"""The cards of ARC tasks: what is right, wrong and unknown, and ids that would break a page."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from sttrl.arc.records import CandidateRecord, TaskRecord, TestRecord, grid_text
from sttrl.arc.sources import ArcData, ArcSpec, read_tasks
from sttrl.ledger.records import FinishedQuestion, QuestionRecord
from sttrl.report import Grades, summarise
from sttrl.report.html import report_page
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


def page_of(data: ArcData | str, grades: Grades, labels: Labels | None) -> str:
    done = finished()
    shown = TaskReport().shown(Path(), done, grades, data, labels)
    return report_page("run", done, grades, summarise(done, grades, {}), {"dataset": HOSTILE}, shown)


GRADED = Grades(verdicts={HOSTILE: {"0:5": True, "0:6": False, "1:6": False}})
LABELS = Labels(kind="grids", by_id={HOSTILE: "0:5\n1:7"})


def test_attempts_are_right_or_wrong(data: ArcData) -> None:
    page = page_of(data, GRADED, LABELS)
    said = re.findall(r'<small class="(\w+)">((?:attempt|solution)[^<]*)</small>', page)
    assert said == [
        ("lost", "attempt 1, wrong"),
        ("lost", "attempt 1, wrong"), ("won", "attempt 2, right"), ("soft", "solution"),
        ("lost", "attempt 1, wrong"), ("soft", "solution"),
    ]  # fmt: skip
    assert page.count("<i>no attempt</i>") == 1, "the base found nothing for the second test input"
    assert page.count("test input 1") == page.count("test input 2") == 1


def test_without_solutions_nothing_is_right_or_wrong(data: ArcData) -> None:
    page = page_of(data, Grades(verdicts={}), None)
    assert re.findall(r'<small class="(\w+)">attempt \d</small>', page) == ["soft"] * 4
    assert "attempt 1, " not in page and ">solution<" not in page
    assert "nothing says which attempts are right" in page


def test_a_hostile_id_stays_text(data: ArcData) -> None:
    for page in (page_of(data, GRADED, LABELS), page_of("gone", GRADED, None)):
        assert "<script" not in page and "&lt;script&gt;" in page
        assert page.count("<h3>") == page.count("</h3>") == 1


def test_a_data_set_that_is_gone_takes_the_pictures_along(data: ArcData) -> None:
    page = page_of("gone", GRADED, None)
    assert "no task is shown" in page and "attempt 1" not in page
