"""Promises 2, 4, 5, 9, 10 and 12 over the real runner, journal and report: what fails, fails alone and says so in one line."""

from __future__ import annotations

import errno
import gc
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stand_in import Faults, StandIn, attempt, config_for, problems_for, results, rollouts

from sttrl.cli import finish
from sttrl.errors import DivergedError, EngineError, JournalError, OutOfMemoryError, QuestionsFailedError, StepError, SttrlError
from sttrl.ledger.files import write_text
from sttrl.ledger.folder import CONFIG
from sttrl.ledger.journal import JOURNAL, Journal, read_finished, read_lines
from sttrl.questions.answers import Judge
from sttrl.questions.prompts import AskedQuestion
from sttrl.questions.records import poll_from_json
from sttrl.report.runs import report_run

FAILURES: dict[str, BaseException] = {
    "diverged": DivergedError("The loss is not finite.", "Use a smaller --lr."),
    "oom": OutOfMemoryError("The learner ran out of memory.", "Use fewer samples."),
    "failed": RuntimeError("first line\nsecond line"),
}


def records(folder: Path) -> dict[str, Any]:
    """The finished questions by id."""
    return {f.record.id: f.record for f in read_finished(folder, poll_from_json)}


# One question that fails


@pytest.mark.parametrize("status", FAILURES)
@pytest.mark.parametrize("place", [("sample", 4), ("update", 1), ("update", 2), ("save", 1), ("fork", 3)])
def test_a_question_that_fails_stays_alone(status: str, place: tuple[str, int], tmp_path: Path, judge: Judge) -> None:
    config = config_for(tmp_path / "run")
    attempt(config_for(tmp_path / "whole"), StandIn(), judge)
    attempt(config, StandIn(Faults({place: FAILURES[status]})), judge)
    found, whole = records(tmp_path / "run"), records(tmp_path / "whole")
    assert list(found) == list(whole)
    (bad,) = (record for record in found.values() if record.status != "done")
    assert bad.status == status and "\n" not in bad.error and str(FAILURES[status]).split("\n")[0] in bad.error
    assert bad.stop is None and "adapted" not in bad.polls or place[0] == "save"
    base = bad.polls.get("base")
    assert place[0] == "fork" or bad.answer_source == "base" and bad.answer == whole[bad.id].polls["base"].election.answer and base
    others = [line for line in results(tmp_path / "run").splitlines() if json.loads(line)["id"] != bad.id]
    assert others == [line for line in results(tmp_path / "whole").splitlines() if json.loads(line)["id"] != bad.id]


def test_a_step_that_fails_in_a_process_that_lives_on_costs_one_question(tmp_path: Path, judge: Judge) -> None:
    attempt(config_for(tmp_path / "run"), StandIn(Faults({("update", 1): StepError("The learner failed: no.", "See logs/.")})), judge)
    found = list(records(tmp_path / "run").values())
    assert [record.status for record in found] == ["failed", "done", "done", "done"]
    assert found[0].error == "The learner failed: no. See logs/." and found[0].answer_source == "base"


def test_failed_questions_end_in_exit_code_5(tmp_path: Path, judge: Judge, capsys: pytest.CaptureFixture[str]) -> None:
    attempt(config_for(tmp_path / "run"), StandIn(Faults({("update", 1): FAILURES["diverged"]})), judge)
    with pytest.raises(QuestionsFailedError, match="1 of 4 questions failed or diverged; they keep the base.s answer") as failed:
        finish(report_run(tmp_path / "run"), tmp_path / "run")
    assert failed.value.exit_code == 5
    assert "1 diverged" in capsys.readouterr().out


def test_a_failure_before_the_base_was_asked_has_no_answer(tmp_path: Path, judge: Judge) -> None:
    attempt(config_for(tmp_path / "run"), StandIn(Faults({("sample", 1): RuntimeError("no")})), judge)
    first = read_finished(tmp_path / "run", poll_from_json)[0].record
    assert (first.status, first.answer, first.answer_source, first.polls) == ("failed", None, None, {})
    trace = tmp_path / "run" / "logs" / "attempt_1" / f"{first.id}.traceback"
    assert "RuntimeError: no" in trace.read_text()


def test_a_failure_in_a_continuous_run_keeps_the_policy(tmp_path: Path, judge: Judge) -> None:
    config = config_for(tmp_path / "run", continuous=True, ties="first")
    attempt(config, StandIn(Faults({("update", 2): FAILURES["diverged"]})), judge)
    found = list(records(tmp_path / "run").values())
    assert [record.status for record in found] == ["diverged", "done", "done", "done"]
    steps = [step.version for question in read_finished(tmp_path / "run", poll_from_json) for step in question.steps]
    assert steps == sorted(steps) and steps[1] == 1, "the update before the failure stays, the failed one counts for nothing"


def test_a_lost_engine_ends_the_run_and_the_next_resumes(tmp_path: Path, judge: Judge) -> None:
    attempt(config_for(tmp_path / "whole"), StandIn(), judge)
    for number, place in enumerate([("sample", 9), ("update", 4), ("fork", 3), ("save", 2)]):
        config = config_for(tmp_path / f"run_{number}")
        lost = EngineError("The sampler died: killed.", "Run the same command again: finished questions are kept.")
        with pytest.raises(EngineError, match="The sampler died"):
            attempt(config, StandIn(Faults({place: lost})), judge)
        before = len(records(tmp_path / f"run_{number}"))
        assert before < 4
        attempt(config, StandIn(), judge)
        assert results(tmp_path / f"run_{number}") == results(tmp_path / "whole")
        assert {record["attempt"] for record in read_lines(tmp_path / f"run_{number}") if record["kind"] == "begin"} == {1, 2}


# A disk that is full, read-only or broken


class FullDisk:
    """Counts the calls that write, and lets the n-th fail, and every later one while ``stays``."""

    def __init__(self, at: int | None, error: int = errno.ENOSPC, stays: bool = False) -> None:
        self.at, self.error, self.stays, self.count = at, error, stays, 0

    def fails(self) -> None:
        """One call."""
        self.count += 1
        if self.at is not None and (self.count == self.at or self.stays and self.count > self.at):
            raise OSError(self.error, os.strerror(self.error))

    def watch(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The call, if there is room."""

        def watched(*arguments: Any, **options: Any) -> Any:
            self.fails()
            return call(*arguments, **options)

        return watched

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Watch everything that writes."""
        opened = Journal.__init__

        def init(journal: Journal, folder: Path) -> None:
            opened(journal, folder)
            journal.file = FullFile(journal.file, self)  # type: ignore[assignment]

        monkeypatch.setattr(Journal, "__init__", init)
        monkeypatch.setattr(os, "replace", self.watch(os.replace))
        monkeypatch.setattr(os, "fsync", self.watch(lambda handle: None))
        monkeypatch.setattr("tempfile.mkstemp", self.watch(__import__("tempfile").mkstemp))
        monkeypatch.setattr(Path, "mkdir", self.watch(Path.mkdir))


class FullFile:
    """The journal's file: where there is no room, half a line arrives first."""

    def __init__(self, file: Any, disk: FullDisk) -> None:
        self.file, self.disk = file, disk

    def write(self, line: bytes) -> int:
        """All, or half and an error."""
        try:
            self.disk.fails()
        except OSError:
            self.file.write(line[: len(line) // 2])
            raise
        return int(self.file.write(line))

    def truncate(self, size: int) -> int:
        """On a broken disk not even this works."""
        if self.disk.stays and self.disk.error == errno.EIO:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return int(self.file.truncate(size))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


@pytest.mark.parametrize("mode", [{}, {"continuous": True}])
@pytest.mark.parametrize(("error", "stays"), [(errno.ENOSPC, False), (errno.ENOSPC, True), (errno.EROFS, True), (errno.EIO, True)])
def test_no_room_for_the_nth_write(mode: dict[str, Any], error: int, stays: bool, tmp_path: Path, judge: Judge) -> None:
    settings = {"limit": 2, "steps": 2, "n_votes": 7, "n_train": 7, "val_samples": 3, "ties": "first", **mode}
    attempt(config_for(tmp_path / "whole", **settings), StandIn(), judge)
    whole = results(tmp_path / "whole")
    with pytest.MonkeyPatch.context() as monkeypatch:
        counted = FullDisk(at=None)
        counted.install(monkeypatch)
        attempt(config_for(tmp_path / "counted", **settings), StandIn(), judge)
    assert counted.count > 30
    for number in range(1, counted.count + 1, 1 if (error, stays) == (errno.ENOSPC, False) and not mode else 6):
        folder = tmp_path / f"run_{number}"
        with pytest.MonkeyPatch.context() as monkeypatch:
            FullDisk(number, error, stays).install(monkeypatch)
            with pytest.raises(JournalError) as caught:
                attempt(config_for(folder, **settings), StandIn(), judge)
        said = str(caught.value)
        assert "\n" not in said and os.strerror(error) in said and str(folder) in said and "--output_dir" in said, said
        if (folder / JOURNAL).exists():
            done = results(folder)
            assert whole.startswith(done), "what was finished can be read, and is what it was"
        attempt(config_for(folder, **settings), StandIn(), judge)
        assert results(folder) == whole
        assert not list(folder.rglob(".*.jsonl.*")), "no half-written file is left"


def test_a_report_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, judge: Judge, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    attempt(config_for(folder, limit=2), StandIn(), judge)
    finish(report_run(folder), folder)
    names = ("results.jsonl", "metrics.jsonl", "summary.json", "report.html")
    old = {name: (folder / name).read_bytes() for name in names}
    for number in range(1, 60):
        with pytest.MonkeyPatch.context() as monkeypatch:
            disk = FullDisk(number, stays=True)
            disk.install(monkeypatch)
            try:
                finish(report_run(folder), folder)
            except JournalError as error:
                assert "No space left" in str(error)
            else:
                assert disk.count < number, "an error was passed over"
                break
        assert {name: (folder / name).read_bytes() for name in names} == old
    assert number > 8


def test_a_file_is_replaced_and_never_written_over(tmp_path: Path) -> None:
    """A second name of the old file still holds the old text: whoever was reading it never saw a part of the new."""
    write_text(tmp_path / "file", "old")
    os.link(tmp_path / "file", tmp_path / "reader")
    write_text(tmp_path / "file", "new and longer")
    assert (tmp_path / "reader").read_text() == "old" and (tmp_path / "file").read_text() == "new and longer"
    assert {path.name for path in tmp_path.iterdir()} == {"file", "reader"}


# Whose folder it is


def test_two_runs_on_one_folder(tmp_path: Path, judge: Judge) -> None:
    with Journal(tmp_path / "run"), pytest.raises(JournalError, match="Another run is writing") as refused:
        attempt(config_for(tmp_path / "run"), StandIn(), judge)
    assert refused.value.exit_code == 2
    attempt(config_for(tmp_path / "run"), StandIn(), judge)


@pytest.mark.parametrize(("flag", "value"), [("seed", 1), ("n_votes", 13), ("model", "other/model"), ("ids", ("2-plus-5",)), ("lr", 0.5)])
def test_another_configuration_is_refused_by_name(flag: str, value: Any, tmp_path: Path, judge: Judge) -> None:
    attempt(config_for(tmp_path / "run"), StandIn(), judge)
    before = (tmp_path / "run" / JOURNAL).read_bytes(), (tmp_path / "run" / CONFIG).read_bytes()
    with pytest.raises(JournalError, match=rf"holds another run: --{flag} .* then, .* now\. Use another --run_name"):
        attempt(config_for(tmp_path / "run", **{flag: value}), StandIn(), judge)
    assert ((tmp_path / "run" / JOURNAL).read_bytes(), (tmp_path / "run" / CONFIG).read_bytes()) == before


def test_where_and_how_fast_may_change(tmp_path: Path, judge: Judge) -> None:
    with pytest.raises(EngineError):
        attempt(config_for(tmp_path / "run"), StandIn(Faults({("sample", 9): EngineError("gone")})), judge)
    attempt(config_for(tmp_path / "run", parallel_problems=3, kv_cache_mib=512), StandIn(), judge)
    assert len(records(tmp_path / "run")) == 4


# Order, company and hostile ids


def test_order_and_company_change_nothing(tmp_path: Path, judge: Judge) -> None:
    config = config_for(tmp_path / "run", limit=5)
    problems = problems_for(config)
    attempt(config, StandIn(), judge, problems)
    expected = results(tmp_path / "run")
    for number, in_flight in enumerate((1, 2, 3, 5, 2, 3)):
        shuffled = random.Random(number).sample(problems, len(problems))
        config = config_for(tmp_path / f"run_{number}", limit=5, parallel_problems=in_flight)
        attempt(config, StandIn(), judge, shuffled)
        assert results(tmp_path / f"run_{number}") == expected
        assert rollouts(tmp_path / f"run_{number}") == rollouts(tmp_path / "run")
    config = config_for(tmp_path / "alone", limit=5)
    attempt(config, StandIn(), judge, problems[3:4])
    assert results(tmp_path / "alone") == expected.splitlines(keepends=True)[3]


def test_questions_in_flight_are_bounded(tmp_path: Path, judge: Judge) -> None:
    most = 0

    class Counting(StandIn):
        def fork(self, name: str, delta: Any) -> Any:
            nonlocal most
            most = max(most, len({each for each in self.open if each.startswith("q")} | ({name} if name.startswith("q") else set())))
            return super().fork(name, delta)

    for in_flight in (1, 3):
        most = 0
        attempt(config_for(tmp_path / f"run_{in_flight}", limit=6, parallel_problems=in_flight), Counting(), judge)
        assert most == in_flight


HOSTILE_IDS = ("../../etc/passwd", "<script>alert(1)</script>", "/tmp/absolute", "..", "a/b", "x" * 300, "C:\\nul", "-rf", ".hidden", "ü ñ")


@pytest.mark.parametrize("continuous", [False, True])
def test_ids_cannot_leave_the_run_folder(continuous: bool, tmp_path: Path, judge: Judge) -> None:
    folder = tmp_path / "outer" / "run"
    problems = [AskedQuestion(id=text, index=index, kind="number", prompt_T=(index, 1)) for index, text in enumerate(HOSTILE_IDS)]
    attempt(config_for(folder, continuous=continuous, ties="first"), StandIn(Faults({("update", 3): RuntimeError("x")})), judge, problems)
    assert list(records(folder)) == list(HOSTILE_IDS)
    assert len(rollouts(folder)) == len(HOSTILE_IDS)
    assert list(tmp_path.iterdir()) == [folder.parent] and list(folder.parent.iterdir()) == [folder]
    parts = {CONFIG: 0, JOURNAL: 0, "rollouts": 1, "adapters": 2, "logs": 2, "state": 2}
    deep = {path for path in folder.rglob("*") if len(path.relative_to(folder).parts) - 1 > parts[path.relative_to(folder).parts[0]]}
    assert not deep, "an id made folders of its own"
    with pytest.raises(QuestionsFailedError):
        finish(report_run(folder), folder)
    assert "<script>alert" not in (folder / "report.html").read_text()


def test_text_that_is_no_utf8_ends_no_run(tmp_path: Path, judge: Judge) -> None:
    engine = StandIn(texts=lambda prompt_T, seed, answer: (f"\ud800 \x00 \u2028 the answer is {answer}", "stop"))
    attempt(config_for(tmp_path / "run"), engine, judge)
    assert [record.status for record in records(tmp_path / "run").values()] == ["done"] * 4
    first = next(iter(rollouts(tmp_path / "run").values())).decode().split("\n")[0]
    assert json.loads(first)["text"].startswith("\ud800 \x00 \u2028")


def test_every_error_is_one_line_with_a_remedy_and_survives_pickling() -> None:
    import pickle

    for error in (*FAILURES.values(), EngineError("a.", "b."), JournalError("a.", "b.")):
        again = pickle.loads(pickle.dumps(error))
        assert str(again) == str(error) and type(again) is type(error)
        assert not isinstance(error, SttrlError) or (again.message, again.hint) == (error.message, error.hint)


def test_a_planned_interrupt_leaves_no_task_for_asyncio_to_report(tmp_path: Path, judge: Judge, caplog: pytest.LogCaptureFixture) -> None:
    """Its report parses code at whatever moment the collector runs, and breaks other code that is being parsed."""
    with pytest.raises(KeyboardInterrupt):
        attempt(config_for(tmp_path / "run"), StandIn(Faults(plan={("sample", 3): KeyboardInterrupt()})), judge)
    gc.collect()
    assert not [record for record in caplog.records if record.name == "asyncio"]
