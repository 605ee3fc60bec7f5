"""The token statistics that votes and rewards read: pure functions of the logits at a token's position."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import torch

from sttrl.types import Measure, Stat


@dataclass(frozen=True)
class Scores:
    """The logits that score ``S`` tokens. There are ``L`` rows, fewer than ``S`` if several tokens follow the same context.

    ``logit_LV``: in the model's dtype. ``temperature``: of the samples. ``row_S``: the row of each token. ``token_S``: the token ids.
    """

    logit_LV: torch.Tensor
    temperature: float
    row_S: torch.Tensor
    token_S: torch.Tensor

    @cached_property
    def raw_LV(self) -> torch.Tensor:
        """The logits in float32."""
        return self.logit_LV.float()

    @cached_property
    def scaled_LV(self) -> torch.Tensor:
        """The logits at the sampling temperature, in float32."""
        return self.raw_LV if self.temperature == 1.0 else self.raw_LV / self.temperature


class LogProb(torch.autograd.Function):
    """Log-softmax of some entries, without a float32 copy of all logits.

    It works on a few rows at a time, which fit the cache. Autograd would read or write ``[L, V]`` in float32 about fifteen times.
    """

    @staticmethod
    def forward(ctx: Any, logit_LV: torch.Tensor, temperature: float, row_S: torch.Tensor, token_S: torch.Tensor) -> torch.Tensor:
        """Log-probs ``[S]`` in float32."""
        lse_L = torch.cat([(part.float() / temperature).logsumexp(dim=-1) for part in logit_LV.split(_rows_at_once(logit_LV))])
        ctx.save_for_backward(logit_LV, lse_L, row_S, token_S)
        ctx.temperature = temperature
        return logit_LV[row_S, token_S].float() / temperature - lse_L[row_S]

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        """(one-hot - p) times the gradient of each token, over the temperature; rounded to the logits' dtype once."""
        logit_LV, lse_L, row_S, token_S = ctx.saved_tensors
        gradient_S = gradients[0].float() / ctx.temperature
        gradient_L = torch.zeros_like(lse_L).index_put_((row_S,), gradient_S, accumulate=True)
        gradient_LV = torch.empty_like(logit_LV)
        at_once = _rows_at_once(logit_LV)
        for start in range(0, len(logit_LV), at_once):
            rows = slice(start, start + at_once)
            part = (logit_LV[rows].float() / ctx.temperature).sub_(lse_L[rows, None]).exp_().mul_(-gradient_L[rows, None])
            mine = (row_S >= start) & (row_S < start + at_once)
            part.index_put_((row_S[mine] - start, token_S[mine]), gradient_S[mine], accumulate=True)
            gradient_LV[rows] = part
        return gradient_LV, None, None, None


def _rows_at_once(logit_LV: torch.Tensor) -> int:
    """Rows of 4 MiB in float32, which a core's cache holds; of 256 MiB on GPU."""
    return max(1, (1 << 26 if logit_LV.is_cuda else 1 << 20) // logit_LV.shape[1])


def logprob(of: Scores, measure: Measure) -> torch.Tensor:
    """Log-probability of the token."""
    found: torch.Tensor = LogProb.apply(of.logit_LV, of.temperature, of.row_S, of.token_S)
    return found


def entropy(of: Scores, measure: Measure) -> torch.Tensor:
    """Shannon entropy in nats."""
    log_p = of.scaled_LV.log_softmax(dim=-1)
    return -(log_p.exp() * log_p).sum(dim=-1)[of.row_S]


def top_confidence(of: Scores, measure: Measure) -> torch.Tensor:
    """Minus the mean log-probability of the k likeliest tokens (DeepConf, arXiv 2508.15260)."""
    top = of.scaled_LV.topk(min(measure.top_k, of.scaled_LV.shape[1]), dim=-1).values
    return (of.scaled_LV.logsumexp(dim=-1) - top.mean(dim=-1))[of.row_S]


def self_certainty(of: Scores, measure: Measure) -> torch.Tensor:
    """logsumexp(z) - mean(z) (arXiv 2502.18581, up to the constant log V)."""
    return (of.scaled_LV.logsumexp(dim=-1) - of.scaled_LV.mean(dim=-1))[of.row_S]


def sum_pi_squared(of: Scores, measure: Measure) -> torch.Tensor:
    """Sum of squared probabilities, which verl's optimal token baseline needs."""
    return of.scaled_LV.softmax(dim=-1).square().sum(dim=-1)[of.row_S]


def logit(of: Scores, measure: Measure) -> torch.Tensor:
    """Raw logit of the token."""
    return of.raw_LV[of.row_S, of.token_S]


def logsumexp(of: Scores, measure: Measure) -> torch.Tensor:
    """T logsumexp(z / T) of the raw logits: minus the free energy (Liu 2020)."""
    temperature = measure.energy_temperature
    return (temperature * (of.raw_LV / temperature).logsumexp(dim=-1))[of.row_S]


STATISTICS: Final[dict[Stat, Callable[[Scores, Measure], torch.Tensor]]] = {
    "logprob": logprob,
    "entropy": entropy,
    "top_confidence": top_confidence,
    "self_certainty": self_certainty,
    "sum_pi_squared": sum_pi_squared,
    "logit": logit,
    "logsumexp": logsumexp,
}
"""The function of each statistic; it returns a number for each token, ``[S]``."""
