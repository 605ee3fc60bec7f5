"""``finetune`` on two learner ranks (FSDP2 over gloo) computes what one rank computes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from test_finetune import generated
from test_systems import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(900)]


def program(*words: object) -> None:
    done = subprocess.run([sys.executable, str(ROOT / "main.py"), *map(str, words)], capture_output=True, text=True, cwd=ROOT, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def small(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with room for puzzles, cut to the tokens of grids."""
    folder = tmp_path_factory.mktemp("ranks")
    base = folder / "base"
    base.mkdir()
    for file in tiny_model.iterdir():
        (base / file.name).write_bytes(file.read_bytes())
    settings = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**settings, "max_position_embeddings": 4096}))
    program("shrink", base, "--codec", "cells_16", "--untie", "--out", folder / "small")
    return folder / "small"


def steps_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("flags", [("--lora_rank", 8, "--lora_trainable_modules", "embed_tokens", "lm_head"), ("--lora_rank", 0)])
def test_two_ranks_fine_tune_as_one_does(flags: tuple[object, ...], small: Path, tmp_path: Path) -> None:
    common = ("finetune", "--model", small, "--dataset", "arc-demo", "--ids", "6150a2bd", "--output_dir", tmp_path, "--device", "cpu")
    train = ("--train_dataset", f"{generated(tmp_path / 're_arc')}*5", "--pairs_per_task", 3, "--ttt_batch", 3, "--eval_every", 0)
    for ranks in (1, 2):
        program(*common, *train, "--lr", 1e-3, "--dtype", "float32", "--learner_ranks", ranks, "--run_name", f"ranks{ranks}", *flags)
    one, two = (tmp_path / f"ranks{ranks}" for ranks in (1, 2))
    assert len(steps_of(one)) == len(steps_of(two)) == 4, "10 rows, three in a step: a rank has one row, the other two or none"
    for before, after in zip(steps_of(one), steps_of(two), strict=True):
        for name in ("update/loss", "update/grad_norm", "update/lr"):
            assert after[name] == pytest.approx(before[name], rel=5e-3, abs=1e-6), name
    losses = [json.loads((folder / "summary.json").read_text())["adapted"]["loss"] for folder in (one, two)]
    assert losses[1] == pytest.approx(losses[0], rel=5e-3)
    saved = [load_file(next((folder / "adapters" / "all").glob("*.safetensors"))) for folder in (one, two)]
    assert saved[0].keys() == saved[1].keys()
    for name, tensor in saved[0].items():
        assert saved[1][name].shape == tensor.shape
        assert float((saved[1][name] - tensor).float().norm()) <= 0.02 * float(tensor.float().norm()) + 1e-6, name
