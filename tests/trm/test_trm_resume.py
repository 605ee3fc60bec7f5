"""Interrupted trainings: killed anywhere, the same command ends with what an uninterrupted run has, bit for bit."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file
from trm_ranks import one_thread, start
from trm_runs import ROOT, assert_same, checkpoints, left_behind, metrics, rules, settings, steps, surroundings, trained

from sttrl.cli import main
from sttrl.report.recursion import read_evaluations

MODES = {
    "full": ("state_every_n_steps=3",),
    "embeddings_then_full": ("state_every_n_steps=4", "freeze_weights=true", "freeze_weights_epochs=1"),
    "lora": ("state_every_n_steps=3", "arch.lora_rank=2", "arch.lora_dropout=0.2", "ema=false"),
    "parts": (
        "state_every_n_steps=3",
        "gradient_accumulation=2",
        "arch.puzzle_emb_dropout=0.3",
        "grid_noise_prob=0.5",
        "grid_noise_fraction=0.2",
    ),
    "ensemble": ("state_every_n_steps=3", "evaluators=[{name: arc@ARC, aggregated_voting: true}]", "evaluate_before=true"),
    "embeddings": ("state_every_n_steps=1", "freeze_weights=true", "ema=false", "rollouts=2", "shuffle_identities=true"),
}
"""What resumes: modes, and settings with a state of their own."""


@pytest.fixture(autouse=True, scope="module")
def alone() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rules(tmp_path_factory.mktemp("rules"))[0]


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The uninterrupted run of a mode."""
    folder = tmp_path_factory.mktemp("whole")

    def run(mode: str) -> Path:
        return folder / mode if (folder / mode).exists() else trained(data, folder / mode, *MODES[mode])

    return run


def die(*arguments: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed(data: Path, folder: Path, place: str, call: int, *changes: str, after: bool = False) -> None:
    """Train in a child that kills itself at a call of a function, before or after it."""
    module, _, name = place.rpartition(".")

    def work() -> None:
        own = getattr(import_module(module), name)
        calls = iter(range(1, 1_000_000))

        def deadly(*arguments: Any, **named: Any) -> Any:
            is_last = next(calls) == call
            if is_last and not after:
                die()
            found = own(*arguments, **named)
            if is_last:
                die()
            return found

        setattr(import_module(module), name, deadly)
        trained(data, folder, *changes)

    child = start(work)
    child.join()
    assert child.exitcode == -signal.SIGKILL


STEP, END, SAVE, SETTLE = (
    "sttrl.trm.train.train_step",
    "sttrl.trm.train.finish_iteration",
    "sttrl.trm.train.save_state",
    "sttrl.trm.state.settle_folder",
)


@pytest.mark.parametrize("mode", MODES)
def test_a_run_killed_at_a_step_and_between_evaluation_and_state(data: Path, tmp_path: Path, mode: str, whole: Any) -> None:
    changes, folder = MODES[mode], tmp_path / "run"
    killed(data, folder, STEP, random.Random(mode).randint(5, 9), *changes)
    killed(data, folder, END, 1, *changes, after=True)
    assert_same(trained(data, folder, *changes), whole(mode))
    before = left_behind(folder)
    assert left_behind(trained(data, folder, *changes)) == before, "a finished run stays as it is"


@pytest.mark.parametrize(
    ("place", "call", "after", "changes"),
    [
        (END, 2, True, ("state_every_n_steps=3",)),
        (END, 2, False, ("state_every_n_steps=1",)),  # after the last step, whose state is on disk, and before the last evaluation
        (SAVE, 3, False, ("state_every_n_steps=3",)),
        (SETTLE, 2, False, ("state_every_n_steps=3",)),
        (SETTLE, 2, True, ("state_every_n_steps=3",)),
        (STEP, 2, False, ("state_every_n_steps=3", "evaluate_before=true")),  # there is no state yet
        ("sttrl.trm.train.write_results", 1, False, ("state_every_n_steps=10",)),
        ("sttrl.trm.run_files.write_weights", 1, False, ("state_every_n_steps=10",)),
    ],
    ids=str,
)  # fmt: skip
def test_a_run_killed_anywhere_else(
    data: Path, tmp_path: Path, place: str, call: int, after: bool, changes: tuple[str, ...], whole: Any
) -> None:
    killed(data, tmp_path / "run", place, call, *changes, after=after)
    expected = trained(data, tmp_path / "whole", *changes) if "evaluate_before=true" in changes else whole("full")
    assert_same(trained(data, tmp_path / "run", *changes), expected)


def reached_step(state: Path) -> int:
    """The step of a state; 0 while it is being replaced."""
    with contextlib.suppress(OSError):
        return int(json.loads(state.read_text())["step"])
    return 0


def test_the_program_killed_at_a_random_moment(data: Path, tmp_path: Path) -> None:
    changes = ("epochs=16", "eval_interval=4", "state_every_n_steps=7")
    folder, moment = tmp_path / "run", random.SystemRandom().randint(7, 60)
    arguments = [sys.executable, str(ROOT / "main.py"), "trm", "train", *settings(data, folder, *changes)]
    first = subprocess.Popen(arguments, env=surroundings(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    state = folder / "state" / "state.json"
    while first.poll() is None and not (state.is_file() and reached_step(state) >= moment):
        time.sleep(0.002)
    first.kill()
    assert first.wait() == -signal.SIGKILL, "it was to be killed before its end"
    again = subprocess.run(arguments, env=surroundings(), capture_output=True, text=True, timeout=120)
    assert again.returncode == 0 and "going on after step" in again.stderr
    assert_same(folder, trained(data, tmp_path / "whole", *changes))


def test_a_run_ended_by_max_steps_goes_on_with_more(data: Path, tmp_path: Path, whole: Any) -> None:
    folder = trained(data, tmp_path / "run", *MODES["full"], "max_steps=7")
    assert steps(folder) == list(range(1, 8)) and checkpoints(folder) == ["step_7.safetensors"]
    trained(data, folder, *MODES["full"])
    kept, expected = metrics(folder), metrics(whole("full"))
    assert [line for line in kept if line["step"] != 7 or "train/lr" in line] == expected
    assert [each.step for each in read_evaluations(folder)] == [7, 10, 20]
    assert left_behind(folder)["weights"]["step_20.safetensors"] == left_behind(whole("full"))["weights"]["step_20.safetensors"]


def one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit code of a command that fails, and its only line."""
    capsys.readouterr()
    code = main(arguments)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error") or "Traceback" in line]
    assert len(lines) == 1, lines
    return code, lines[0]


def test_other_settings_are_refused_and_free_ones_are_not(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = trained(data, tmp_path / "run", "max_steps=3")
    for change, shown in (
        ("lr=2e-3", "lr was 0.001 and is 0.002"),
        ("arch.L_cycles=2", "arch.L_cycles was 1 and is 2"),
        ("seed=4", "seed was 0"),
    ):
        code, line = one_line(["trm", "train", *settings(data, folder, "max_steps=3", change)], capsys)
        assert code == 2 and shown in line and "other settings" in line
    assert main(["trm", "train", *settings(data, folder, "max_steps=4", "gradient_accumulation=4", "state_every_n_steps=2")]) == 0
    assert steps(folder) == [1, 2, 3, 4]


def cut_short(folder: Path) -> None:
    file = folder / "state" / "shared.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def without_a_file(folder: Path) -> None:
    (folder / "state" / "rank_0.safetensors").unlink()


def no_json(folder: Path) -> None:
    (folder / "state" / "state.json").write_text('{"step": 3')


def without_a_fact(folder: Path) -> None:
    (folder / "state" / "state.json").write_text('{"step": 3, "ranks": 1}')


def of_two_processes(folder: Path) -> None:
    file = folder / "state" / "state.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"ranks": 2}))


def of_another_model(folder: Path) -> None:
    other = trained(
        Path(json.loads((folder / "config.json").read_text())["data_paths"][0]), folder / "other", "max_steps=3", "arch.hidden_size=32"
    )
    shutil.copy(other / "state" / "shared.safetensors", folder / "state" / "shared.safetensors")


@pytest.mark.parametrize("damage", [cut_short, without_a_file, no_json, without_a_fact, of_two_processes, of_another_model])
def test_a_damaged_state_is_one_line(data: Path, tmp_path: Path, damage: Any, capsys: pytest.CaptureFixture[str]) -> None:
    folder = trained(data, tmp_path / "run", "max_steps=3")
    damage(folder)
    code, line = one_line(["trm", "train", *settings(data, folder, "max_steps=3")], capsys)
    assert code == 2 and str(folder / "state") in line
    assert ("by 2 processes" if damage is of_two_processes else "cannot be read") in line


def test_a_full_disk_is_one_line_and_the_old_state_stays(
    data: Path, tmp_path: Path, whole: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    changes, folder = MODES["full"], tmp_path / "run"
    with monkeypatch.context() as patch:
        calls = iter(range(1000))

        def full(*arguments: Any) -> None:
            if next(calls) == 4:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            save_file(*arguments)

        patch.setattr("sttrl.trm.state.save_file", full)
        code, line = one_line(["trm", "train", *settings(data, folder, *changes)], capsys)
    assert code == 2 and "No space left" in line and reached_step(folder / "state" / "state.json") == 6
    assert_same(trained(data, folder, *changes), whole("full"))


def test_a_run_that_is_being_written_is_refused(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = trained(data, tmp_path / "run", "max_steps=1")
    with (folder / "journal.jsonl").open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        code, line = one_line(["trm", "train", *settings(data, folder, "max_steps=1")], capsys)
    assert code == 2 and "Another run is writing" in line
