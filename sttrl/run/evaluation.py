"""Evaluations of a policy on one question: before, after, and the base given as many tokens as the adaptation spent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from math import ceil, sqrt
from statistics import fmean, pstdev

from sttrl.engine.base import Policy
from sttrl.ledger.records import BallotsRecord, ElectionRecord, PollName, PollRecord, StepRecord
from sttrl.methods import Tools
from sttrl.methods.ballots import first
from sttrl.types import Ballots, DeltaSpec, Election, Group, Poll, Problem, Rollout, Sampling, Step, TokenStats
from sttrl.voting import confidence_vote

MOST_AT_ONCE = 512
BASE = DeltaSpec(kind="none")
"""What a fork may change that evaluates the base."""


async def evaluate(name: PollName, problem: Problem, policy: Policy, tools: Tools) -> Poll:
    """``val_samples`` samples and a greedy response, with the same seeds for every policy."""
    config = tools.config
    sampling = Sampling(
        temperature=config.evaluation.val_temp, top_p=config.evaluation.val_top_p, max_tokens=config.sampling.max_response_tokens
    )
    sampling_G = [sampling] * config.evaluation.val_samples + [replace(sampling, temperature=0.0, top_p=1.0)]
    seeds_G = (*tools.seeds(problem, "evaluate", 0, config.evaluation.val_samples), *tools.seeds(problem, "greedy", 0, 1))
    everyone = await policy.sample(problem.prompt_T, sampling_G, seeds_G)
    group = replace(everyone, rollout_G=everyone.rollout_G[:-1])
    return await held(name, problem, sampling, group, everyone.rollout_G[-1], tools)


async def vote_same_tokens(problem: Problem, base: Policy, budget: int, reused: Sequence[Rollout], tools: Tools) -> Poll:
    """The base, voting with ``budget`` response tokens: as many as the adaptation sampled and trained on.

    Samples as the adaptation samples, with its seeds; ``reused`` are samples of the base that were taken already. The votes
    are over the longest run of samples that fits the budget, and never fewer than one.
    """
    rollouts = list(reused)
    while (spent := sum(len(r.token_T) for r in rollouts)) < budget:
        more = min(
            MOST_AT_ONCE, enough(budget - spent, [len(r.token_T) for r in rollouts] or [tools.config.sampling.max_response_tokens // 2])
        )
        seeds = tools.seeds(problem, "vote", 0, len(rollouts) + more)[len(rollouts) :]
        rollouts += (await base.sample(problem.prompt_T, tools.sampling, seeds)).rollout_G
    group = Group(prompt_T=problem.prompt_T, rollout_G=tuple(within(rollouts, budget)))
    return await held("vote_same_tokens", problem, tools.sampling, group, None, tools)


def budget_of(steps: Sequence[Step]) -> int:
    """Response tokens that the adaptation sampled and trained on."""
    return sum((s.vote.n_tokens if s.vote else 0) + (s.update.tokens if s.update else 0) for s in steps)


def samples_of_base(steps: Sequence[Step]) -> tuple[Rollout, ...]:
    """The first vote's samples, where they came from the base."""
    vote = steps[0].vote if steps and steps[0].version == 0 else None
    return vote.group.rollout_G if vote is not None else ()


def enough(tokens: int, lengths: Sequence[int]) -> int:
    """How many samples take at least so many tokens, very likely: responses vary as those of these lengths, and their sum is two
    standard deviations above. Few too many cost less than a second round."""
    mean, deviation = max(1.0, fmean(lengths)), pstdev(lengths)
    return ceil(((deviation + sqrt(deviation**2 + mean * tokens)) / mean) ** 2)


def within(rollouts: Sequence[Rollout], budget: int) -> Sequence[Rollout]:
    """The longest prefix whose response tokens fit the budget, at least one response."""
    spent = 0
    for count, rollout in enumerate(rollouts):
        spent += len(rollout.token_T)
        if spent > budget:
            return rollouts[: max(1, count)]
    return rollouts


async def held(name: PollName, problem: Problem, sampling: Sampling, group: Group, greedy: Rollout | None, tools: Tools) -> Poll:
    """Judge a group, with its greedy response last, and hold a majority and a confidence vote over the samples."""
    everyone = Group(prompt_T=group.prompt_T, rollout_G=(*group.rollout_G, *([greedy] if greedy else [])))
    ballots = await tools.ballots(problem, everyone)
    known = replace(ballots, stats_G=tuple(TokenStats(logprob_T=r.logprob_T) for r in everyone.rollout_G))
    samples = first(known, len(group.rollout_G))
    return Poll(
        name=name,
        sampling=sampling,
        group=group,
        greedy=greedy,
        ballots=ballots,
        election=tools.majority(samples),
        confidence=confidence_vote(samples, tools.vote_config),
    )


def poll_record(poll: Poll) -> PollRecord:
    """A poll for the journal."""
    rollouts = [*poll.group.rollout_G, *([poll.greedy] if poll.greedy else [])]
    return PollRecord(
        k=len(poll.group.rollout_G),
        greedy=poll.greedy is not None,
        temperature=poll.sampling.temperature,
        top_p=poll.sampling.top_p,
        max_tokens=poll.sampling.max_tokens,
        version=rollouts[0].version,
        ballots=ballots_record(poll.ballots),
        election=election_record(poll.election),
        confidence=election_record(poll.confidence),
        tokens=sum(len(r.token_T) for r in rollouts),
    )


def step_record(step: Step, seconds: dict[str, float]) -> StepRecord:
    """A step for the journal."""
    update = {k: v for k, v in asdict(step.update).items() if k != "seconds"} if step.update else None
    vote = step.vote
    return StepRecord(
        step=step.index,
        version=step.version,
        ballots=ballots_record(vote.ballots) if vote else None,
        election=election_record(vote.election) if vote else None,
        majority=election_record(vote.majority) if vote else None,
        reward_G=list(vote.reward_G) if vote else [],
        gate=step.gate,
        tokens_sampled=vote.n_tokens if vote else 0,
        tokens_trained=step.update.tokens if step.update else 0,
        update=update,
        seconds=seconds,
    )


def ballots_record(ballots: Ballots) -> BallotsRecord:
    """Ballots for the journal."""
    return BallotsRecord(
        answer_G=[a.text for a in ballots.answer_G],
        invalid_G=[a.invalid for a in ballots.answer_G],
        class_G=list(ballots.class_G),
        representative_C=list(ballots.representative_C),
    )


def election_record(election: Election) -> ElectionRecord:
    """An election for the journal."""
    return ElectionRecord(
        answer=election.answer,
        winner=election.winner,
        margin=election.margin,
        share_C=list(election.share_C),
        tied_C=list(election.tied_C),
        voters=election.voters,
        samples=election.samples,
        majority_ratio=election.majority_ratio,
    )
