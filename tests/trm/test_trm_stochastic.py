"""PTRM: one run without noise is the evaluation, several are chosen from by the halting head."""

from __future__ import annotations

import pytest
import torch
from trm_small import seeded, small_batch, small_model

from sttrl.errors import UsageError
from sttrl.trm.losses import act_loss
from sttrl.trm.stochastic import rollouts


@pytest.mark.parametrize("mlp", [False, True])
def test_one_run_without_noise_is_the_plain_evaluation(mlp: bool) -> None:
    model, batch = small_model(mlp_t=mlp).eval(), small_batch()
    carry = model.initial_carry(batch)
    with torch.no_grad():
        for _ in range(3):
            carry, outputs = model(carry, batch)
    found = rollouts(model, batch, rollouts=1, noise=0.0, generator=seeded())
    assert torch.equal(found.outputs.logits, outputs.logits)
    assert torch.equal(found.carry.steps, carry.steps)
    assert {name: float(value) for name, value in act_loss(found.outputs, found.carry)[1].items()} == {
        name: float(value) for name, value in act_loss(outputs, carry)[1].items()
    }


def test_the_surest_of_several_runs_is_kept() -> None:
    model, batch = small_model().eval(), small_batch()
    found = rollouts(model, batch, rollouts=5, noise=1.0, generator=seeded(3))
    assert found.q_halt_logits.shape == (5, 4)
    assert torch.equal(found.chosen, found.q_halt_logits.argmax(0))
    assert torch.equal(found.outputs.q_halt_logits, found.q_halt_logits.max(0).values)
    assert len(found.chosen.unique()) > 1
    again = rollouts(model, batch, rollouts=5, noise=1.0, generator=seeded(3))
    assert torch.equal(again.outputs.logits, found.outputs.logits)


def test_steps_can_be_chosen_and_no_rollout_or_a_model_in_training_is_refused() -> None:
    model, batch = small_model().eval(), small_batch()
    assert rollouts(model, batch, rollouts=1, noise=0.1, generator=seeded(), steps=2).carry.steps.tolist() == [2] * 4
    with pytest.raises(UsageError, match="at least one"):
        rollouts(model, batch, rollouts=0, noise=0.1, generator=seeded())
    with pytest.raises(ValueError, match="eval"):
        rollouts(model.train(), batch, rollouts=1, noise=0.1, generator=seeded())
