"""Evaluations of a policy on one question: before, after, and the base given as many tokens as the adaptation spent."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from math import ceil

from sttrl.engine.base import Policy
from sttrl.methods import Tools
from sttrl.run.records import BallotsRecord, ElectionRecord, PollName, PollRecord, StepRecord
from sttrl.types import Ballots, Election, Group, Poll, Problem, Rollout, Sampling, Step
from sttrl.voting import VOTES, VoteConfig

TOKEN_BUDGET_ROUNDS = 8
MOST_AT_ONCE = 512


async def evaluate(name: PollName, problem: Problem, policy: Policy, tools: Tools) -> Poll:
    """``val_samples`` samples and a greedy response, with the same seeds for every policy."""
    config = tools.config
    sampling = Sampling(temperature=config.val_temp, top_p=config.val_top_p, max_tokens=config.max_response_tokens)
    group = await policy.sample(problem.prompt_T, sampling, tools.seeds(problem, "evaluate", 0, config.val_samples))
    greedy_sampling = Sampling(temperature=0.0, max_tokens=config.max_response_tokens)
    greedy = await policy.sample(problem.prompt_T, greedy_sampling, tools.seeds(problem, "greedy", 0, 1))
    return await held(name, problem, sampling, group, greedy.rollout_G[0], tools)


async def vote_same_tokens(problem: Problem, base: Policy, steps: Sequence[Step], tools: Tools) -> Poll:
    """The base, voting with the response tokens that the adaptation sampled and trained on.

    Samples as the adaptation samples, with its seeds; a first group that came from the base counts already. The vote is
    over the longest run of samples that fits the budget, and never fewer than one.
    """
    budget = sum(s.group.n_tokens + (s.update.tokens if s.update else 0) for s in steps)
    rollouts: list[Rollout] = list(steps[0].group.rollout_G) if steps[0].version == 0 else []
    for _ in range(TOKEN_BUDGET_ROUNDS):
        spent = sum(len(r.token_T) for r in rollouts)
        if spent >= budget:
            break
        mean = spent / len(rollouts) if rollouts else tools.config.max_response_tokens / 2
        more = min(MOST_AT_ONCE, max(1, ceil((budget - spent) / max(1.0, mean))))
        seeds = tools.seeds(problem, "vote", 0, len(rollouts) + more)[len(rollouts) :]
        rollouts += (await base.sample(problem.prompt_T, tools.sampling, seeds)).rollout_G
    group = Group(prompt_T=problem.prompt_T, rollout_G=tuple(within(rollouts, budget)))
    return await held("vote_same_tokens", problem, tools.sampling, group, None, tools)


def within(rollouts: Sequence[Rollout], budget: int) -> Sequence[Rollout]:
    """The longest prefix whose response tokens fit the budget, at least one response."""
    spent = 0
    for count, rollout in enumerate(rollouts):
        spent += len(rollout.token_T)
        if spent > budget:
            return rollouts[: max(1, count)]
    return rollouts


async def held(name: PollName, problem: Problem, sampling: Sampling, group: Group, greedy: Rollout | None, tools: Tools) -> Poll:
    """Judge a group, with its greedy response last, and hold a majority vote over the samples."""
    everyone = Group(prompt_T=group.prompt_T, rollout_G=(*group.rollout_G, *([greedy] if greedy else [])))
    ballots = await tools.ballots(problem, everyone)
    samples = without_last(ballots) if greedy else ballots
    election = VOTES["majority"](samples, VoteConfig(ties=tools.config.ties))
    return Poll(name=name, sampling=sampling, group=group, greedy=greedy, ballots=ballots, election=election)


def without_last(ballots: Ballots) -> Ballots:
    """The ballots of the samples alone; a class that only the greedy response is in stays, with no votes."""
    return dataclasses.replace(ballots, answer_G=ballots.answer_G[:-1], class_G=ballots.class_G[:-1])


def elected(poll: Poll) -> str | None:
    """What a policy answers: its vote, or its greedy answer where the vote abstains."""
    if poll.election.answer is not None or poll.greedy is None:
        return poll.election.answer
    greedy_class = poll.ballots.class_G[-1]
    return None if greedy_class is None else poll.ballots.representative_C[greedy_class]


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
        tokens=sum(len(r.token_T) for r in rollouts),
    )


def step_record(step: Step, seconds: dict[str, float]) -> StepRecord:
    """A step for the journal."""
    update = {k: v for k, v in dataclasses.asdict(step.update).items() if k != "seconds"} if step.update else None
    return StepRecord(
        step=step.index,
        version=step.version,
        ballots=ballots_record(step.ballots),
        election=election_record(step.election),
        majority=election_record(step.majority),
        reward_G=list(step.reward_G),
        tokens_sampled=step.group.n_tokens,
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
