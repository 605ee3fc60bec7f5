"""The table of puzzle embeddings: a row for each puzzle and variant, of which a training step touches only those of its batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PuzzleTable(nn.Module):
    """A large table that is no parameter of the model. A training step copies the rows of its batch, and the copies get the gradient.

    ``weights`` is (N, D), float32, zeros at the start; it is neither averaged by EMA nor seen by the trunk's optimiser.
    `optimisers.SignSGD` reads ``pending``, one entry for each forward pass since its last step, and writes the rows back.
    """

    weights: Tensor

    def __init__(self, rows: int, size: int, *, device: torch.device | str | None = None) -> None:
        super().__init__()
        self.register_buffer("weights", torch.zeros(rows, size, device=device))
        self.pending: list[tuple[Tensor, Tensor]] = []
        """(ids (B,), rows (B, D) with their gradient) of the forward passes since the last `clear`."""

    def forward(self, ids: Tensor) -> Tensor:
        """(B,) -> (B, D)."""
        rows = self.weights.index_select(0, ids)
        if self.training and torch.is_grad_enabled():
            rows.requires_grad_()
            self.pending.append((ids.detach(), rows))
        return rows

    def clear(self) -> None:
        """Forget the rows of earlier passes and their gradients."""
        self.pending.clear()

    def replace(self, weights: Tensor) -> None:
        """Take another table, which may have another number of rows."""
        self.clear()
        self.weights = weights.to(self.weights, copy=True)
