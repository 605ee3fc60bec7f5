"""Pseudo-rewards, which need no label. Pure functions that give one reward for each sample.

To add a reward: write it here as ``(Ballots, Election, seeds) -> rewards`` and give it a line in `REWARDS`. A reward that lives
elsewhere is named as ``package.module:Name``.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from sttrl.config.extensions import Part, check_fits, imported
from sttrl.config.reinforcement import REWARD
from sttrl.types import Ballots, Election, Stat

RewardFunction = Callable[[Ballots, Election, Sequence[int]], tuple[float, ...]]
"""(ballots of a group, result of the vote, seeds of the samples) -> one reward for each sample.

There may be one ballot more than votes: the first ``election.samples`` voted; the greedy response of remax may follow them. It gets the
reward that a sample with its answer would get, and changes no other reward.
"""


@dataclass(frozen=True, kw_only=True)
class Reward:
    """A pseudo-reward. ``stats``: the token statistics that it reads. ``elects``: it needs a winner of the vote. ``held_out``: it needs
    problems with demonstrations, one of which is asked."""

    function: RewardFunction
    stats: frozenset[Stat] = frozenset()
    elects: bool = False
    held_out: bool = False


def agreement(ballots: Ballots, election: Election, seeds_G: Sequence[int]) -> tuple[float, ...]:
    """1 for a sample of the winning class, else 0 (TTRL, arXiv 2504.16084)."""
    return election.in_winner_G


def frequency(ballots: Ballots, election: Election, seeds_G: Sequence[int]) -> tuple[float, ...]:
    """Samples in the sample's own class over all samples of the group (EMPO, arXiv 2504.05812).

    0 for a sample without an answer, and for all samples if every class has one member.
    """
    count = Counter(c for c in ballots.class_G[: election.samples] if c is not None)
    if max(count.values(), default=0) <= 1:
        return (0.0,) * len(ballots.class_G)
    return tuple(0.0 if c is None else count[c] / election.samples for c in ballots.class_G)


def neg_entropy(ballots: Ballots, election: Election, seeds_G: Sequence[int]) -> tuple[float, ...]:
    """Minus the mean entropy of the sample's tokens, in nats (RENT, arXiv 2505.22660).

    A sample without an answer, unparsable or cut, earns the lowest reward of its group, not 0: 0 would be the best (derived).

    Raises:
        ValueError: the statistic was not measured, or is not finite.
    """
    return _lowest_without_answer(ballots, election, [-mean for mean in _token_means(ballots, "entropy")])


def self_certainty(ballots: Ballots, election: Election, seeds_G: Sequence[int]) -> tuple[float, ...]:
    """Mean self-certainty of the sample's tokens, logsumexp(z) - mean(z) (Intuitor, arXiv 2505.19590).

    That is the divergence from the uniform distribution, up to the constant log of the vocabulary's size. A sample without an
    answer, unparsable or cut, earns the lowest reward of its group (derived).

    Raises:
        ValueError: the statistic was not measured, or is not finite.
    """
    return _lowest_without_answer(ballots, election, _token_means(ballots, "self_certainty"))


def logprob(ballots: Ballots, election: Election, seeds_G: Sequence[int]) -> tuple[float, ...]:
    """Mean log-prob of the sample's tokens (after RLSC, arXiv 2506.06395; the form is derived).

    RLSC weighs a response by its probability, which for hundreds of tokens is 0 in floating point. This reward is the mean logarithm
    over the tokens, which also does not favour short responses. A sample without an answer, unparsable or cut, earns the lowest
    reward of its group, not 0: 0 would be the best (derived).

    Raises:
        ValueError: the statistic was not measured, or is not finite.
    """
    return _lowest_without_answer(ballots, election, _token_means(ballots, "logprob"))


def random(ballots: Ballots, election: Election, seeds_G: Sequence[int]) -> tuple[float, ...]:
    """0 or 1 at random, determined by the sample's seed alone: a negative control (arXiv 2506.10947)."""
    assert len(seeds_G) == len(ballots.class_G), "every sample has a seed"
    return tuple(float(hashlib.blake2b(f"{seed}\x1frandom reward".encode(), digest_size=1).digest()[0] & 1) for seed in seeds_G)


def format_only(ballots: Ballots, election: Election, seeds_G: Sequence[int]) -> tuple[float, ...]:
    """1 for a sample with any answer, else 0: a negative control (arXiv 2506.10947)."""
    return tuple(0.0 if c is None else 1.0 for c in ballots.class_G)


def demonstrations(ballots: Ballots, election: Election, seeds_G: Sequence[int]) -> tuple[float, ...]:
    """What the kind of problem gave: how much of a held-out demonstration's output the sample has right.

    Raises:
        ValueError: the kind of problem has no demonstrations.
    """
    if ballots.reward_G is None:
        raise ValueError("the reward 'demonstrations' needs problems with demonstrations")
    return ballots.reward_G


REWARDS: Final[dict[str, Reward]] = {
    "agreement": Reward(function=agreement, elects=True),
    "frequency": Reward(function=frequency),
    "neg_entropy": Reward(function=neg_entropy, stats=frozenset({"entropy"})),
    "self_certainty": Reward(function=self_certainty, stats=frozenset({"self_certainty"})),
    "logprob": Reward(function=logprob, stats=frozenset({"logprob"})),
    "random": Reward(function=random),
    "format": Reward(function=format_only),
    "demonstrations": Reward(function=demonstrations, held_out=True),
    "demonstrations_random": Reward(function=random, held_out=True),
}


def reward_of(name: str) -> Reward:
    """The reward of this name, or what ``package.module:Name`` names: a `Reward`, or a function that reads no token statistics and needs
    no winner. Raises `UsageError` if that is no reward."""
    if name in REWARDS:
        return REWARDS[name]
    found = imported(REWARD, name)
    function = found.function if isinstance(found, Reward) else found
    check_fits(REWARD, name, function, [Part("", ("ballots", "election", "seeds_G"))], "how_to_add_a_method.md")
    reward = found if isinstance(found, Reward) else Reward(function=function)
    return replace(reward, function=partial(_numbers, name, function))


def _numbers(name: str, function: RewardFunction, ballots: Ballots, election: Election, seeds_G: Sequence[int]) -> tuple[float, ...]:
    """The rewards of a function of one's own. Raises ValueError unless there is a finite number for each ballot."""
    reward_G = tuple(map(float, function(ballots, election, seeds_G)))
    if len(reward_G) != len(ballots.class_G) or not all(map(math.isfinite, reward_G)):
        raise ValueError(f"the reward {name} gave {list(reward_G)} for {len(ballots.class_G)} samples; each needs a finite number")
    return reward_G


def memo_answer_rewards(ballots: Ballots) -> tuple[float, ...]:
    """Log of the fraction of samples in the sample's own class (derived from MEMO).

    A policy gradient with this reward minus its mean lowers the entropy of the distribution of answers. A sample without an answer is a
    class of its own and earns log(1 / samples).
    """
    count = Counter(ballots.class_G)
    return tuple(math.log((1 if c is None else count[c]) / len(ballots.class_G)) for c in ballots.class_G)


def _token_means(ballots: Ballots, stat: Stat) -> list[float]:
    """Mean of one token statistic, for each sample."""
    if ballots.stats_G is None:
        raise ValueError(f"the reward needs the token statistic {stat!r}, and none was measured")
    return [_mean(getattr(stats, f"{stat}_T"), stat) for stats in ballots.stats_G]


def _mean(value_T: Sequence[float] | None, stat: Stat) -> float:
    if not value_T:
        raise ValueError(f"the reward needs the token statistic {stat!r} of every sample, and one has none")
    if not all(math.isfinite(value) for value in value_T):
        raise ValueError(f"the token statistic {stat!r} of a sample is not finite")
    return math.fsum(value_T) / len(value_T)


def _lowest_without_answer(ballots: Ballots, election: Election, value_G: Sequence[float]) -> tuple[float, ...]:
    """The values; for a sample without an answer the lowest value of the group."""
    lowest = min(value_G[: election.samples], default=0.0)
    return tuple(lowest if c is None else value for c, value in zip(ballots.class_G, value_G, strict=True))
