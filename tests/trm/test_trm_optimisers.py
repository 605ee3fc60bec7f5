"""Optimisers, the learning rate and the average of weights, beside the original's; states that are saved and taken up again."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from trm_golden import close, generator, part, read, tensors

from sttrl.errors import DataError, UsageError
from sttrl.trm.ema import EMA
from sttrl.trm.optimisers import OPTIMISERS, AdamATan2, SignSGD, learning_rate
from sttrl.trm.puzzle_table import PuzzleTable

RECORDED = tensors("optim", "optim.safetensors")
FACTS = read("optim", "optim.json")
FORMS = {"adam_atan2": {}, "adam_atan2_pytorch": {}, "adam_atan2_pytorch_a1": {"variant": "adam_atan2_pytorch", "scale": 1.0}}


def named(values: dict[str, torch.Tensor]) -> list[tuple[str, nn.Parameter]]:
    return [(name, nn.Parameter(value.clone())) for name, value in sorted(values.items())]


@pytest.mark.parametrize("form", sorted(name for name in {key.split(".")[1] for key in RECORDED} if name.startswith("adam_atan2")))
def test_adam_atan2_steps_as_its_published_form(form: str) -> None:
    facts = FACTS["atan2"]
    parameters = named(part(RECORDED, "atan2.before."))
    settings: dict[str, Any] = {"variant": form, **FORMS[form]}
    optimiser = AdamATan2(parameters, betas=tuple(facts["betas"]), weight_decay=facts["weight_decay"], **settings)
    for step, lr in enumerate(facts["lrs"], start=1):
        gradients = part(RECORDED, f"atan2.step{step}.grad.")
        for name, parameter in parameters:
            parameter.grad = gradients.get(name)
        optimiser.step(lr)
        for name, parameter in parameters:
            close(parameter.detach(), RECORDED[f"atan2.{form}.step{step}.after.{name}"], 1e-6)


def test_sign_sgd_sums_the_gradients_of_a_row_and_decays_rows_without() -> None:
    facts = FACTS["sign"]
    before = RECORDED["sign.before.weights"]
    table = PuzzleTable(*before.shape)
    table.weights.copy_(before)
    optimiser = SignSGD(table, weight_decay=facts["weight_decay"])
    for step, lr in enumerate(facts["lrs"], start=1):
        table(RECORDED[f"sign.step{step}.ids"])
        table.pending[-1][1].grad = RECORDED[f"sign.step{step}.grad"].clone()
        optimiser.step(lr)
        optimiser.zero_grad()
        close(table.weights, RECORDED[f"sign.step{step}.after.weights"], 1e-6)


def test_rows_of_several_passes_are_one_step() -> None:
    """Gradient accumulation: two halves of a batch, one step, are the whole batch."""
    ids, weight = torch.tensor([0, 1, 1, 3, 1, 0]), torch.randn(6, 4, generator=generator(1))
    tables = [PuzzleTable(5, 4), PuzzleTable(5, 4)]
    for table, pieces in zip(tables, ([slice(0, 6)], [slice(0, 2), slice(2, 6)]), strict=True):
        table.weights.copy_(torch.randn(5, 4, generator=generator(0)))
        for piece in pieces:
            (table(ids[piece]) * weight[piece]).sum().backward()
        SignSGD(table).step(0.1)
    assert torch.equal(tables[0].weights, tables[1].weights)


def test_a_table_in_evaluation_hands_out_nothing_to_learn() -> None:
    table = PuzzleTable(3, 2)
    table.eval()(torch.tensor([1]))
    with torch.no_grad():
        table.train()(torch.tensor([1]))
    assert not table.pending
    SignSGD(table).step(0.1)
    assert not table.weights.any()


@pytest.mark.parametrize("case", read("lr_schedule.json"), ids=lambda case: f"{case['base_lr']}-{case['total_steps']}")
def test_the_learning_rate_is_the_original_s(case: dict[str, Any]) -> None:
    for step, lr in zip(case["steps"], case["lr"], strict=True):
        found = learning_rate(
            step, base=case["base_lr"], warmup_steps=case["warmup_steps"], total_steps=case["total_steps"], min_ratio=case["lr_min_ratio"]
        )
        assert found == pytest.approx(lr, rel=1e-9)


class Recorded(nn.Module):
    """The module whose average was recorded: a parameter, one that does not train, and a buffer."""

    def __init__(self, state: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.a = nn.Parameter(state["a"].clone())
        self.frozen = nn.Parameter(state["frozen"].clone(), requires_grad=False)
        self.register_buffer("buf", state["buf"].clone())


def test_the_average_is_of_trainable_parameters_only() -> None:
    facts = FACTS["ema"]
    model = Recorded(part(RECORDED, "ema.step0.model."))
    ema = EMA(model, facts["rate"])
    assert sorted(ema.shadow) == facts["shadow_keys"]
    steps = sorted({int(name.split(".")[1].removeprefix("step")) for name in RECORDED if ".shadow." in name and name.startswith("ema.")})
    for step in steps:
        model.load_state_dict(part(RECORDED, f"ema.step{step}.model."))
        ema.update(model)
        for name, value in part(RECORDED, f"ema.step{step}.shadow.").items():
            close(ema.shadow[name], value, 1e-6)
    with ema.applied(model) as averaged:
        for name, value in averaged.state_dict().items():
            close(value, RECORDED[f"ema.final.copy.{name}"], 1e-6)


def test_averages_in_a_block_are_given_back() -> None:
    model = Recorded(part(RECORDED, "ema.step0.model."))
    ema = EMA(model, 0.5)
    with torch.no_grad():
        model.a.add_(1)
    own, average = model.a.detach().clone(), ema.shadow["a"].clone()
    with ema.applied(model) as averaged:
        assert torch.equal(averaged.a, average)
    assert torch.equal(model.a, own)
    assert torch.equal(ema.shadow["a"], average)
    with pytest.raises(DataError, match="averages"):
        ema.load_state_dict({"b": own})


@pytest.mark.parametrize("name", OPTIMISERS)
def test_an_optimiser_goes_on_from_its_state(name: str) -> None:
    gradients = [[torch.randn(shape, generator=generator(seed)) for shape in ((3, 2), (4,))] for seed in range(4)]

    def run(resume_at: int | None) -> list[torch.Tensor]:
        parameters = named({"a": torch.ones(3, 2), "b": torch.ones(4)})
        optimiser = OPTIMISERS[name](parameters, betas=(0.9, 0.95), weight_decay=0.1)
        for step, (first, second) in enumerate(gradients):
            if step == resume_at:
                state = {key: value.clone() for key, value in optimiser.state_dict().items()}
                optimiser = OPTIMISERS[name](parameters, betas=(0.9, 0.95), weight_decay=0.1)
                optimiser.load_state_dict(state)
            parameters[0][1].grad, parameters[1][1].grad = first, second if step != 1 else None
            optimiser.step(1e-2)
            optimiser.zero_grad()
        return [parameter.detach() for _, parameter in parameters]

    for found, expected in zip(run(resume_at=2), run(resume_at=None), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_the_state_of_another_model_is_refused(name: str) -> None:
    optimiser = OPTIMISERS[name](named({"a": torch.ones(3)}), betas=(0.9, 0.95), weight_decay=0.1)
    for state in ({"b.step": torch.tensor(1)}, {"a.exp_avg": torch.ones(4)}, {"a.step": torch.tensor(1)}):
        with pytest.raises(DataError):
            optimiser.load_state_dict(state)


def test_an_unknown_form_of_adam_atan2_is_refused() -> None:
    with pytest.raises(UsageError, match="adam_atan3"):
        AdamATan2(named({"a": torch.ones(1)}), variant="adam_atan3")
