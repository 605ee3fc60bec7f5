"""What Trelis' fork logs of a training step besides the losses: norms of gradients, and how alike the rows of a batch are."""

from __future__ import annotations

import torch
from torch import Tensor

from sttrl.trm.puzzle_table import PuzzleTable
from sttrl.trm.recursion import TinyRecursiveModel

NO_TASK = -1
"""The task of a padding row."""
SHORTEST = 1e-6


@torch.no_grad()
def step_diagnostics(
    model: TinyRecursiveModel, puzzle_identifiers: Tensor, task_identifiers: Tensor | None = None, *, blank: int = 0
) -> dict[str, Tensor]:
    """``grad_embed_norm``, ``grad_trunk_norm``, ``embedding_cosine``, ``embedding_cosine_within_task``, to be logged as they are.

    To be called after the backward pass and before the optimisers. Identifiers (B,) are those of the batch that was given; a cosine
    is the mean over pairs of different rows, 0 where there is no pair; without ``task_identifiers`` the last one is 0.
    """
    trunk = [parameter.grad for _, parameter in model.trunk_parameters() if parameter.grad is not None]
    rows = [] if model.table is None else [rows.grad for _, rows in model.table.pending if rows.grad is not None]
    zero = torch.zeros((), device=puzzle_identifiers.device)
    found = {"grad_embed_norm": _norm(rows, zero), "grad_trunk_norm": _norm(trunk, zero)}
    found |= {"embedding_cosine": zero, "embedding_cosine_within_task": zero}
    if model.table is None:
        return found
    ids = puzzle_identifiers[puzzle_identifiers != blank]
    found["embedding_cosine"] = _cosine(model.table, ids, torch.zeros_like(ids))
    if task_identifiers is not None:
        task_of = task_identifiers[puzzle_identifiers != blank]
        found["embedding_cosine_within_task"] = _cosine(model.table, ids[task_of != NO_TASK], task_of[task_of != NO_TASK])
    return found


def _norm(gradients: list[Tensor], zero: Tensor) -> Tensor:
    return torch.stack([gradient.float().square().sum() for gradient in gradients]).sum().sqrt() if gradients else zero


def _cosine(table: PuzzleTable, ids: Tensor, groups: Tensor) -> Tensor:
    """Mean over groups of the mean cosine of the pairs of different rows in a group; 0 where no group has a pair."""
    group, unique = torch.stack((groups.long(), ids.long())).unique(dim=1)
    names, number = group.unique(return_inverse=True)
    rows = table.weights[unique]
    rows = rows / rows.norm(dim=1, keepdim=True).clamp_min(SHORTEST)
    sums = rows.new_zeros(len(names), rows.shape[1]).index_add_(0, number, rows)
    own = rows.new_zeros(len(names)).index_add_(0, number, rows.square().sum(1))
    count = number.bincount(minlength=len(names))
    pairs = count * (count - 1)
    means = (sums.square().sum(1) - own) / pairs.clamp_min(1)
    return torch.where(pairs > 0, means, 0).sum() / (pairs > 0).sum().clamp_min(1)
