"""Labels: graded once, kept, out of reach of everything that is not an accuracy."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest
from pages import loaded
from test_report_metrics import a_run, ballots, poll, question

from sttrl.data import SourceSpec
from sttrl.errors import JournalError
from sttrl.questions.answers import Judge, NoVerdict
from sttrl.report import Labels, before_after_table, grade, load_labels, metrics_lines, read_grades, results_lines, write_report
from sttrl.types import AnswerKind

SEVEN = {f"q{number}": "7" for number in range(4)}


class CountingJudge:
    """Compares texts and remembers what it was asked."""

    def __init__(self, busy_with: str | None = None) -> None:
        self.asked: list[tuple[str, str]] = []
        self.busy_with = busy_with

    async def equal(self, kind: AnswerKind, a: str, b: str) -> bool | None:
        """Equal texts; "6" takes too long."""
        self.asked.append((a, b))
        if a == self.busy_with:
            raise NoVerdict
        return None if a == "6" else a == b


def graded(folder: Path, by_id: dict[str, str], judge: CountingJudge | None = None) -> CountingJudge:
    judge = judge or CountingJudge()
    asyncio.run(grade(a_run(), Labels(kind="number", by_id=by_id), judge, folder))
    return judge


def test_every_distinct_answer_is_graded_once(tmp_path: Path) -> None:
    judge = graded(tmp_path, SEVEN)
    assert sorted(a for a, _ in judge.asked) == sorted(["7", "3", "7", "5", "6", "7", "1", "2"])
    grades = read_grades(tmp_path)
    assert grades.of("q1") == {"7": True, "5": False, "6": None}
    assert grades.timeouts == 1


def test_verdicts_are_not_worked_out_again(tmp_path: Path) -> None:
    graded(tmp_path, SEVEN)
    before = (tmp_path / "grades.json").stat().st_mtime_ns
    assert graded(tmp_path, SEVEN).asked == []
    assert (tmp_path / "grades.json").stat().st_mtime_ns == before


def test_an_answer_that_got_no_verdict_on_a_busy_machine_is_tried_again_and_the_others_are_not(tmp_path: Path) -> None:
    busy = asyncio.run(grade(a_run(), Labels(kind="number", by_id=SEVEN), CountingJudge(busy_with="5"), tmp_path))
    assert busy.of("q1") == {"7": True, "5": None, "6": None} and busy.timeouts == 2
    assert read_grades(tmp_path).of("q1") == {"7": True, "6": None}
    assert graded(tmp_path, SEVEN).asked == [("5", "7")]
    assert read_grades(tmp_path).of("q1") == {"7": True, "5": False, "6": None}


def test_verdicts_of_an_earlier_schema_are_not_used(tmp_path: Path) -> None:
    graded(tmp_path, SEVEN)
    old = json.loads((tmp_path / "grades.json").read_text()) | {"schema": 1}
    (tmp_path / "grades.json").write_text(json.dumps(old))
    assert len(graded(tmp_path, SEVEN).asked) == 8


def test_a_changed_label_is_graded_anew(tmp_path: Path) -> None:
    graded(tmp_path, SEVEN)
    assert sorted(graded(tmp_path, {**SEVEN, "q0": "3"}).asked) == [("3", "3"), ("7", "3")]
    assert read_grades(tmp_path).of("q0") == {"7": False, "3": True}


def test_a_question_that_lost_its_label_has_no_verdicts(tmp_path: Path) -> None:
    graded(tmp_path, SEVEN)
    graded(tmp_path, {"q0": "7"})
    assert set(read_grades(tmp_path).verdicts) == {"q0"}


def test_a_file_that_is_no_grades_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "grades.json").write_text("{broken")
    assert len(graded(tmp_path, SEVEN).asked) == 8


def test_labels_are_not_in_the_run_folder_nor_in_a_repr(tmp_path: Path) -> None:
    graded(tmp_path, dict.fromkeys(SEVEN, "987654"))
    assert "987654" not in (tmp_path / "grades.json").read_text()
    assert "987654" not in repr(Labels(kind="number", by_id={"q0": "987654"}))


def test_shuffled_or_deleted_labels_change_no_answer_and_no_metric(tmp_path: Path) -> None:
    written = []
    for name, by_id in {"right": SEVEN, "wrong": dict.fromkeys(SEVEN, "3"), "none": {}}.items():
        folder = tmp_path / name
        folder.mkdir()
        grades = asyncio.run(grade(a_run(), Labels(kind="number", by_id=by_id), CountingJudge(), folder))
        write_report(loaded(a_run(), grades, folder=folder))
        written.append([(folder / file).read_bytes() for file in ("results.jsonl", "metrics.jsonl")])
    assert written[0] == written[1] == written[2]


def test_results_are_the_same_bytes_whatever_the_clock_and_the_attempt() -> None:
    again = [question(0, {"base": poll(["7"])}, attempt=attempt, seconds={"sample": float(attempt)}) for attempt in (1, 2)]
    assert results_lines(again[:1]) == results_lines(again[1:])
    first = json.loads(results_lines(a_run()).splitlines()[0])
    assert list(first) == ["answer", "answer_source", "id", "index", "polls", "status", "steps", "stop"]
    assert first["polls"]["base"] == {"k": 4, "answer": "3", "majority_ratio": 0.5, "margin": pytest.approx(1 / 3)}


def test_metrics_have_a_line_a_step_in_order() -> None:
    lines = [json.loads(line) for line in metrics_lines(a_run()).splitlines()]
    assert [(line["id"], line["step"]) for line in lines] == [("q0", 0), ("q0", 1), ("q1", 0), ("q1", 1), ("q2", 0), ("q3", 0)]
    assert lines[0]["update/kl_to_base_nats"] == 0.002
    assert "update/loss" not in lines[4]
    assert lines[0]["reward/mean"] == 0.5


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graded(tmp_path, SEVEN)
    before = (tmp_path / "grades.json").read_bytes()

    def no_room(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_room)
    with pytest.raises(JournalError, match="No space left"):
        graded(tmp_path, {"q0": "7"})
    assert (tmp_path / "grades.json").read_bytes() == before
    assert os.listdir(tmp_path) == ["grades.json"]


def test_labels_of_a_data_set_and_the_real_judge(tmp_path: Path) -> None:
    labels = load_labels(SourceSpec(dataset="arithmetic-demo"))
    assert labels.kind == "number"
    question_id, label = next(iter(labels.by_id.items()))
    samples = poll([label, f"{label}.0", "-1"])
    finished = [question(0, {"base": samples}, id=question_id), question(1, {"base": samples}, id="not in the data set")]
    with_judge = Judge()
    try:
        grades = asyncio.run(grade(finished, labels, with_judge, tmp_path))
    finally:
        with_judge.close_sync()
    assert grades.verdicts == {question_id: {label: True, f"{label}.0": True, "-1": False}}


def test_write_report_writes_the_four_files(tmp_path: Path) -> None:
    grades = asyncio.run(grade(a_run(), Labels(kind="number", by_id=SEVEN), CountingJudge(), tmp_path))
    summary = write_report(loaded(a_run(), grades, {"dataset": "arithmetic-demo"}, tmp_path))
    assert {"results.jsonl", "metrics.jsonl", "summary.json", "report.html", "grades.json"} == set(os.listdir(tmp_path))
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert before_after_table(summary)


def test_the_builder_gives_every_text_a_class() -> None:
    assert ballots(["a", None, "b", "a"]).class_G == [0, None, 1, 0]
