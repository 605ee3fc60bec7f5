"""Confidence vote: each sample is weighed by the model's confidence in its tokens.

DeepConf: arXiv 2508.15260, with the token groups of facebookresearch/deepconf; self-certainty: arXiv 2502.18581; reasoning steps: SCOPE,
arXiv 2512.15146, with the steps of szu-tera/SCOPE.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from itertools import groupby
from statistics import fmean
from typing import Final

from sttrl.config import ConfidenceKind
from sttrl.config.confidence_vote import BY_STEP
from sttrl.types import Ballots, Election, Stat, TokenStats
from sttrl.voting.elect import TiePolicy, VoteConfig, elect, measure_voters

_ABOVE_ZERO: Final = 1e-3
"""A mean log-prob may be this far above 0, because of rounding."""


def confidence(ballots: Ballots, config: VoteConfig) -> Election:
    """The class with the greatest sum of `confidence_weights`.

    Raises:
        ValueError: a statistic that the vote reads is missing, not finite, or negative where it is the weight.
    """
    return elect(ballots, confidence_weights(ballots, config), config.ties, tie_confidence(ballots, config.ties))


def confidence_vote(ballots: Ballots, config: VoteConfig) -> Election:
    """The confidence vote with `mean_logprob_confidence`, whatever ``config.confidence`` is. Every evaluation reports it.

    Raises:
        ValueError: log-probs are missing or not finite.
    """
    return confidence(ballots, dataclasses.replace(config, confidence="mean_logprob"))


def confidence_weights(ballots: Ballots, config: VoteConfig) -> tuple[float, ...]:
    """The statistic ``config.confidence`` of each sample, ``_G``; 0 for a sample that does not vote.

    Raises:
        ValueError: the token statistic is missing or not finite, log-probs are above 0, or the reasoning steps are not known.
    """
    stat, of_tokens = STATISTICS[config.confidence]
    if config.confidence in BY_STEP:
        ballots = by_step(ballots, stat)
    return tuple(0.0 if c is None else c for c in measure_voters(ballots, stat, lambda value_T: of_tokens(value_T, config.window)))


def mean_logprob_confidence(ballots: Ballots) -> tuple[float, ...]:
    """exp of the mean log-prob of each sample's tokens, ``_G``, in [0, 1]; 0 for a sample that does not vote.

    Raises:
        ValueError: log-probs are missing, not finite, or above 0.
    """
    return confidence_weights(ballots, VoteConfig(confidence="mean_logprob"))


def tie_confidence(ballots: Ballots, ties: TiePolicy) -> tuple[float, ...] | None:
    """`mean_logprob_confidence` if the tie policy is "confidence"; None for the other policies, which do not need it.

    Raises:
        ValueError: the policy is "confidence", and log-probs are missing, not finite, or above 0.
    """
    return mean_logprob_confidence(ballots) if ties == "confidence" else None


def mean_probability(logprob_T: Sequence[float]) -> float:
    """exp of the mean log-prob: the geometric mean of the probabilities of the tokens.

    Raises:
        ValueError: the mean is above 0, which no mean of log-probs is.
    """
    mean = fmean(logprob_T)
    if mean > _ABOVE_ZERO:
        raise ValueError(f"the mean log-prob of a sample is {mean:g}; no probability is above 1")
    return math.exp(mean)


def by_step(ballots: Ballots, stat: Stat) -> Ballots:
    """The ballots with one value of the statistic for each reasoning step, the mean over its tokens, in place of one for each token.

    Raises:
        ValueError: the reasoning steps of a sample are not known.
    """
    steps_GT = ballots.reasoning_step_GT or ((),) * len(ballots.class_G)
    if ballots.stats_G is None:
        return ballots
    return dataclasses.replace(
        ballots, stats_G=tuple(_by_step(s, stat, step_T) for s, step_T in zip(ballots.stats_G, steps_GT, strict=True))
    )


def _by_step(stats: TokenStats, stat: Stat, step_T: Sequence[int]) -> TokenStats:
    value_T: Sequence[float] | None = getattr(stats, f"{stat}_T")
    if value_T is None:
        return stats
    if len(step_T) != len(value_T):
        raise ValueError(f"the vote reads the mean {stat} of every reasoning step, and the steps of a sample are not known")
    numbered = groupby(zip(step_T, value_T, strict=True), key=lambda pair: pair[0])
    return dataclasses.replace(stats, **{f"{stat}_T": tuple(fmean(value for _, value in of_it) for _, of_it in numbered)})


def group_means(value_T: Sequence[float], window: int) -> list[float]:
    """The means of all windows of ``window`` successive values; one mean of all values if there are no more than that."""
    width = min(window, len(value_T))
    # The sliding sum is kept as two floats, the rounded sum and its rounding error, so that errors do not accumulate.
    total = math.fsum(value_T[:width])
    rest = math.fsum((*value_T[:width], -total))
    means = [total / width]
    for new, old in zip(value_T[width:], value_T, strict=False):
        exact = (total, rest, new, -old)
        total = math.fsum(exact)
        rest = math.fsum((*exact, -total))
        means.append(total / width)
    return means


def lowest_tenth(mean_of_groups: Sequence[float]) -> float:
    """Mean of the lowest 10 % of the groups. Their number is rounded down, and is at least 1."""
    return fmean(sorted(mean_of_groups)[: max(1, len(mean_of_groups) // 10)])


STATISTICS: Final[dict[ConfidenceKind, tuple[Stat, Callable[[Sequence[float], int], float]]]] = {
    "mean_logprob": ("logprob", lambda logprob_T, _: mean_probability(logprob_T)),
    "deepconf_mean": ("top_confidence", lambda confidence_T, _: fmean(confidence_T)),
    "deepconf_tail": ("top_confidence", lambda confidence_T, window: fmean(confidence_T[-window:])),
    "deepconf_bottom": ("top_confidence", lambda confidence_T, window: lowest_tenth(group_means(confidence_T, window))),
    "deepconf_lowest": ("top_confidence", lambda confidence_T, window: min(group_means(confidence_T, window))),
    "self_certainty": ("self_certainty", lambda certainty_T, _: fmean(certainty_T)),
    "step_mean": ("top_confidence", lambda confidence_S, _: fmean(confidence_S)),
    "step_surprisal": ("logprob", lambda logprob_S, _: max(0.0, -fmean(logprob_S))),
}
"""For each statistic: the token statistic that it reads, and the function of its values and the window (in tokens). Those of `BY_STEP` are
given a value for each reasoning step, ``_S``."""
