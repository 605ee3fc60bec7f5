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

from sttrl.config import RunConfig, ScrlSettings
from sttrl.config.extensions import Part, check_fits, imported
from sttrl.config.reinforcement import REWARD
from sttrl.objectives.restrain import restrain
from sttrl.objectives.subgroups import ScopeConfig, scope
from sttrl.types import Ballots, Election, Stat

_SCRL: Final = ScrlSettings()

RewardFunction = Callable[[Ballots, Election, Sequence[int]], tuple[float, ...]]
"""(ballots of a group, result of the vote, seeds of the samples) -> one reward for each sample.

There may be one ballot more than votes: the first ``election.samples`` voted; the greedy response of remax may follow them. It gets the
reward that a sample with its answer would get, and changes no other reward.
"""


@dataclass(frozen=True, kw_only=True)
class Reward:
    """A pseudo-reward. ``stats``: the token statistics that it reads. ``elects``: it needs a winner of the vote. ``held_out``: it needs
    problems with demonstrations, one of which is asked. ``of``: the function with the settings of a run; None: it has no settings."""

    function: RewardFunction
    stats: frozenset[Stat] = frozenset()
    elects: bool = False
    held_out: bool = False
    of: Callable[[RunConfig], RewardFunction] | None = None


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


def scrl(ballots: Ballots, election: Election, seeds_G: Sequence[int], settings: ScrlSettings = _SCRL) -> tuple[float, ...]:
    """Reward of the one class that is surely right, penalty of those that are surely wrong (SCRL, arXiv 2603.19880).

    Positive: the largest class, if its share p is at least ``scrl_positive_share`` and its lead over the next one is above
    ``scrl_margin``. Negative: any other class with p below ``scrl_negative_share`` whose entropy H_c is at least the group's, H. Shares
    are fractions of all samples, those without an answer included. The entropy of a sample is the mean over its tokens, in nats; H_c is
    the mean over the samples of a class, and H over all samples (as in the authors' code).

    ``fixed``: 1 in the positive class, -1 in a negative one, 0 otherwise (the code's binary mode). ``shaped``, the paper's dynamic
    reward: p, p - ``scrl_negative_share`` or 0, each minus ``scrl_entropy_weight`` * (H_c - H). A sample without an answer earns -1 in
    both (the code). The run's vote does not matter. Two entropies are equal if they differ by rounding only (derived).

    Raises:
        ValueError: the statistic was not measured, or is not finite.
    """
    entropy_G, samples = _token_means(ballots, "entropy"), election.samples
    count = Counter(c for c in ballots.class_G[:samples] if c is not None)
    entropies: dict[int, list[float]] = {}
    for number, (c, entropy) in enumerate(zip(ballots.class_G, entropy_G, strict=True)):
        if c is not None and (number < samples or c not in count):  # a greedy response changes no entropy of a class of samples
            entropies.setdefault(c, []).append(entropy)
    mean = _average(entropy_G[:samples])
    class_mean = {c: _average(members) for c, members in entropies.items()}
    positive = _positive_class(count, samples, settings)
    reward: dict[int | None, float] = {None: -1.0}
    for c, h in class_mean.items():
        share = count[c] / samples
        unsure = h > mean or math.isclose(h, mean, rel_tol=1e-12)
        negative = c != positive and share < settings.scrl_negative_share and unsure
        if settings.scrl_form == "fixed":
            reward[c] = 1.0 if c == positive else -1.0 if negative else 0.0
        else:
            level = share if c == positive else share - settings.scrl_negative_share if negative else 0.0
            reward[c] = level - settings.scrl_entropy_weight * (h - mean)
    return tuple(reward[c] for c in ballots.class_G)


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
    "scrl": Reward(function=scrl, stats=frozenset({"entropy"}), of=lambda config: partial(scrl, settings=config.scrl)),
    "scope": Reward(function=scope, of=lambda config: partial(scope, config=ScopeConfig.of(config))),
    "restrain": Reward(function=restrain, of=lambda config: partial(restrain, settings=config.restrain)),
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


def reward_of_run(config: RunConfig) -> Reward:
    """The reward of a run, with the run's settings. Raises `UsageError` if what ``--reward`` names is no reward."""
    reward = reward_of(config.reinforcement.reward)
    return reward if reward.of is None else replace(reward, function=reward.of(config))


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


def _positive_class(count: Counter[int], samples: int, settings: ScrlSettings) -> int | None:
    """SCRL's positive class; None if no class is large enough and far enough ahead."""
    (largest, first), (_, second) = [*count.most_common(2), (None, 0), (None, 0)][:2]
    return largest if first / samples >= settings.scrl_positive_share and (first - second) / samples > settings.scrl_margin else None


def _average(value_G: Sequence[float]) -> float:
    return math.fsum(value_G) / len(value_G)


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


def teach_nothing(reward_G: Sequence[float], estimator: str) -> bool:
    """Whether samples with these rewards have no advantages: all rewards are equal, or 0 for an estimator that subtracts nothing."""
    return not any(reward_G) if estimator == "reinforce" else len(set(reward_G)) == 1
