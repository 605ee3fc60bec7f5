"""The command as a user gives it, on the real stack with the tiny model: whole, killed and taken up again, and what is left of it."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
ROOT = Path(__file__).resolve().parents[2]
MARK = "STTRL_TEST_RUN"
LONG_S = 500
"""Nothing that will end takes so long, on however busy a machine. Ray's agents try for a minute to tell a killed cluster."""
FLAGS = [
    *("--dataset", "arithmetic-demo", "--limit", "3", "--steps", "2", "--n_votes", "8", "--n_train", "8", "--val_samples", "4"),
    *("--max_response_tokens", "8", "--ties", "first", "--lr", "0.01", "--deterministic", "--run_name", "run"),
]


@dataclass
class Command:
    """A running command and everything it starts, which inherits its mark."""

    process: subprocess.Popen[bytes]
    mark: str
    output: Path

    @property
    def run_folder(self) -> Path:
        return self.output / "run"

    def family(self) -> list[str]:
        """Every process that carries the mark."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(f"{process.pid} {' '.join(process.cmdline())[:80] or process.name()}")
        return found

    def finish(self) -> int:
        code = self.process.wait(LONG_S)
        return code

    def said(self) -> str:
        return "\n".join((self.output / f"{name}-{self.mark}").read_text(errors="replace") for name in ("stdout", "stderr"))


def start(model: Path, output: Path, mark: str) -> Command:
    output.mkdir(exist_ok=True)
    command = [sys.executable, str(ROOT / "main.py"), *FLAGS, "--model", str(model), "--output_dir", str(output)]
    environment = {**os.environ, MARK: mark}
    environment.pop("VERL_PLATFORM", None)
    with (output / f"stdout-{mark}").open("wb") as out, (output / f"stderr-{mark}").open("wb") as err:
        return Command(subprocess.Popen(command, env=environment, stdout=out, stderr=err, cwd=output), mark, output)


def question_lines(folder: Path) -> list[bytes]:
    """The journal's lines of finished questions."""
    journal = folder / "journal.jsonl"
    data = journal.read_bytes() if journal.exists() else b""
    return [line for line in data[: data.rfind(b"\n") + 1].splitlines() if json.loads(line)["kind"] == "question"]


def everything(folder: Path) -> dict[str, bytes]:
    files = [folder / "results.jsonl", *folder.glob("rollouts/*"), *folder.glob("adapters/**/*.safetensors")]
    return {str(f.relative_to(folder)): f.read_bytes() for f in files}


def check_orphans(killed: Command, deadline: float) -> None:
    assert not gone(killed, deadline), "orphans of the killed run"


def gone(command: Command, deadline: float) -> list[str]:
    """What is left of a command at the deadline, a `time.monotonic`, or earlier when nothing is."""
    while (left := command.family()) and time.monotonic() < deadline:
        time.sleep(0.5)
    return left


@pytest.fixture(scope="session")
def at_last() -> Iterator[list[Callable[[], None]]]:
    """What is checked when all tests are done: nobody waits for it."""
    checks: list[Callable[[], None]] = []
    yield checks
    for check in checks:
        check()


@pytest.fixture(scope="module")
def whole(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    """A run that nothing interrupts."""
    command = start(tiny_model, tmp_path_factory.mktemp("whole"), f"whole-{os.getpid()}")
    code = command.finish()
    assert code == 0, command.said()
    yield command


def test_a_run_leaves_its_folder_and_its_table(whole: Command) -> None:
    folder = whole.run_folder
    for name in ("config.json", "environment.json", "journal.jsonl", "results.jsonl", "metrics.jsonl", "summary.json", "report.html"):
        assert (folder / name).stat().st_size > 0, name
    assert len(list(folder.glob("rollouts/*.jsonl"))) == 3
    assert list(folder.glob("adapters/*/adapter_model.safetensors")), "somebody learned something"
    engine = json.loads((folder / "environment.json").read_text())
    assert engine["device"] in ("cpu", "cuda") and engine["dtype"] in ("bfloat16", "float32"), "what auto meant"
    table = (whole.output / f"stdout-{whole.mark}").read_text()
    assert "mean@4" in table and str(folder) in table.splitlines()[-1]
    results = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    assert len(results) == 3 and len({r["id"] for r in results}) == 3


def test_metrics_hold_sampler_and_learner_together(whole: Command) -> None:
    lines = [json.loads(line) for line in (whole.run_folder / "metrics.jsonl").read_text().splitlines()]
    updates = [line for line in lines if "update/loss" in line]
    assert updates and all(0 <= u["update/logprob_gap_mean_nats"] <= 0.2 for u in updates)
    assert all(u["update/logprob_correlation"] > 0.98 for u in updates)


def test_nothing_outlives_a_run(whole: Command) -> None:
    assert not gone(whole, time.monotonic() + LONG_S)
    assert not list(Path("/dev/shm").glob(f"sttrl-{whole.process.pid}-*"))


@pytest.mark.long
def test_killed_and_run_again_it_is_the_run_that_nothing_interrupted(
    whole: Command, tiny_model: Path, tmp_path: Path, at_last: list[Callable[[], None]]
) -> None:
    seed = time.time_ns()
    delay = random.Random(seed).uniform(0.0, 1.5)
    killed = start(tiny_model, tmp_path / "out", f"killed-{os.getpid()}")
    started = time.monotonic()
    while not question_lines(killed.run_folder) and killed.process.poll() is None and time.monotonic() - started < LONG_S:
        time.sleep(0.02)
    time.sleep(delay)
    family = killed.family()
    killed.process.send_signal(signal.SIGKILL)
    killed.process.wait(10)
    at = time.monotonic()
    before = question_lines(killed.run_folder)
    print(f"killed {delay:.2f} s after the first question (seed {seed}), {len(before)} finished, {len(family)} processes")
    assert killed.process.returncode == -signal.SIGKILL and before, killed.said()
    assert len(family) > 3, family

    again = start(tiny_model, tmp_path / "out", f"again-{os.getpid()}")
    code = again.finish()
    assert code == 0, again.said()
    assert question_lines(again.run_folder)[: len(before)] == before
    assert len(question_lines(again.run_folder)) == 3
    assert everything(again.run_folder) == everything(whole.run_folder)
    assert not [process for process in killed.family() if "Agent" not in process], "Ray's agents hold no model and no core"
    at_last.append(lambda: check_orphans(killed, at + LONG_S))
    assert not gone(again, time.monotonic() + LONG_S)


def test_a_finished_run_is_only_reported_again(whole: Command, tiny_model: Path) -> None:
    before: dict[str, Any] = {**everything(whole.run_folder), "journal": (whole.run_folder / "journal.jsonl").read_bytes()}
    again = start(tiny_model, whole.output, f"report-{os.getpid()}")
    assert again.finish() == 0, again.said()
    assert {**everything(whole.run_folder), "journal": (whole.run_folder / "journal.jsonl").read_bytes()} == before
    assert "engine ready" not in again.said() and "mean@4" in again.said()
