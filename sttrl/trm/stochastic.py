"""PTRM (arXiv 2605.19943): several noisy runs of a trained model on one batch, of which the halting head chooses. Inference only."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sttrl.errors import UsageError
from sttrl.trm.recursion import Batch, Carry, Outputs, TinyRecursiveModel


@dataclass(frozen=True)
class Rollouts:
    """The best of K runs for each sequence, and how sure the halting head was of every run.

    ``carry`` and ``outputs`` are what one evaluation of the batch ends with, so that losses and votes take them as they are.
    ``chosen`` (B,): which run; ``q_halt_logits`` (K, B).
    """

    carry: Carry
    outputs: Outputs
    chosen: Tensor
    q_halt_logits: Tensor


@torch.no_grad()
def rollouts(
    model: TinyRecursiveModel,
    batch: Batch,
    *,
    rollouts: int,
    noise: float,
    generator: torch.Generator,
    steps: int | None = None,
    share: tuple[int, int] = (0, 1),
) -> Rollouts:
    """Run all supervision steps ``rollouts`` times, each with noise of its own on the answer before every step; keep the surest.

    Latents have a mean square of 1, which is the scale of ``noise``, a standard deviation. The runs go one after another, so that
    memory is that of one evaluation. One run without noise is the plain evaluation. ``steps``: None, the evaluation's own number.
    ``share``: which of how many equal parts of a larger batch this is; noise is drawn for the whole of it, so that it is the same.
    """
    if rollouts < 1 or noise < 0:
        raise UsageError(f"PTRM with {rollouts} rollouts and noise {noise}.", "Give at least one rollout, and noise of 0 or more.")
    if model.training:
        raise ValueError("PTRM is for inference: call model.eval() first")
    steps = steps or model.arch.halt_max_steps_eval or model.arch.halt_max_steps
    start = model.refill(model.initial_carry(batch), batch)
    x = model.embed(start.current)
    best: tuple[Tensor, ...] = ()
    chosen = torch.zeros(len(start.steps), dtype=torch.int64, device=x.device)
    all_q = []
    for run in range(rollouts):
        z_H, z_L = start.z_H, start.z_L
        for _ in range(steps):
            z_H, z_L = model.think(z_H + _noise(z_H, noise, generator, share), z_L, x)
        found = model.read(z_H)
        now = (found.logits, found.q_halt_logits, found.q_continue_logits, z_H, z_L)
        all_q.append(found.q_halt_logits)
        better = torch.ones_like(start.halted) if not best else found.q_halt_logits > best[1]
        chosen = torch.where(better, run, chosen)
        best = now if not best else tuple(_choose(better, new, old) for new, old in zip(now, best, strict=True))
    logits, q_halt, q_continue, z_H, z_L = best
    carry = Carry(z_H, z_L, start.steps + steps, torch.ones_like(start.halted), start.current)
    return Rollouts(carry, Outputs(logits, q_halt, q_continue), chosen, torch.stack(all_q))


def _noise(like: Tensor, scale: float, generator: torch.Generator, share: tuple[int, int]) -> Tensor | float:
    if not scale:
        return 0.0
    part, parts = share
    whole = torch.randn(parts * len(like), *like.shape[1:], generator=generator, device=generator.device)
    return whole.chunk(parts)[part].to(like.device, like.dtype) * scale


def _choose(better: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(better.view(-1, *(1,) * (new.ndim - 1)), new, old)
