"""SCOPE's dynamic subgroups (arXiv 2512.15146): each subgroup of the samples has a pseudo-label of its own. Pure functions."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from sttrl.config import RunConfig
from sttrl.types import Ballots, Election
from sttrl.voting import WEIGHTS, VoteConfig, elect, tie_confidence

_SMALL = 1e-8
"""Added to a range before it divides, as in the authors' code."""


@dataclass(frozen=True, kw_only=True)
class ScopeConfig:
    """The settings of `scope`; defaults are those of the command line.

    ``votes``: how many samples are drawn for a label. Half of all, rounded up, are drawn if it is None, or if the vote ended early and has
    no more samples than that.
    ``quality``: the weight of the mean reward against the number of labels, in [0, 1]. ``voting_function``: the name in
    `sttrl.voting.WEIGHTS` of the vote that a label wins; ``vote``: its settings.
    """

    votes: int | None = None
    quality: float = 0.7
    voting_function: str = "majority"
    vote: VoteConfig = VoteConfig()

    @classmethod
    def of(cls, config: RunConfig) -> ScopeConfig:
        """The settings of a run."""
        chosen, voting = config.scope_reward, config.vote.voting_function
        return cls(votes=chosen.scope_votes, quality=chosen.scope_quality, voting_function=voting, vote=VoteConfig.of(config))


_SCOPE: Final = ScopeConfig()


@dataclass(frozen=True, kw_only=True)
class Partition:
    """Subgroups of ``size`` successive samples, the label of each subgroup (``label_S``: a class; None: it has none), and the rewards."""

    size: int
    label_S: tuple[int | None, ...]
    reward_G: tuple[float, ...]

    @property
    def quality(self) -> float:
        """The mean reward."""
        return fmean(self.reward_G)

    @property
    def exploration(self) -> int:
        """How many different labels there are."""
        return len(set(self.label_S))


def scope(ballots: Ballots, election: Election, seeds_G: Sequence[int], config: ScopeConfig = _SCOPE) -> tuple[float, ...]:
    """1 for a sample with the label of its own subgroup, else 0.

    The label of a subgroup is what the run's vote elects among ``votes`` samples, drawn from all samples without replacement. The size of
    the subgroups is that of `best` among the powers of two that divide the number of samples (up to 64 in the authors' code), and all
    samples as one subgroup. The draws depend on the samples' seeds only.

    Further ballots, such as the greedy response of remax, are in no subgroup: each gets the share of subgroups with its label (derived).

    Raises:
        ValueError: a statistic that the vote reads is missing or not finite.
    """
    voters = ballots.of_samples(range(election.samples))
    weight_G = WEIGHTS[config.voting_function](voters, config.vote)
    found = [partition(size, voters, weight_G, seeds_G[: election.samples], config) for size in sizes(election.samples)]
    chosen = best(found, config.quality)
    others = ballots.class_G[election.samples :]
    return (*chosen.reward_G, *(0.0 if c is None else fmean(float(label == c) for label in chosen.label_S) for c in others))


def sizes(samples: int) -> list[int]:
    """The sizes of subgroups that are compared, from small to large."""
    powers = [2**i for i in range(samples.bit_length()) if samples % 2**i == 0]
    return powers if powers[-1] == samples else [*powers, samples]


def partition(size: int, ballots: Ballots, weight_G: Sequence[float], seeds_G: Sequence[int], config: ScopeConfig) -> Partition:
    """Subgroups of this size, which divides the number of samples, with their labels. Every subgroup draws its samples anew."""
    samples = len(ballots.class_G)
    count = config.votes if config.votes is not None and config.votes < samples else -(-samples // 2)
    label_S = [_label(ballots, weight_G, draw(seeds_G, count, size, number), config.vote) for number in range(samples // size)]
    reward_G = tuple(float(c is not None and c == label_S[i // size]) for i, c in enumerate(ballots.class_G))
    return Partition(size=size, label_S=tuple(label_S), reward_G=reward_G)


def draw(seeds_G: Sequence[int], count: int, size: int, number: int) -> list[int]:
    """Numbers of ``count`` different samples for the subgroup ``number`` of this size, in the order of a hash of all seeds."""
    all_seeds = hashlib.blake2b("\x1f".join(map(str, seeds_G)).encode(), digest_size=8).hexdigest()

    def place(sample: int) -> bytes:
        return hashlib.blake2b(f"{all_seeds}\x1f{size}\x1f{number}\x1f{sample}".encode(), digest_size=8).digest()

    return sorted(range(len(seeds_G)), key=place)[:count]


def best(candidates: Sequence[Partition], weight: float) -> Partition:
    """The candidate that is nearest to the best quality and the best exploration at once; of equally near ones the first.

    Only the Pareto front counts: a candidate is left out if another one is at least as good in both, and better in one. Both are scaled to
    [0, 1] over the front; ``weight`` is that of quality in the squared distance.
    """
    front = [c for c in candidates if not any(_dominates(other, c) for other in candidates)]
    low_q, high_q = min(c.quality for c in front), max(c.quality for c in front)
    low_e, high_e = min(c.exploration for c in front), max(c.exploration for c in front)

    def distance(candidate: Partition) -> float:
        quality = (candidate.quality - low_q) / (high_q - low_q + _SMALL)
        exploration = (candidate.exploration - low_e) / (high_e - low_e + _SMALL)
        return math.sqrt(weight * (1 - quality) ** 2 + (1 - weight) * (1 - exploration) ** 2)

    return min(front, key=distance)


def _dominates(other: Partition, candidate: Partition) -> bool:
    no_worse = other.quality >= candidate.quality and other.exploration >= candidate.exploration
    return no_worse and (other.quality > candidate.quality or other.exploration > candidate.exploration)


def _label(ballots: Ballots, weight_G: Sequence[float], drawn: Sequence[int], config: VoteConfig) -> int | None:
    """The class that the drawn samples elect."""
    part = ballots.of_samples(drawn)
    return elect(part, [weight_G[i] for i in drawn], config.ties, tie_confidence(part, config.ties)).winner
