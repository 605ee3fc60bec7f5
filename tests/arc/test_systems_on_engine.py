"""Every published system on the real engine with the embedded model: two small tasks, little of everything, as few engines as can be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_arc_runs import results_of
from test_systems import CONFIGS, program, reduced

from sttrl.arc.submission import read_submission
from sttrl.config import RunConfig
from sttrl.run.screen import Screen
from sttrl.sweep.runs import run_sweep

pytestmark = [pytest.mark.long, pytest.mark.slow, pytest.mark.timeout(1800)]
NAMES = tuple(file.stem for file in CONFIGS)
TASKS = ("5582e5ca", "d037b0a7")
ALIKE = {
    "lora_rank": 8, "lora_targets": ("q_proj", "v_proj"), "lora_trainable_modules": ("embed_tokens", "lm_head"), "lora_alpha": 8,
    "lora_rank_stabilised": True, "base_dtype": "same", "optimizer": "adamw", "learner_ranks": 1,
}  # fmt: skip
"""What decides how the engine is built: the same for all that adapt, so that one engine serves them."""


def on_engine(name: str, model: Path, folder: Path) -> RunConfig:
    """The configuration with less of everything, on the embedded model, and with the same adapter for all systems."""
    config = reduced(name, folder / name).changed(model=str(model), output_dir=folder, run_name=name, dataset="arc-demo", ids=TASKS)
    few = {"ttt_rows": 2, "ttt_batch": 2, "steps": 2} if config.method.adaptation_method == "ttt" else {}
    few |= {"search_samples": 4} if config.arc.search == "sample" else {}
    few |= {"search_tokens": 48} if config.arc.search in ("greedy", "sample") else {}  # an untrained reply has no end
    few |= {"steps": 1} if config.method.adaptation_method == "sttrl" else {}
    few |= {"max_response_tokens": 24} if config.method.adaptation_method != "finetune" else {}
    return config.changed(**few, **(ALIKE if config.method.adaptation_method != "none" else {}))


def test_every_system_does_two_small_tasks(tmp_path: Path) -> None:
    model = tmp_path / "model"
    program("shrink", "builtin/SmolLM2-135M-Instruct", "--codec", "cells_16", "--untie", "--out", model)
    said = list[str]()
    with Screen() as screen:
        screen.say = said.append  # type: ignore[method-assign]
        configs = [on_engine(name, model, tmp_path / "runs") for name in NAMES]
        run_sweep("systems", sorted(configs, key=lambda config: config.method.adaptation_method == "none"), None, screen)
    starts = [line for line in said if line.startswith("starting ")]
    assert len(starts) == 2, starts  # one for all that adapt, and one for the system without an adapter
    for name in NAMES:
        folder = tmp_path / "runs" / name
        results = results_of(folder)
        assert [result["status"] for result in results] == ["done", "done"], name
        config = json.loads((folder / "config.json").read_text())
        # A reply of an untrained model is no grid, so all rewards of a vote are equal: the methods that learn from votes learn nothing.
        learns = config["adaptation_method"] in ("ttt", "finetune")
        assert all(any(step["trained"] for step in result["steps"]) == learns for result in results if result["steps"]), name
        assert bool(list((folder / "adapters").glob("*/adapter_model.safetensors"))) == learns, name
        if config["adaptation_method"] == "finetune":
            assert json.loads((folder / "summary.json").read_text())["adapted"]["loss"] > 0
        else:
            assert set(TASKS) <= set(read_submission(folder / "submission.json")), name  # which has every task of the data set
