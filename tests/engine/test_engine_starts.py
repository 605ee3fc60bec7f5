"""The command with models that are unlike Llama, or broken where only the engine can see it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import odd_models
import pytest
from learner_tools import OPEN, Flat, batch, forked, score

ROOT = Path(__file__).resolve().parents[2]
FLAGS = [
    *("--dataset", "arithmetic-demo", "--limit", "1", "--steps", "2", "--n_votes", "8", "--n_train", "8", "--val_samples", "2"),
    *("--max_response_tokens", "8", "--reward", "logprob", "--ties", "first", "--lr", "0.02", "--run_name", "run"),
]


def command(model: Path, output: Path) -> subprocess.CompletedProcess[str]:
    """``python main.py`` in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if name != "VERL_PLATFORM"}
    line = [sys.executable, str(ROOT / "main.py"), *FLAGS, "--model", str(model), "--output_dir", str(output)]
    return subprocess.run(line, env=environment, cwd=output, capture_output=True, text=True, timeout=500)


@pytest.mark.slow
@pytest.mark.long
def test_gpt2_is_adapted_like_any_other(tmp_path: Path) -> None:
    """Learner and sampler hold the same weights after an update too: transposed layers are merged as they must be."""
    done = command(odd_models.gpt2(tmp_path / "gpt2"), tmp_path)
    assert done.returncode == 0, done.stderr
    steps = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(steps) == 2 and all(step["update/logprob_gap_mean_nats"] < 1e-3 for step in steps)
    assert "again for every response" not in done.stderr


@pytest.mark.slow
@pytest.mark.long
def test_an_engine_that_cannot_start_says_why_in_one_line(tiny_model: Path, tmp_path: Path) -> None:
    """Sampler and learner both fail; the rest of what they say is in the log that the line names."""
    done = command(odd_models.misshapen(tiny_model, tmp_path / "misshapen"), tmp_path)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 4 and len(done.stderr.splitlines()) == 3, done.stderr
    assert last.startswith("error: The ") and " did not start: RuntimeError: " in last
    log = tmp_path / "run" / "logs" / "attempt_1" / last.removesuffix(".").rpartition(" ")[2]
    assert "Traceback" in log.read_text() and last.split("RuntimeError: ")[1].split(".")[0] in log.read_text()


def on_policy(data: Flat, logprob_GT: list[list[float]]) -> Flat:
    """The batch as if the responses had been sampled with these log-probs."""
    rollout_G = tuple(replace(r, logprob_T=tuple(row)) for r, row in zip(data.rollout_G, logprob_GT, strict=True))
    return replace(data, rollout_G=rollout_G)


@pytest.fixture
def gpt2_learner(local_learner: Any, tmp_path: Path) -> Any:
    """A learner of GPT-2."""
    return local_learner(model_folder=str(odd_models.gpt2(tmp_path / "gpt2")))


def test_gpt2_is_packed_and_trained_without_dropout(gpt2_learner: Any) -> None:
    """With dropout an update would not see the log-probs that were sampled, and its attention could not be packed."""
    assert gpt2_learner.describe()["packs"]
    data = batch()
    with forked(gpt2_learner) as name:
        stats = gpt2_learner.update(name, [on_policy(data, score(gpt2_learner, None, data)).group], OPEN)
    assert stats.logprob_gap_mean == pytest.approx(0.0, abs=1e-5) and stats.grad_norm > 0
