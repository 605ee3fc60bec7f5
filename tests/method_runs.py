"""Small runs of every method on the tiny model, and what they leave in their folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sttrl.config import RunConfig

SETTINGS: dict[str, Any] = {
    "limit": 3, "steps": 2, "n_votes": 16, "n_train": 16, "val_samples": 4, "max_response_tokens": 8, "ties": "first", "lr": 0.01,
    "dtype": "float32", "lora_rank": 8, "lora_alpha": 16, "deterministic": True, "answer_kind": "number",
}  # fmt: skip
"""Settings of a run on the tiny model."""

TTRL: dict[str, Any] = {"adaptation_method": "ttrl", "steps": None, "ties": "first", "epochs": 2, "train_batch_size": 2, "eval_every": 2}
SLOT: dict[str, Any] = {"adaptation_method": "slot", "ties": "abstain", "lr": 0.3}
MEMO: dict[str, Any] = {"adaptation_method": "memo", "ties": "abstain"}
METHODS: dict[str, dict[str, Any]] = {
    "sttrl": {},
    "ttrl": TTRL,
    "ttft": {"adaptation_method": "ttft"},
    "slot": SLOT,
    "memo_answer": MEMO,
    "memo_token": {**MEMO, "memo_form": "token", "question_views": 3},
}


def settled(model: Path, **changes: Any) -> RunConfig:
    """The configuration of a small run on a model."""
    return RunConfig.of(**{**SETTINGS, "model": str(model), "run_name": "run", **changes})


def summary_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


def steps_of(folder: Path) -> list[dict[str, Any]]:
    return [record for line in (folder / "journal.jsonl").read_text().splitlines() if (record := json.loads(line))["kind"] == "step"]
