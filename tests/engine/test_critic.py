"""The critic: it begins at zero, learns what came, and its gradient is that of plain autograd."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from live_engine import PROMPT_T
from test_updates import OPEN, SPEC, gradients, group
from transformers import AutoModelForCausalLM

from sttrl.types import TrainGroup


def with_returns(data: TrainGroup, value: float) -> TrainGroup:
    """Values of 0 and the same return everywhere."""
    row_G = [replace(r, value_T=(0.0,) * len(r.token_T), return_T=(value,) * len(r.token_T)) for r in data.row_G]
    return replace(data, row_G=tuple(row_G))


def test_a_critic_begins_at_zero_and_learns_what_came(critic: Any) -> None:
    data = with_returns(group(), 0.4)
    assert critic.describe()["packs"]
    kind = "lora" if critic.settings.adapter else "full"
    for name in ("one", "other"):
        critic.open_fork(name, replace(SPEC, kind=kind, lr={"main": 0.01}))
    assert all(v == 0.0 for row in critic.values("one", [data])[0] for v in row)
    losses = [critic.update("one", [data], OPEN) for _ in range(8)]
    after = [v for row in critic.values("one", [data])[0] for v in row]
    assert losses[0] == pytest.approx(0.5 * 0.4**2, rel=1e-4) and losses[-1] < losses[0] / 2
    assert np.mean(np.abs(np.array(after) - 0.4)) < 0.3
    assert all(v == 0.0 for row in critic.values("other", [data])[0] for v in row), "forks are apart"
    for name in ("one", "other"):
        critic.close_fork(name)


def test_a_critics_gradient_is_that_of_plain_autograd(critic: Any, tiny_model: Path) -> None:
    """The value before token t is the head on the state of token t - 1."""
    data = with_returns(group(), 0.4)
    kind = "lora" if critic.settings.adapter else "full"
    critic.open_fork("one", replace(SPEC, kind=kind, lr={"main": 0.01}))
    found = gradients(critic, "one", [data], OPEN)
    critic.close_fork("one")
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).model
    states = [base(torch.tensor([[*PROMPT_T, *r.token_T]])).last_hidden_state[0, len(PROMPT_T) - 1 : -1] for r in data.row_G]
    expected = -0.4 * torch.cat(states).detach().mean(0)  # d/dw of 1/2 (w h - 0.4)^2 at w = 0
    (head,) = [g for n, g in found.items() if "score" in n and n.endswith("weight")]
    assert float((head[0] - expected).norm()) <= 1e-3 * float(expected.norm())


def test_a_critics_packed_values_are_the_spelled_out_ones(critic: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    data = with_returns(group(), 0.4)
    critic.open_fork("one", replace(SPEC, kind="lora" if critic.settings.adapter else "full", lr={"main": 0.01}))
    for _ in range(3):
        critic.update("one", [data], OPEN)
    packed = critic.values("one", [data])[0]
    monkeypatch.setattr(critic.engine, "packs", False)
    for a, b in zip(packed, critic.values("one", [data])[0], strict=True):
        assert a == pytest.approx(b, abs=1e-4)
    critic.close_fork("one")
