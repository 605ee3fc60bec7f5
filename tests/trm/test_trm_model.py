"""Forward passes, halting, losses and gradients of the recursive model, beside those of the original."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from trm_golden import ROOT, close, folders, generator, part, recorded_model

from sttrl.trm.losses import act_loss
from sttrl.trm.model import Carry, TinyRecursiveModel

CASES = folders("model")
case_test = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def check_step(found: tuple[Carry, Any], io: dict[str, torch.Tensor], prefix: str, recorded: dict[str, Any]) -> torch.Tensor:
    """Compare one supervision step with the record; its loss."""
    carry, outputs = found
    for name, value in part(io, prefix).items():
        if name.startswith("carry.current."):
            assert torch.equal(carry.current[name.removeprefix("carry.current.")], value), name
        elif name in ("carry.steps", "carry.halted"):
            assert torch.equal(getattr(carry, name.removeprefix("carry.")), value), name
        elif name in ("carry.z_H", "carry.z_L"):
            close(getattr(carry, name.removeprefix("carry.")), value)
        elif name.endswith("logits"):
            close(getattr(outputs, name), value)
    loss, metrics, preds = act_loss(outputs, carry)
    if prefix + "preds" in io:
        assert torch.equal(preds, io[prefix + "preds"])
    assert float(loss.detach()) == pytest.approx(recorded["loss"], rel=1e-5)
    assert {name: float(value) for name, value in metrics.items()} == pytest.approx(recorded["metrics"], rel=1e-5, abs=1e-6)
    assert bool(carry.halted.all()) == recorded["all_finish"]
    return loss


def batch_at(io: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return part(io, prefix + "batch.")


@case_test
def test_every_step_of_an_evaluation_is_the_original_s(case: Path) -> None:
    model, io = recorded_model(case).eval(), load_file(case / "io.safetensors")
    batch = batch_at(io, "eval.")
    carry = model.initial_carry(batch)
    with torch.no_grad():
        for recorded in json.loads((case / "results.json").read_text())["eval"]:
            carry, outputs = model(carry, batch)
            check_step((carry, outputs), io, f"eval.step{recorded['step']}.", recorded)
    assert bool(carry.halted.all())


def check_gradients(model: TinyRecursiveModel, expected: dict[str, torch.Tensor]) -> None:
    for name, parameter in model.trunk_parameters():
        assert parameter.grad is not None, name
        close(parameter.grad, expected.pop(ROOT + name), 1e-4)
    if model.table is not None:
        close(model.table.pending[-1][1].grad, expected.pop("puzzle_emb.local_weights"), 1e-4)
    assert not expected


@case_test
def test_steps_of_training_and_their_gradients_are_the_original_s(case: Path) -> None:
    model, io = recorded_model(case).train(), load_file(case / "io.safetensors")
    carry = model.initial_carry(batch_at(io, "train.step1."))
    for recorded in json.loads((case / "results.json").read_text())["train"]:
        prefix = f"train.step{recorded['step']}."
        batch = batch_at(io, prefix)
        model.zero_grad()
        if model.table is not None:
            model.table.clear()
        carry, outputs = model(carry, batch)
        loss = check_step((carry, outputs), io, prefix, recorded)
        (loss / len(batch["inputs"])).backward()
        if gradients := part(io, prefix + "grad."):
            check_gradients(model, dict(gradients))


@case_test
def test_exploration_keeps_slots_from_halting_as_the_original_does(case: Path) -> None:
    io = load_file(case / "io.safetensors")
    model = recorded_model(case, halt_exploration_prob=0.9).train()
    carry = model.initial_carry(batch_at(io, "explore.step1."))
    steps = sorted({int(name.split(".")[1].removeprefix("step")) for name in io if name.startswith("explore.")})
    assert steps
    for step in steps:
        prefix = f"explore.step{step}."
        carry, outputs = model(carry, batch_at(io, prefix), generator=generator(7000 + step - 1))
        close(outputs.logits, io[prefix + "logits"])
        assert torch.equal(carry.halted, io[prefix + "carry.halted"])
        assert torch.equal(carry.steps, io[prefix + "carry.steps"])
        for name, value in part(io, prefix + "carry.current.").items():
            assert torch.equal(carry.current[name], value)
