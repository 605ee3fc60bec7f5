"""A disk that is full, read-only or broken ends the run at once, from whichever process; after that the same command goes on."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live_engine import settings_for
from ray.exceptions import RayTaskError
from safetensors import SafetensorError
from safetensors.numpy import save_file
from stand_in import Faults, Planned, StandIn, StandInPolicy, attempt, config_for, results, rollouts

from sttrl.engine import lanes
from sttrl.engine.asking import answer
from sttrl.errors import JournalError, StepError, disk_fault
from sttrl.ledger.journal import Journal, read_finished
from sttrl.questions.answers import Judge
from sttrl.questions.records import poll_from_json
from sttrl.report.runs import report_run
from sttrl.run.plan import EngineParts
from sttrl.run.workshop import Workshop

TTRL: dict[str, Any] = {"adaptation_method": "ttrl", "steps": None, "epochs": 2, "train_batch_size": 2, "checkpoint_every": 1}
MODES: dict[str, dict[str, Any]] = {"per_question": {}, "continuous": {"continuous": True}, "ttrl": TTRL}
FULL = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


# From the stand-in


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("place", [("save", 1), ("save", 2), ("checkpoint", 1), ("update", 2)])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EROFS, "Read-only file system"), FULL])
def test_a_disk_s_fault_ends_the_run_and_costs_no_question(
    error: Planned, place: tuple[str, int], mode: str, tmp_path: Path, judge: Judge
) -> None:
    if place[0] == "checkpoint" and mode == "per_question":
        pytest.skip("such a run has no state")
    settings = {"limit": 3, "ties": "first", **MODES[mode]}
    attempt(config_for(tmp_path / "whole", **settings), StandIn(), judge)
    with pytest.raises(JournalError) as caught:
        attempt(config_for(tmp_path / "run", **settings), StandIn(Faults({place: error})), judge)
    assert caught.value.exit_code == 2 and str(tmp_path / "run") in str(caught.value) and "\n" not in str(caught.value)
    assert "No space left" in str(caught.value) or "Read-only" in str(caught.value)
    assert all(question.record.status == "done" for question in read_finished(tmp_path / "run", poll_from_json))
    attempt(config_for(tmp_path / "run", **settings), StandIn(), judge)
    assert results(tmp_path / "run") == results(tmp_path / "whole") and rollouts(tmp_path / "run") == rollouts(tmp_path / "whole")
    assert not list((tmp_path / "run").glob("*/.*")), "nothing half-written is left"


# From a process of the engine's


def asked(cause: Exception) -> Any:
    """What a call to a process of the engine's comes to that raised this there."""

    async def request() -> None:
        raise RayTaskError("ask", "Traceback of the other process\nits last line", cause)

    return asyncio.run(answer(request(), "learner"))


@pytest.mark.parametrize("cause", [FULL, OSError(errno.EIO, "Input/output error", "/x"), OSError(errno.EDQUOT, "Disk quota exceeded")])
def test_a_disk_s_fault_in_another_process_comes_back_as_one(cause: Exception) -> None:
    with pytest.raises(OSError) as caught:
        asked(cause)
    assert caught.value.errno in (errno.ENOSPC, errno.EIO, errno.EDQUOT) and disk_fault(caught.value) is caught.value


def test_an_error_of_a_step_names_the_file_that_holds_its_story(tmp_path: Path, judge: Judge) -> None:
    with pytest.raises(StepError) as caught:
        asked(ValueError("a shape"))
    attempt(config_for(tmp_path / "run", limit=2), StandIn(Faults({("update", 1): caught.value})), judge)
    bad, _ = (question.record for question in read_finished(tmp_path / "run", poll_from_json))
    assert bad.status == "failed" and bad.error is not None and bad.error.startswith("The learner failed: ValueError: a shape.")
    file = tmp_path / "run" / bad.error.removesuffix(".").rpartition(" ")[2]
    assert "Traceback of the other process" in file.read_text()


def test_output_that_cannot_be_kept_hides_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk ends the run, and then the engine's output does not fit either: that is said beside the error."""

    said: list[str] = []
    lane = lanes.Lane(settings_for(tmp_path), None, said.append)
    monkeypatch.setattr(lane.home, "new_output", lambda: {"worker-1.err": b"text"})
    (tmp_path / "logs").write_text("no folder")
    lane.keep_logs(tmp_path / "logs")
    assert said == [f"the engine's output cannot be kept in {tmp_path}/logs: File exists"]


def test_each_run_of_a_sweep_keeps_what_was_written_during_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And none of what another program's workers wrote on the same cluster."""
    from sttrl.engine import processes

    monkeypatch.setattr(processes, "session_logs", lambda: tmp_path)
    (tmp_path / "worker-a-02000000-1.err").write_text("first\n")
    (tmp_path / "worker-b-ffffffff-2.err").write_text("started in advance\n")
    (tmp_path / "worker-c-01000000-1.err").write_text("another program's\n")
    (tmp_path / "worker-d-ffffffff-4.err").write_text("another program's\n")
    first, kept = processes.new_output({}, "02000000", [1, 2])
    (tmp_path / "worker-a-02000000-1.err").write_text("first\nsecond\n")
    (tmp_path / "worker-e-02000000-5.out").write_text("new\n")
    second, kept = processes.new_output(kept, "02000000", [1, 2, 5])
    assert first == {"worker-a-02000000-1.err": b"first\n", "worker-b-ffffffff-2.err": b"started in advance\n"}
    assert second == {"worker-a-02000000-1.err": b"second\n", "worker-e-02000000-5.out": b"new\n"}
    assert processes.new_output(kept, "02000000", [1, 2, 5])[0] == {}


def test_the_lanes_of_a_sweep_are_told_whose_run_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Lanes(StandIn):
        def __init__(self, settings: Any, tokenizer: Any, folder: Path, say: Any) -> None:
            super().__init__()
            self.settings, self.folders = settings, [folder]

        def log_to(self, folder: Path) -> None:
            self.folders.append(folder)

    async def both() -> list[Path]:
        await workshop.ready(parts, tmp_path / "a")
        (lane,) = await workshop.ready(parts, tmp_path / "b")
        return list(lane.folders)

    parts: Any = EngineParts(settings_for(tmp_path), None, None)
    monkeypatch.setattr(lanes, "RayEngine", Lanes)
    workshop = Workshop(lambda line: None)
    assert asyncio.run(both()) == [tmp_path / "a", tmp_path / "b"]


# A disk that is really full


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("mode", MODES)
def test_a_full_disk(mode: str, small_disk: Path, tmp_path: Path, judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    save = StandInPolicy.save

    async def large(policy: StandInPolicy, folder: Path) -> None:
        await save(policy, folder)
        save_file({"delta": np.array(policy.delta_C), "rest": np.zeros(80_000)}, folder / "delta.safetensors")

    monkeypatch.setattr(StandInPolicy, "save", large)
    settings = {"limit": 4, "ties": "first", **MODES[mode]}
    attempt(config_for(tmp_path / "whole", **settings), StandIn(), judge)
    config = config_for(small_disk / "run", **settings)
    with pytest.raises(JournalError, match=r"Cannot write .*/disk/run/.*: No space left on device. Make room") as caught:
        attempt(config, StandIn(), judge)
    assert "\n" not in str(caught.value)
    before = results(small_disk / "run")
    assert results(tmp_path / "whole").startswith(before), "what was finished before is kept"
    with pytest.raises(JournalError, match="No space left"):
        attempt(config, StandIn(), judge)
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    attempt(config, StandIn(), judge)
    assert results(small_disk / "run") == results(tmp_path / "whole")


# Durable, and readable by whom the umask allows


@pytest.mark.parametrize("mode", ["continuous", "ttrl"])
def test_a_state_is_on_disk_before_the_line_that_refers_to_it(
    mode: str, tmp_path: Path, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    append, replace = Journal.append, os.replace

    def synced(handle: int) -> None:
        events.append(f"sync {os.readlink(f'/proc/self/fd/{handle}')}")

    def replaced(old: Path, new: Path) -> None:
        replace(old, new)
        events.append(f"move {new}")

    def appended(journal: Journal, kind: str, **record: Any) -> None:
        append(journal, kind, **record)
        events.append(f"line {kind}")

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    monkeypatch.setattr(Journal, "append", appended)
    attempt(config_for(tmp_path / "run", limit=2, ties="first", **MODES[mode]), StandIn(), judge)
    state = tmp_path / "run" / "state"
    line = "line question" if mode == "continuous" else "line trained"
    for number, name in enumerate(("after_1", "after_2") if mode == "continuous" else ("step_1", "step_2")):
        until = [at for at, event in enumerate(events) if event == line][number]
        moved = events.index(f"move {state / name}")
        unfinished = state / ".unfinished" / name
        for file in (unfinished / "delta.json", unfinished / "version", unfinished):
            assert events.index(f"sync {file}") < moved
        assert f"sync {state}" in events[moved:until] and moved < until
    assert f"sync {state.parent}" in events[: events.index(line)], "the name of the folder state itself"


def test_files_have_the_permissions_that_the_umask_allows(tmp_path: Path, judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    save = StandInPolicy.save

    async def private(policy: StandInPolicy, folder: Path) -> None:
        await save(policy, folder)
        save_file({"delta": np.array(policy.delta_C)}, folder / "delta.safetensors")

    monkeypatch.setattr(StandInPolicy, "save", private)
    before = os.umask(0o027)
    try:
        attempt(config_for(tmp_path / "run", limit=2, ties="first"), StandIn(), judge)
        report_run(tmp_path / "run")
    finally:
        os.umask(before)
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    names = {path.name for path in files}
    assert names >= {"journal.jsonl", "config.json", "summary.json", "report.html", "results.jsonl", "grades.json", "delta.safetensors"}
    assert {path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in files} == dict.fromkeys(names, "0o640")


# Lines


@pytest.mark.parametrize("mode", MODES)
def test_a_character_that_some_take_for_the_end_of_a_line_is_none(mode: str, tmp_path: Path, judge: Judge) -> None:
    odd = "one\u2028two\u2029three\x85four\x0bfive\x0csix\x1cseven\rnine\r\nten"
    engine = StandIn(texts=lambda prompt_T, seed, answer: (f"{odd} the answer is {answer}", "stop"))
    attempt(config_for(tmp_path / "run", limit=2, ties="first", **MODES[mode]), engine, judge)
    assert [question.record.status for question in read_finished(tmp_path / "run", poll_from_json)] == ["done"] * 2
    for data in rollouts(tmp_path / "run").values():
        texts = [json.loads(line)["text"] for line in data.decode().splitlines()]
        assert len(texts) == data.count(b"\n") and all(text.startswith(odd) for text in texts), "also for who reads with splitlines()"


def test_rollouts_with_such_a_character_written_as_it_is_are_read(tmp_path: Path, judge: Judge) -> None:
    """JSON allows it, so another program, or an older one, may have written it."""
    from sttrl.errors import EngineError

    config = config_for(tmp_path / "run", limit=2, ties="first", **TTRL)
    with pytest.raises(EngineError):
        attempt(config, StandIn(Faults({("update", 2): EngineError("The learner died.")})), judge)
    for file in (tmp_path / "run" / "rollouts").iterdir():
        file.write_text(file.read_text().replace("Let me see", "Let\u2028me\x85see"))
    attempt(config, StandIn(), judge)
    assert [question.record.status for question in read_finished(tmp_path / "run", poll_from_json)] == ["done"] * 2
