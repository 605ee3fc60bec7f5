"""Two processes over gloo train and evaluate as one does with the same global batch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file
from trm_golden import close
from trm_ranks import free_port, in_ranks, one_thread
from trm_runs import ROOT, assert_same, checkpoints, metrics, rules, settings, steps, surroundings, trained

from sttrl.cli import main
from sttrl.report.recursion import read_evaluations


@pytest.fixture(autouse=True, scope="module")
def alone() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rules(tmp_path_factory.mktemp("rules"))[0]


def assert_alike(found: Path, expected: Path) -> None:
    """The same losses, weights, evaluations and votes, up to the order in which floats are added."""
    ours, theirs = metrics(found), metrics(expected)
    assert len(ours) == len(theirs)
    for line, other in zip(ours, theirs, strict=True):
        assert line == pytest.approx(other, rel=1e-4, abs=1e-5)
    assert checkpoints(found) == checkpoints(expected)
    for name in checkpoints(found):
        state = load_file(found / name)
        for key, value in load_file(expected / name).items():
            close(state[key], value, 1e-4)
    for one, other in zip(read_evaluations(found), read_evaluations(expected), strict=True):
        assert (one.step, one.row, one.right, one.shares, one.scores, one.missing) == (
            other.step, other.row, other.right, other.shares, other.scores, other.missing,
        )  # fmt: skip
    votes = sorted(path.relative_to(expected) for path in expected.glob("evaluator_*/submission.json"))
    assert votes
    for path in votes:
        assert (found / path).read_text() == (expected / path).read_text()


MODES = {
    "full": (),
    "uneven": ("eval_global_batch_size=6", "gradient_accumulation=2", "shuffle_identities=true"),
    "lora": ("arch.lora_rank=2", "ema=false"),
    "embeddings_then_full": ("freeze_weights=true", "freeze_weights_epochs=1"),
    "ensemble": ("evaluators=[{name: arc@ARC, aggregated_voting: true}]", "evaluate_before=true"),
    "ptrm": ("rollouts=2", "max_steps=4"),
}


@pytest.mark.parametrize("mode", MODES)
def test_two_processes_do_what_one_does(data: Path, tmp_path: Path, mode: str) -> None:
    assert in_ranks(2, lambda: trained(data, tmp_path / "two", *MODES[mode])) == [0, 0]
    assert_alike(tmp_path / "two", trained(data, tmp_path / "one", *MODES[mode]))


def test_two_processes_go_on_as_if_they_had_never_stopped(data: Path, tmp_path: Path) -> None:
    changes = ("evaluators=[{name: arc@ARC, aggregated_voting: true}]",)
    assert in_ranks(2, lambda: trained(data, tmp_path / "whole", *changes)) == [0, 0]
    assert in_ranks(2, lambda: trained(data, tmp_path / "parts", *changes, "max_steps=10")) == [0, 0]
    assert in_ranks(2, lambda: trained(data, tmp_path / "parts", *changes)) == [0, 0]
    assert_same(tmp_path / "parts", tmp_path / "whole")


def test_what_fails_in_two_processes_is_said(data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["trm", "train", *settings(data, tmp_path / "run", "lr=1e30", "lr_warmup_steps=0")]
    assert in_ranks(2, lambda: main(arguments)) == [5, 5]
    assert "not finite" in capfd.readouterr().err
    odd = ["trm", "train", *settings(data, tmp_path / "odd", "global_batch_size=9")]
    assert in_ranks(2, lambda: main(odd)) == [2, 2]
    trained(data, tmp_path / "begun", "max_steps=1")
    assert in_ranks(2, lambda: main(["trm", "train", *settings(data, tmp_path / "begun", "lr=1e-2")])) == [2, 2]
    shown = capfd.readouterr().err
    assert "global_batch_size is 9, and 2 processes" in shown and "lr was 0.001" in shown and "Traceback" not in shown


@pytest.mark.slow
def test_torchrun_starts_a_training(data: Path, tmp_path: Path) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(free_port()), "-m", "sttrl.trm"]
    done = subprocess.run(
        [*launch, "train", *settings(data, tmp_path / "two", "max_steps=6")],
        cwd=ROOT, env=surroundings(), capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("run folder:") == 1 and steps(tmp_path / "two") == [1, 2, 3, 4, 5, 6]
    assert_alike(tmp_path / "two", trained(data, tmp_path / "one", "max_steps=6"))
