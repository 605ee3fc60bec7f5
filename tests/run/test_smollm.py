"""One true run: SmolLM2 on a question where its vote is right, with the demo's settings, and the accuracy rises."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sttrl.engine.models import model_folder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
ROOT = Path(__file__).resolve().parents[2]
ID = "3-plus-4"
METRICS = {"greedy", "mean@k", "maj@k", "pass@k"}


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run, from the command line."""
    model_folder("builtin/SmolLM2-135M-Instruct")
    output = tmp_path_factory.mktemp("smollm")
    flags = ["--config", str(ROOT / "configs" / "demo.yaml"), "--ids", ID, "--limit", "1", "--steps", "2", "--output_dir", str(output)]
    done = subprocess.run([sys.executable, str(ROOT / "main.py"), *flags, "--run_name", "run"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return output / "run"


@pytest.fixture(scope="module")
def summary(run_folder: Path) -> dict[str, Any]:
    """Its summary."""
    return dict(json.loads((run_folder / "summary.json").read_text()))


def test_accuracy_rises(summary: dict[str, Any]) -> None:
    assert summary["adapted"]["mean@k"] > summary["base"]["mean@k"] + 0.1
    assert summary["gain"]["mean@k"] == pytest.approx(summary["adapted"]["mean@k"] - summary["base"]["mean@k"])
    assert summary["base"]["k"] == summary["adapted"]["k"] == 16


def test_the_summary_says_everything(summary: dict[str, Any], run_folder: Path) -> None:
    for block in ("base", "adapted", "gain"):
        assert summary[block].keys() >= {*METRICS, "ci95"}
        low, high = summary[block]["ci95"]
        assert low <= summary[block]["mean@k"] <= high
    assert summary["vote_same_tokens"].keys() >= {"mean@k", "maj@k", "pass@k", "ci95"}
    questions = summary["questions"]
    assert questions["total"] == questions["done"] == 1 == questions["won"] + questions["lost"] + questions["unchanged"]
    for name in ("label_accuracy", "reward_accuracy", "majority_ratio"):
        assert 0 <= summary[name] <= 1
    assert summary["label_accuracy"] == 1.0, "the vote is right on it"
    assert summary["tokens"]["sampled"] > 32 and 0 < summary["tokens"]["trained"] <= summary["tokens"]["sampled"]
    seconds = summary["seconds"]
    assert seconds.keys() >= {"total", "start_up", "sample", "update", "judge"} and all(value >= 0 for value in seconds.values())
    assert seconds["start_up"] + seconds["sample"] + seconds["update"] < seconds["total"] * 1.05


def test_the_vote_with_the_same_tokens_spends_no_more(run_folder: Path) -> None:
    for line in (run_folder / "journal.jsonl").read_text().splitlines():
        record = json.loads(line)
        if record["kind"] == "question":
            poll = record["polls"]["vote_same_tokens"]
            budget = record["tokens_sampled"] + record["tokens_trained"]
            assert poll["version"] == 0 and poll["k"] >= 32 and 0.5 * budget < poll["tokens"] <= budget


def test_the_report_is_there(run_folder: Path) -> None:
    page = (run_folder / "report.html").read_text()
    assert page.lower().startswith("<!doctype html") and ID in page
    assert len(list(run_folder.glob("adapters/*/adapter_model.safetensors"))) == 1


def test_every_step_kept_sampler_and_learner_together(run_folder: Path) -> None:
    steps = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    updates = [s for s in steps if "update/loss" in s]
    assert updates and all(u["update/logprob_gap_mean_nats"] < 0.2 and u["update/logprob_correlation"] > 0.95 for u in updates)
