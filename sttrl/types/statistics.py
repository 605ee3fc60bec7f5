"""What a pass over sampled tokens measures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Stat = Literal["logprob", "entropy", "top_confidence", "self_certainty", "sum_pi_squared", "logit", "logsumexp"]
"""What a pass over sampled tokens can measure: the fields of `TokenStats`."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """What to measure, and at which temperature. ``energy_temperature`` is T of ``logsumexp``; ``top_k`` is for ``top_confidence``."""

    want: frozenset[Stat] = frozenset({"logprob"})
    temperature: float = 1.0
    energy_temperature: float = 1.0
    top_k: int = 20


@dataclass(frozen=True, kw_only=True)
class TokenStats:
    """Statistics of a row, one number for each of its tokens; None where a statistic was not asked for.

    Of the distribution at the measure's temperature, with logits z at it: ``logprob_T`` log p of the
    token; ``entropy_T`` in nats; ``top_confidence_T`` minus the mean log p of the k likeliest tokens (arXiv 2508.15260);
    ``self_certainty_T`` logsumexp(z) - mean(z) (arXiv 2502.18581); ``sum_pi_squared_T`` sum of p squared. Of the raw logits:
    ``logit_T`` that of the token; ``logsumexp_T`` T logsumexp(z / T) at the energy temperature T.
    """

    logprob_T: tuple[float, ...] | None = None
    entropy_T: tuple[float, ...] | None = None
    top_confidence_T: tuple[float, ...] | None = None
    self_certainty_T: tuple[float, ...] | None = None
    sum_pi_squared_T: tuple[float, ...] | None = None
    logit_T: tuple[float, ...] | None = None
    logsumexp_T: tuple[float, ...] | None = None
