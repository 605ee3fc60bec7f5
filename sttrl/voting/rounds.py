"""The adaptive vote: samples are drawn in rounds, until the elected answer has a supermajority (derived).

Nearest published: Adaptive-Consistency (arXiv 2305.11860), which stops by the posterior of the majority after every sample. Rounds that
double keep the sampler's batches large: a vote of 64 samples has at most six of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from sttrl.types import Ballots, Election


def rounds(samples: int, until: float | None, first: int = 2) -> tuple[int, ...]:
    """How many samples a vote on at most ``samples`` has after each round: ``first``, twice as many, and so on. If ``until`` is None,
    there is one round."""
    if until is None:
        return (samples,)
    counts = [first]
    while counts[-1] < samples:
        counts.append(2 * counts[-1])
    return (*counts[:-1], samples)


def is_decided(election: Election, until: float | None) -> bool:
    """Whether the elected answer has at least ``until`` of all samples, those without an answer included."""
    return until is not None and not election.abstains and election.majority_ratio >= until


def replayed(ballots: Ballots, vote: Callable[[Ballots], Election], until: float, first: int = 2) -> Election:
    """What the adaptive vote elects on samples that exist already, in the order of their seeds.

    `Election.samples` says how many of them it needs.
    """
    for count in rounds(len(ballots.class_G), until, first):
        part = ballots.of_samples(range(count))
        classes = len(set(part.class_G) - {None})  # numbered by first appearance, so the first ones are theirs
        election = vote(replace(part, representative_C=ballots.representative_C[:classes]))
        if is_decided(election, until):
            break
    return election
