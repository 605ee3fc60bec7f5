"""What votes and rewards want to know of a token's distribution: pure functions of the logits that scored it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch

from sttrl.types import Measure, Stat

Statistic = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Measure], torch.Tensor]
"""(raw logits ``[S, V]``, logits at the sampling temperature ``[S, V]``, tokens ``[S]``, measure) -> a number for each ``[S]``."""


def logprob(raw: torch.Tensor, scaled: torch.Tensor, token_S: torch.Tensor, measure: Measure) -> torch.Tensor:
    """Log-probability of the token."""
    return scaled.gather(1, token_S[:, None])[:, 0] - scaled.logsumexp(dim=-1)


def entropy(raw: torch.Tensor, scaled: torch.Tensor, token_S: torch.Tensor, measure: Measure) -> torch.Tensor:
    """Shannon entropy in nats."""
    log_p = scaled.log_softmax(dim=-1)
    return -(log_p.exp() * log_p).sum(dim=-1)


def top_confidence(raw: torch.Tensor, scaled: torch.Tensor, token_S: torch.Tensor, measure: Measure) -> torch.Tensor:
    """Minus the mean log-probability of the k likeliest tokens (DeepConf, arXiv 2508.15260)."""
    top = scaled.topk(min(measure.top_k, scaled.shape[1]), dim=-1).values
    return scaled.logsumexp(dim=-1) - top.mean(dim=-1)


def self_certainty(raw: torch.Tensor, scaled: torch.Tensor, token_S: torch.Tensor, measure: Measure) -> torch.Tensor:
    """logsumexp(z) - mean(z) (arXiv 2502.18581, up to the constant log V)."""
    return scaled.logsumexp(dim=-1) - scaled.mean(dim=-1)


def sum_pi_squared(raw: torch.Tensor, scaled: torch.Tensor, token_S: torch.Tensor, measure: Measure) -> torch.Tensor:
    """Sum of squared probabilities, as verl's optimal token baseline wants it."""
    return scaled.softmax(dim=-1).square().sum(dim=-1)


def logit(raw: torch.Tensor, scaled: torch.Tensor, token_S: torch.Tensor, measure: Measure) -> torch.Tensor:
    """Raw logit of the token."""
    return raw.gather(1, token_S[:, None])[:, 0]


def logsumexp(raw: torch.Tensor, scaled: torch.Tensor, token_S: torch.Tensor, measure: Measure) -> torch.Tensor:
    """T logsumexp(z / T) of the raw logits: minus the free energy (Liu 2020)."""
    temperature = measure.energy_temperature
    return temperature * (raw / temperature).logsumexp(dim=-1)


STATISTICS: Final[dict[Stat, Statistic]] = {
    "logprob": logprob,
    "entropy": entropy,
    "top_confidence": top_confidence,
    "self_certainty": self_certainty,
    "sum_pi_squared": sum_pi_squared,
    "logit": logit,
    "logsumexp": logsumexp,
}
