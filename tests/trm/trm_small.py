"""Small models and batches for tests that need no record."""

from __future__ import annotations

from typing import Any

import torch

from sttrl.trm.arch import ArchConfig, LossConfig, Sizes
from sttrl.trm.losses import act_loss
from sttrl.trm.model import Carry, Outputs, TinyRecursiveModel, build_model

SETTINGS: dict[str, Any] = {
    "hidden_size": 16,
    "num_heads": 2,
    "L_layers": 1,
    "H_cycles": 2,
    "L_cycles": 2,
    "puzzle_emb_len": 1,
    "halt_max_steps": 3,
    "halt_exploration_prob": 0.0,
    "forward_dtype": "float32",
}
SIZES = Sizes(vocab_size=6, seq_len=5, num_puzzle_identifiers=4)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small_model(seed: int = 0, **changes: Any) -> TinyRecursiveModel:
    """A small model whose heads and rows say something: all values are drawn."""
    loss = LossConfig(loss_type=changes.pop("loss_type", "stablemax_cross_entropy"))
    model = build_model(ArchConfig(**{**SETTINGS, **changes, "loss": loss}), SIZES, generator=seeded(seed))
    with torch.no_grad():
        model.q_head.weight.copy_(torch.randn(model.q_head.weight.shape, generator=seeded(seed + 1)))
        model.q_head.bias.zero_()
        if model.table is not None:
            model.table.weights.copy_(torch.randn(model.table.weights.shape, generator=seeded(seed + 2)))
    return model


def small_batch(rows: int = 4, seed: int = 0) -> dict[str, torch.Tensor]:
    draw = seeded(seed)
    return {
        "inputs": torch.randint(0, 6, (rows, 5), generator=draw, dtype=torch.int32),
        "labels": torch.randint(0, 6, (rows, 5), generator=draw, dtype=torch.int32),
        "puzzle_identifiers": torch.randint(0, 4, (rows,), generator=draw, dtype=torch.int32),
    }


def train_step(model: TinyRecursiveModel, batch: dict[str, torch.Tensor], carry: Carry | None = None) -> tuple[Carry, Outputs, float]:
    """One supervision step with its gradient."""
    carry, outputs = model(carry or model.initial_carry(batch), batch, generator=seeded(1))
    loss, _, _ = act_loss(outputs, carry, model.arch.loss.loss_type)
    loss.backward()
    return carry, outputs, float(loss.detach())
