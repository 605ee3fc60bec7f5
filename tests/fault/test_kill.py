"""Promise 1: kill -9 at any instant, the same command again, and the run is the one that was never interrupted.

The kills are real: a forked child runs the real runner and ends by ``os._exit`` in the middle of it, so nothing is cleaned up.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from stand_in import Faults, StandIn, Texts, attempt, config_for, results, rollouts, usual_text

from sttrl.config import RunConfig
from sttrl.errors import JournalError
from sttrl.ledger.journal import JOURNAL, Journal, read_lines
from sttrl.questions.answers import Judge
from sttrl.types import Problem

KILLED = 137
CUTS = 200
TTRL = {"adaptation_method": "ttrl", "steps": None, "epochs": 2, "train_batch_size": 2, "eval_every": 1, "checkpoint_every": 2}
MODES: dict[str, dict[str, Any]] = {
    "per_question": {}, "continuous": {"continuous": True}, "two_in_flight": {"parallel_problems": 2}, "ttrl": TTRL,
}  # fmt: skip


class Instants:
    """Counts the instants at which a run can be killed, and ends the process at the n-th.

    They lie around every call of the engine and of the file system, and in the middle of every line of the journal.
    """

    def __init__(self, last: int | None = None) -> None:
        self.last, self.count = last, 0

    def tick(self) -> None:
        """One instant."""
        self.count += 1
        if self.count == self.last:
            os._exit(KILLED)

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The call with an instant before and after."""

        def watched(*arguments: Any, **options: Any) -> Any:
            self.tick()
            value = call(*arguments, **options)
            self.tick()
            return value

        return watched

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Watch the file system."""
        append = Journal.append

        def watched_append(journal: Journal, kind: str, **record: Any) -> None:
            file = journal.file
            journal.file = Torn(file, self)  # type: ignore[assignment]
            append(journal, kind, **record)
            journal.file = file
            self.tick()

        monkeypatch.setattr(Journal, "append", watched_append)
        for name in ("replace", "fsync", "open"):
            monkeypatch.setattr(os, name, self.around(getattr(os, name)))
        monkeypatch.setattr(shutil, "rmtree", self.around(shutil.rmtree))

    def engine(self, texts: Texts = usual_text) -> StandIn:
        """An engine whose calls are instants too."""
        faults = Faults()
        at = faults.at

        def watched(kind: str) -> None:
            at(kind)
            self.tick()

        faults.at = watched  # type: ignore[method-assign]
        return StandIn(faults, texts)


class Torn:
    """The journal's file, with an instant before a write, one when half of it is there, and one after."""

    def __init__(self, file: Any, instants: Instants) -> None:
        self.file, self.instants = file, instants

    def write(self, line: bytes) -> int:
        """In two parts."""
        self.instants.tick()
        written = self.file.write(line[: len(line) // 2])
        self.instants.tick()
        written += self.file.write(line[len(line) // 2 :])
        self.instants.tick()
        return int(written)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def run_and_die(
    config: RunConfig, judge: Judge, instant: int, problems: Sequence[Problem] | None = None, texts: Texts = usual_text
) -> bool:
    """Run in a child that is killed at the instant; True where it came that far."""
    child = os.fork()
    if child == 0:
        try:
            instants = Instants(last=instant)
            instants.install(pytest.MonkeyPatch())
            attempt(config, instants.engine(texts), judge, problems)
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, KILLED)
    return status == KILLED


def finished_lines(folder: Path) -> list[bytes]:
    """The lines of finished questions that a killed run left."""
    data = (folder / JOURNAL).read_bytes() if (folder / JOURNAL).exists() else b""
    return [line for line in data[: data.rfind(b"\n") + 1].splitlines() if json.loads(line)["kind"] == "question"]


def check_nothing_twice(folder: Path) -> None:
    """Every question is finished once, and never begun again after that."""
    over: set[str] = set()
    for record in read_lines(folder):
        if record["kind"] in ("begin", "step", "question"):
            assert record["id"] not in over, f"{record['id']} was done twice"
        if record["kind"] == "question":
            over.add(record["id"])


def small(folder: Path, mode: str) -> RunConfig:
    return config_for(folder, **{"limit": 3, "steps": 2, "n_votes": 7, "n_train": 7, "val_samples": 3, "ties": "first", **MODES[mode]})


@pytest.fixture(scope="module", params=MODES)
def reference(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, judge: Judge) -> tuple[str, Path]:
    """A run that nothing interrupted."""
    folder = tmp_path_factory.mktemp(f"reference_{request.param}") / "run"
    attempt(small(folder, request.param), StandIn(), judge)
    return request.param, folder


def instants_of(mode: str, folder: Path, judge: Judge) -> int:
    """How many instants an uninterrupted run has."""
    instants = Instants()
    with pytest.MonkeyPatch.context() as monkeypatch:
        instants.install(monkeypatch)
        attempt(small(folder, mode), instants.engine(), judge)
    return instants.count


def check_resumed(config: RunConfig, reference: Path, judge: Judge) -> None:
    """Run again to the end, and compare with the run that nothing interrupted."""
    folder = config.run.output_dir / str(config.run.run_name)
    before = finished_lines(folder)
    attempt(config, StandIn(), judge)
    assert finished_lines(folder)[: len(before)] == before
    check_nothing_twice(folder)
    assert results(folder) == results(reference)
    assert rollouts(folder) == rollouts(reference)


def test_killed_at_every_instant(reference: tuple[str, Path], tmp_path: Path, judge: Judge) -> None:
    mode, whole = reference
    total = instants_of(mode, tmp_path / "count", judge)
    chosen = range(1, total + 1, 2 if mode == "per_question" else 7)
    kills = 0
    for instant in chosen:
        config = small(tmp_path / f"killed_{instant}", mode)
        kills += run_and_die(config, judge, instant)
        check_resumed(config, whole, judge)
        shutil.rmtree(tmp_path / f"killed_{instant}")
    assert kills == len(chosen) > 20


def test_killed_again_and_again(reference: tuple[str, Path], tmp_path: Path, judge: Judge) -> None:
    mode, whole = reference
    config, chance = small(tmp_path / "run", mode), random.Random(7)
    kills = sum(run_and_die(config, judge, chance.randrange(1, 50)) for _ in range(15))
    assert kills >= 5
    check_resumed(config, whole, judge)


@pytest.mark.parametrize("mode", ["per_question", "two_in_flight"])
def test_journal_cut_at_any_byte(mode: str, tmp_path: Path, judge: Judge) -> None:
    whole = tmp_path / "whole"
    attempt(small(whole, mode), StandIn(), judge)
    data = (whole / JOURNAL).read_bytes()
    anywhere = random.Random(11).sample(range(len(data)), CUTS if mode == "per_question" else CUTS // 8)
    boundaries = [position + 1 for position, byte in enumerate(data) if byte == ord("\n")]
    for cut in sorted({*anywhere, *boundaries}):
        folder = tmp_path / f"cut_{cut}"
        folder.mkdir()
        shutil.copy(whole / "config.json", folder)
        (folder / JOURNAL).write_bytes(data[:cut])
        # Rollouts come before the line that says a question is finished, so those of finished questions are there.
        shutil.copytree(whole / "rollouts", folder / "rollouts")
        check_resumed(small(folder, mode), whole, judge)
        shutil.rmtree(folder)


def test_a_killed_run_can_be_read_as_it_is(tmp_path: Path, judge: Judge) -> None:
    config = small(tmp_path / "run", "per_question")
    assert run_and_die(config, judge, 110)
    torn = (tmp_path / "run" / JOURNAL).read_bytes() + b'{"v": 1, "kind": "qu'
    (tmp_path / "run" / JOURNAL).write_bytes(torn)
    assert results(tmp_path / "run").count("\n") == len(finished_lines(tmp_path / "run"))
    assert (tmp_path / "run" / JOURNAL).read_bytes() == torn, "reading changes nothing"


def test_a_damaged_line_is_never_passed_over(tmp_path: Path, judge: Judge) -> None:
    config = small(tmp_path / "run", "per_question")
    attempt(config, StandIn(), judge)
    path = tmp_path / "run" / JOURNAL
    data = path.read_bytes()
    middle = data.index(b"\n", len(data) // 2) + 1
    path.write_bytes(data[:middle] + b"\x00\x00\x00\n" + data[middle:])
    with pytest.raises(JournalError, match=r"line \d+ is damaged"):
        attempt(config, StandIn(), judge)


def test_a_continuous_run_goes_on_from_its_state(tmp_path: Path, judge: Judge) -> None:
    """The state matters: without it the second question would be answered by the base."""
    together, alone = small(tmp_path / "together", "continuous"), small(tmp_path / "alone", "per_question")
    attempt(together, StandIn(), judge)
    attempt(alone, StandIn(), judge)
    assert results(tmp_path / "together") != results(tmp_path / "alone")
    engine = StandIn()
    for instant in range(1, 400):
        if finished_lines(tmp_path / "killed"):
            break
        run_and_die(small(tmp_path / "killed", "continuous"), judge, 40 + instant)
    attempt(small(tmp_path / "killed", "continuous"), engine, judge)
    assert engine.faults.calls["restore"] == 1
    assert results(tmp_path / "killed") == results(tmp_path / "together")
    assert [path.name for path in (tmp_path / "killed" / "state").iterdir()] == ["after_3"], "states that are over are removed"
