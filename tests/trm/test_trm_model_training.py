"""Whole optimiser steps beside those of the original and of Trelis' fork: full, embeddings only, embeddings then full, LoRA."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from trm_golden import ROOT, arch_of, close, folders, generator, part, sizes_of

from sttrl.trm.diagnostics import step_diagnostics
from sttrl.trm.ema import EMA
from sttrl.trm.losses import act_loss, logged_train
from sttrl.trm.model import TinyRecursiveModel, build_model
from sttrl.trm.optimisers import OPTIMISERS, SignSGD, learning_rate


class Run:
    """The plainest training run: what the original does in one batch."""

    def __init__(self, case: Path) -> None:
        recorded = json.loads((case / "config.json").read_text())
        self.config, self.results = recorded["config"], json.loads((case / "results.json").read_text())
        self.model: TinyRecursiveModel = build_model(arch_of(self.config["arch"]), sizes_of(recorded["metadata"]), generator=generator())
        self.model.load_state_dict(part(load_file(case / "init.safetensors"), ROOT))
        self.model.train()
        assert self.model.table is not None
        self.table = SignSGD(self.model.table, weight_decay=self.config["puzzle_emb_weight_decay"])
        trunk = {"AdamATan2": "adam_atan2", "AdamAtan2": "adam_atan2_pytorch"}
        names = [trunk[name] for name in self.results["optimizers"] if name in trunk]
        betas = (self.config["beta1"], self.config["beta2"])
        trainable = [(name, value) for name, value in self.model.trunk_parameters() if value.requires_grad]
        assert [ROOT + name for name, _ in trainable] == self.results["trainable"]
        self.trunk = OPTIMISERS[names[0]](trainable, betas=betas, weight_decay=self.config["weight_decay"]) if names else None
        self.ema = EMA(self.model, self.config["ema_rate"]) if self.config["ema"] else None
        self.carry: Any = None

    def lr(self, base: float, step: int) -> float:
        total, warm_up = self.results["total_steps"], self.config["lr_warmup_steps"]
        return learning_rate(step, base=base, warmup_steps=warm_up, total_steps=total, min_ratio=self.config["lr_min_ratio"])

    def step(self, number: int, batch: dict[str, torch.Tensor]) -> dict[str, float]:
        self.carry = self.carry or self.model.initial_carry(batch)
        self.carry, outputs = self.model(self.carry, batch)
        loss, metrics, _ = act_loss(outputs, self.carry, self.config["arch"]["loss"]["loss_type"])
        (loss / self.config["global_batch_size"]).backward()
        logged = logged_train(metrics, self.config["global_batch_size"])
        for name, value in step_diagnostics(self.model, batch["puzzle_identifiers"], batch.get("task_identifiers")).items():
            logged[f"train/{name}"] = float(value)
        lr = self.lr(self.config["puzzle_emb_lr"], number)
        self.table.step(lr)
        if self.trunk and number > (self.results["freeze_trunk_until_step"] or 0):
            lr = self.lr(self.config["lr"], number)
            self.trunk.step(lr)
        self.table.zero_grad()
        self.model.zero_grad()
        if self.ema:
            self.ema.update(self.model)
        return logged | {"train/lr": lr}


@pytest.mark.parametrize("case", folders("train"), ids=lambda case: case.name)
def test_optimiser_steps_are_the_original_s(case: Path) -> None:
    run, recorded = Run(case), load_file(case / "steps.safetensors")
    last = len(run.results["steps"])
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    for number, expected in enumerate(run.results["steps"], start=1):
        found = run.step(number, part(recorded, f"step{number}.batch."))
        known = {name: value for name, value in expected.items() if name.startswith("train/")}
        assert {name: found[name] for name in known} == pytest.approx(known, rel=1e-4, abs=1e-5)
        assert run.carry.halted.tolist() == expected["_halted"]
        assert run.carry.steps.tolist() == expected["_steps"]
        if number in (1, last):
            state = run.model.state_dict()
            for name, value in part(recorded, f"step{number}.after.{ROOT}").items():
                close(state[name], value, 1e-4)
            for name in run.results[f"unchanged_after_step{number}"]:
                assert torch.equal(state[name.removeprefix(ROOT)], before[name.removeprefix(ROOT)])
    for name, value in part(recorded, f"final.ema.{ROOT}").items():
        assert run.ema is not None
        close(run.ema.shadow[name], value, 1e-4)
