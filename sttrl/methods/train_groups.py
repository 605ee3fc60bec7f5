"""The training rows that are made of votes: which samples are trained on, and with which advantages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from sttrl.config import RunConfig
from sttrl.engine.base import Policy
from sttrl.objectives.advantages import Advantages, Evidence, advantages
from sttrl.objectives.registry import estimator_needs
from sttrl.objectives.rewards import teach_nothing
from sttrl.objectives.shaping import clipped, relative_entropy_factors
from sttrl.objectives.train_samples import TRAIN_SAMPLES
from sttrl.types import Group, HeldVote, Measure, Row, TrainGroup, in_sample_order


def trained_on(config: RunConfig, vote: HeldVote) -> tuple[int, ...]:
    """The numbers of the samples that are trained on: at most ``n_train``, chosen by ``--train_samples``."""
    return TRAIN_SAMPLES[config.reinforcement.train_samples](vote.ballots, vote.election, config.sampling.n_train)


def rewards_teach(config: RunConfig, vote: HeldVote) -> bool:
    """Whether the samples that are trained on have advantages. If not, no update follows."""
    return not teach_nothing([vote.reward_G[i] for i in trained_on(config, vote)], config.reinforcement.adv_estimator)


async def train_groups(config: RunConfig, policy: Policy, votes: Sequence[HeldVote]) -> tuple[TrainGroup, ...]:
    """The groups of each vote whose `rewards_teach`, one for each view: the samples that are `trained_on`, with their advantages.

    The groups of a vote have the same ``problem``.
    """
    chosen = [(vote, trained_on(config, vote)) for vote in votes if rewards_teach(config, vote)]
    group_P = [replace(vote.group, rollout_G=tuple(vote.group.rollout_G[i] for i in places)) for vote, places in chosen]
    reward_PG = [tuple(vote.reward_G[i] for i in places) for vote, places in chosen]
    baseline_P = [vote.baseline for vote, _ in chosen]
    evidence_P = [await _evidence(config, policy, *parts) for parts in zip(group_P, reward_PG, baseline_P, strict=True)]
    found_P = advantages(evidence_P, config.reinforcement.adv_estimator, config.reinforcement.gamma, config.reinforcement.gae_lambda)
    weighed_P = [_weighed(vote, places, found) for (vote, places), found in zip(chosen, found_P, strict=True)]
    parts_P = zip(group_P, weighed_P, chosen, strict=True)
    shaped_P = [await _reshaped(config, policy, group, weighed, *parts) for group, weighed, parts in parts_P]
    of_votes = enumerate(zip(group_P, evidence_P, shaped_P, strict=True))
    return tuple(group for number, parts in of_votes for group in _with(number, *parts))


async def _reshaped(
    config: RunConfig, policy: Policy, group: Group, found: Advantages, vote: HeldVote, places: Sequence[int]
) -> Advantages:
    """The advantages of a group reshaped, as ``--advantage_shaping`` says. ``places``: the numbers of its samples in the vote."""
    chosen = config.reinforcement
    if chosen.advantage_shaping == "none":
        return found
    if chosen.advantage_shaping == "clip":
        return replace(found, advantage_GT=tuple(clipped(advantage_T, chosen.advantage_clip) for advantage_T in found.advantage_GT))
    factor_G = relative_entropy_factors(await _mean_entropies(config, policy, group, vote, places))
    shaped = zip(factor_G, found.advantage_GT, strict=True)
    return replace(found, advantage_GT=tuple(tuple(factor * a for a in advantage_T) for factor, advantage_T in shaped))


async def _mean_entropies(config: RunConfig, policy: Policy, group: Group, vote: HeldVote, places: Sequence[int]) -> tuple[float, ...]:
    """The mean entropy of the tokens of each sample, in nats: as the vote or its rewards measured it, or else as the learner does now."""
    known_G = [] if vote.ballots.stats_G is None else [vote.ballots.stats_G[i].entropy_T for i in places]
    entropy_GT = [entropy_T for entropy_T in known_G if entropy_T is not None]
    if len(entropy_GT) < len(places):
        measure = Measure(want=frozenset({"entropy"}), temperature=config.sampling.temp)
        stats_G = in_sample_order(group, await policy.score(TrainGroup.of(group), measure))
        entropy_GT = [stats.entropy_T or () for stats in stats_G]
    return tuple(map(fmean, entropy_GT))


def _weighed(vote: HeldVote, places: Sequence[int], found: Advantages) -> Advantages:
    """The advantages of a group, multiplied by the weight of its question, and with the bonus of each sample."""
    if vote.weight is None and vote.bonus_G is None:
        return found
    weight = 1.0 if vote.weight is None else vote.weight
    advantage_GT = [[weight * a for a in advantage_T] for advantage_T in found.advantage_GT]
    unit = fmean(fmean(map(abs, advantage_T)) for advantage_T in advantage_GT)
    bonus_G = [0.0 if vote.bonus_G is None else vote.bonus_G[i] * unit for i in places]
    return replace(found, advantage_GT=tuple(tuple(a + b for a in a_T) for a_T, b in zip(advantage_GT, bonus_G, strict=True)))


def _with(problem: int, group: Group, evidence: Evidence, found: Advantages) -> tuple[TrainGroup, ...]:
    """The group's rows with their advantages and, if a critic gave values, with values and returns."""
    row_G = list(map(Row.of, group.rollout_G, found.advantage_GT))
    if evidence.value_GT is not None:
        of_critic = zip(row_G, evidence.value_GT, found.return_GT, strict=True)
        row_G = [replace(row, value_T=value_T, return_T=return_T) for row, value_T, return_T in of_critic]
    return TrainGroup.each(group, row_G, problem)


async def _evidence(config: RunConfig, policy: Policy, group: Group, reward_G: tuple[float, ...], baseline: float | None) -> Evidence:
    """What the advantage estimator needs to know of a group."""
    needs, length_G = estimator_needs(config.reinforcement.adv_estimator), tuple(len(r.token_T) for r in group.rollout_G)
    evidence = Evidence(reward_G=reward_G, length_G=length_G, baseline=baseline)
    if "values" in needs:
        evidence = replace(evidence, value_GT=in_sample_order(group, await policy.values(TrainGroup.of(group))))
    if "token_stats" in needs:
        measure = Measure(want=frozenset({"logprob", "sum_pi_squared"}), temperature=config.sampling.temp)
        stats_G = in_sample_order(group, await policy.score(TrainGroup.of(group), measure))
        evidence = replace(
            evidence,
            logprob_GT=tuple(stats.logprob_T or () for stats in stats_G),
            sum_pi_squared_GT=tuple(stats.sum_pi_squared_T or () for stats in stats_G),
        )
    return evidence
