"""Small trainings for tests: data, settings, and what a run leaves behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from sttrl.report.recursion import read_evaluations
from sttrl.trm.config import TrainConfig, read_config
from sttrl.trm.data.arguments import BuildDemo
from sttrl.trm.data.demo import build_rules
from sttrl.trm.train import train

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    "arch.hidden_size=16", "arch.num_heads=2", "arch.L_layers=1", "arch.H_cycles=2", "arch.L_cycles=1", "arch.halt_max_steps=3",
    "arch.halt_exploration_prob=0.5", "arch.puzzle_emb_len=1", "global_batch_size=8", "epochs=4", "eval_interval=2", "lr=1e-3",
    "lr_warmup_steps=2", "ema=true", "ema_rate=0.9", "device=cpu",
)  # fmt: skip
"""Of the rules with two pairs each: 20 steps, and evaluations after 10 and 20."""


def rules(folder: Path, **sizes: int) -> tuple[Path, Path]:
    """The data sets of the 20 rules and of the 4 held-out ones, small."""
    return build_rules(BuildDemo(output_dir=folder, **{"pairs": 2, "demos": 4, "tests": 1, **sizes}))


def settings(data: Path, folder: Path, *changes: str) -> list[str]:
    return [f"data_paths={data}", f"checkpoint_path={folder}", *SMALL, *changes]


def config(data: Path, folder: Path, *changes: str) -> TrainConfig:
    return read_config(None, settings(data, folder, *changes))


def trained(data: Path, folder: Path, *changes: str) -> Path:
    return train(config(data, folder, *changes), lambda line: None)


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def steps(folder: Path) -> list[int]:
    """The steps that metrics.jsonl has, without those of evaluations."""
    return [line["step"] for line in metrics(folder) if "train/lr" in line]


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("step_*.safetensors"))


def left_behind(folder: Path) -> dict[str, Any]:
    """Everything that a run has computed, to be compared bit for bit."""
    evaluations = [
        (each.step, each.row, each.metrics, each.right, each.shares, each.scores, each.missing) for each in read_evaluations(folder)
    ]
    files = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.glob("evaluator_*/*"))}
    weights = {
        name: {key: value.tolist() for key, value in load_file(folder / name).items()}
        for name in [*checkpoints(folder), "state/shared.safetensors"]
    }
    return {"metrics": (folder / "metrics.jsonl").read_bytes(), "evaluations": evaluations, "files": files, "weights": weights}


def assert_same(found: Path, expected: Path) -> None:
    one, other = left_behind(found), left_behind(expected)
    for name, value in other.items():
        assert one[name] == value, name


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """The trained weights, raw, as the state has them."""
    return load_file(folder / "state" / "shared.safetensors")


def command(arguments: Sequence[str], cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the program in a process of its own."""
    return subprocess.run(
        [sys.executable, str(ROOT / "main.py"), *arguments],
        cwd=cwd,
        env=surroundings(**environment),
        capture_output=True,
        text=True,
        timeout=120,
    )


def surroundings(**environment: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
