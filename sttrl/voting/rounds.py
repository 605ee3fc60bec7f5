"""The adaptive vote: samples are drawn in rounds, until the elected answer has a supermajority (derived).

Nearest published: Adaptive-Consistency (arXiv 2305.11860), which stops by the posterior of the majority after every sample. Rounds that
double keep the sampler's batches large: a vote of 64 samples has five of them.
"""

from __future__ import annotations

from sttrl.config.vote import FIRST_ROUND
from sttrl.types import Election


def rounds(samples: int, until: float | None) -> tuple[int, ...]:
    """How many samples a vote on at most ``samples`` has after each round: 4, 8, 16, ... If ``until`` is None, there is one round."""
    if until is None:
        return (samples,)
    counts = [FIRST_ROUND]
    while counts[-1] < samples:
        counts.append(2 * counts[-1])
    return (*counts[:-1], samples)


def is_decided(election: Election, until: float | None) -> bool:
    """Whether the elected answer has at least ``until`` of all samples, those without an answer included."""
    return until is not None and not election.abstains and election.majority_ratio >= until
