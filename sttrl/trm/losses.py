"""The loss of a supervision step, and its metrics under the original's names: sums over the batch here, averages in what is logged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from sttrl.trm.arch import LossType
from sttrl.trm.data.loader import IGNORED_LABEL
from sttrl.trm.recursion import Carry, Outputs


def stablemax_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each cell over stablemax (arXiv 2501.04697): s(x) = x + 1 from 0 up, 1 / (1 - x) below. In float64.

    ``logits`` (..., V), ``labels`` (...) -> (...); 0 where a label is `IGNORED_LABEL`.
    """
    return _StablemaxCrossEntropy.apply(logits, labels)


def softmax_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each cell over softmax, in float32."""
    flat = functional.cross_entropy(logits.float().flatten(0, -2), labels.flatten().long(), ignore_index=IGNORED_LABEL, reduction="none")
    return flat.view(labels.shape)


CROSS_ENTROPIES = {"stablemax_cross_entropy": stablemax_cross_entropy, "softmax_cross_entropy": softmax_cross_entropy}
"""The losses on the cells, by the name in ``arch.loss.loss_type``."""


def act_loss(outputs: Outputs, carry: Carry, loss_type: LossType = "stablemax_cross_entropy") -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """(loss, metrics, predictions (B, S)) of one supervision step; ``carry`` is the one after it.

    The loss is a sum over the sequences of the batch: mean cross-entropy of the labelled cells + 0.5 BCE of the halting head against
    "the whole sequence is right" (and 0.5 BCE of continuing, where that is learned). Metrics are sums too: of the halted sequences
    with labels, except for the losses, which are of all sequences.
    """
    labels = carry.current["labels"]
    with torch.no_grad():
        preds = outputs.logits.argmax(-1)
        labelled = labels != IGNORED_LABEL
        cells = labelled.sum(-1)
        weight = 1 / cells.clamp_min(1).unsqueeze(-1)
        right = labelled & (preds == labels)
        whole = right.sum(-1) == cells
        counted = carry.halted & (cells > 0)
        metrics = {
            "count": counted.sum(),
            "accuracy": torch.where(counted, (right.float() * weight).sum(-1), 0).sum(),
            "exact_accuracy": (counted & whole).sum(),
            "q_halt_accuracy": (counted & ((outputs.q_halt_logits >= 0) == whole)).sum(),
            "steps": torch.where(counted, carry.steps, 0).sum(),
        }
    cross_entropy = CROSS_ENTROPIES[loss_type](outputs.logits, labels)
    lm_loss = (cross_entropy * weight.to(cross_entropy.dtype)).sum()
    q_halt_loss = _bce_sum(outputs.q_halt_logits, whole.to(outputs.q_halt_logits.dtype))
    metrics |= {"lm_loss": lm_loss.detach(), "q_halt_loss": q_halt_loss.detach()}
    q_loss = q_halt_loss
    if outputs.target_q_continue is not None:
        q_continue_loss = _bce_sum(outputs.q_continue_logits, outputs.target_q_continue)
        metrics["q_continue_loss"] = q_continue_loss.detach()
        q_loss = q_loss + q_continue_loss
    return lm_loss + 0.5 * q_loss, metrics, preds


def logged_train(metrics: Mapping[str, Any], global_batch_size: int) -> dict[str, float]:
    """``train/...`` of one step: losses over the batch, everything else over the halted sequences, ``count`` too (so it is 1 or 0)."""
    count = max(float(metrics["count"]), 1.0)
    return {f"train/{name}": float(value) / (global_batch_size if name.endswith("loss") else count) for name, value in metrics.items()}


def logged_eval(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of one set of an evaluation: all over its sequences with labels, and no ``count``."""
    count = max(float(metrics["count"]), 1.0)
    return {name: float(value) / count for name, value in metrics.items() if name != "count"}


def _bce_sum(logits: Tensor, target: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits, target, reduction="sum")


class _StablemaxCrossEntropy(torch.autograd.Function):
    """log(sum of s) - log(s of the label). The slope of s is 1 from 0 up and s squared below."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor) -> Tensor:
        valid = labels != IGNORED_LABEL
        index = torch.where(valid, labels, 0).long().unsqueeze(-1)
        x = logits.double()
        s = torch.where(x < 0, 1 / (1 - x.clamp(max=0)), x + 1)
        total = s.sum(-1)
        own = s.gather(-1, index).squeeze(-1)
        ctx.save_for_backward(s, total, own, index, valid)
        ctx.dtype = logits.dtype
        return torch.where(valid, total.log() - own.log(), 0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        s, total, own, index, valid = ctx.saved_tensors
        slope = torch.where(s < 1, s * s, 1)
        grad = torch.where(valid, grad, 0)
        found = slope * (grad / total).unsqueeze(-1)
        found.scatter_add_(-1, index, -(grad / own).unsqueeze(-1) * slope.gather(-1, index))
        return found.to(ctx.dtype), None
