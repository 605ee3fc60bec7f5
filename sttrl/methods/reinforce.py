"""What the reinforcing methods share: when a vote teaches something, and the batch that it becomes."""

from __future__ import annotations

from collections.abc import Sequence

from sttrl.config import RunConfig
from sttrl.engine.base import Policy
from sttrl.objectives.advantages import Evidence, advantages
from sttrl.objectives.registry import estimator_needs
from sttrl.objectives.rewards import REWARDS
from sttrl.types import Election, GateReason, HeldVote, Measure, Rollout, StopReason, TokenStats, TrainBatch, TrainGroup

SQUARED = Measure(want=frozenset({"logprob", "sum_pi_squared"}))


def nothing_to_learn(config: RunConfig, vote: HeldVote) -> StopReason | None:
    """Why a vote leaves nothing to learn: nothing parsable, a tie, (near) unanimity, or rewards that are all the same."""
    election, needs_winner = vote.election, REWARDS[config.reinforcement.reward].elects
    alike = len(set(vote.reward_G)) == 1
    if election.voters == 0 and (needs_winner or alike):
        return "unparsable"
    if needs_winner and election.abstains:
        return "tie"
    if alike:
        return "unanimous"
    return "agreement" if election.majority_ratio >= config.method.stop_agreement else None


def distrust(config: RunConfig, election: Election) -> GateReason | None:
    """Why an election is not trusted, if it is not."""
    if election.margin < config.vote.min_margin:
        return "margin"
    return "agreement" if election.majority_ratio < config.vote.min_agreement else None


async def train_batch(config: RunConfig, policy: Policy, votes: Sequence[HeldVote]) -> TrainBatch | None:
    """The first ``n_train`` samples of each vote with their advantages; None where they all fare the same everywhere."""
    count = config.sampling.n_train
    chosen = [vote for vote in votes if len(set(vote.reward_G[:count])) > 1]
    if not chosen:
        return None
    evidence_P = [await _evidence(config, policy, vote, vote.group.rollout_G[:count]) for vote in chosen]
    found_P = advantages(evidence_P, config.reinforcement.adv_estimator, config.reinforcement.gamma, config.reinforcement.gae_lambda)
    return TrainBatch(
        group_P=tuple(
            TrainGroup(
                prompt_T=vote.group.prompt_T,
                rollout_G=vote.group.rollout_G[:count],
                advantage_GT=found.advantage_GT,
                value_GT=evidence.value_GT,
                return_GT=found.return_GT if evidence.value_GT is not None else None,
            )
            for vote, evidence, found in zip(chosen, evidence_P, found_P, strict=True)
        ),
        temperature=config.sampling.temp,
    )


async def _evidence(config: RunConfig, policy: Policy, vote: HeldVote, rollout_G: tuple[Rollout, ...]) -> Evidence:
    """What the advantage estimator wants to know of a group."""
    needs, prompt_T = estimator_needs(config.reinforcement.adv_estimator), vote.group.prompt_T
    stats_G: tuple[TokenStats, ...] | None = None
    if "token_stats" in needs:
        stats_G = await policy.score(prompt_T, rollout_G, config.sampling.temp, SQUARED)
    return Evidence(
        reward_G=vote.reward_G[: len(rollout_G)],
        length_G=tuple(len(r.token_T) for r in rollout_G),
        value_GT=await policy.values(prompt_T, rollout_G) if "values" in needs else None,
        logprob_GT=tuple(stats.logprob_T or () for stats in stats_G) if stats_G else None,
        sum_pi_squared_GT=tuple(stats.sum_pi_squared_T or () for stats in stats_G) if stats_G else None,
        baseline=vote.baseline,
    )
