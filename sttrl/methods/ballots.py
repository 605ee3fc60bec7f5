"""What the judge compares: one more response with the classes of a vote, and the elected answers of two votes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from sttrl.objectives.rewards import RewardFunction
from sttrl.types import Ballots, Group, HeldVote, Rollout, TokenStats

JudgeOf = Callable[[Group], Awaitable[Ballots]]
"""Judges responses to one question."""


async def ballots_with(judge: JudgeOf, vote: HeldVote, other: Rollout) -> Ballots:
    """The ballots of a vote with one more response at the end. It joins the first class that it is equal to, or makes a new class."""
    ballots = vote.ballots
    members = [vote.group.rollout_G[ballots.class_G.index(c)] for c in range(len(ballots.representative_C))]
    judged = await judge(replace(vote.group, rollout_G=(*members, other)))
    answer, own = judged.answer_G[-1], judged.class_G[-1]
    new = own is not None and own not in judged.class_G[:-1]
    return replace(
        ballots,
        answer_G=(*ballots.answer_G, answer),
        class_G=(*ballots.class_G, len(members) if new else None if own is None else judged.class_G.index(own)),
        view_G=None if ballots.view_G is None else (*ballots.view_G, other.view),
        representative_C=(*ballots.representative_C, *((answer.text or "",) if new else ())),
    )


async def earned(judge: JudgeOf, reward: RewardFunction, vote: HeldVote, greedy: Rollout, stats_G: Sequence[TokenStats]) -> float:
    """The reward of the greedy response, as if it were one more sample. The vote and the samples' rewards do not change.

    ``stats_G``: the statistics of its tokens that the reward reads, measured by the learner: the sampler scores a greedy response at
    temperature 1.
    """
    ballots = await ballots_with(judge, vote, greedy)
    ballots = replace(ballots, stats_G=(*(vote.ballots.stats_G or ()), *stats_G))
    in_winner = float(ballots.class_G[-1] is not None and ballots.class_G[-1] == vote.election.winner)
    election = replace(vote.election, in_winner_G=(*vote.election.in_winner_G, in_winner))
    return reward(ballots, election, [r.seed for r in (*vote.group.rollout_G, greedy)])[-1]


async def elect_the_same(judge: JudgeOf, before: HeldVote, after: HeldVote) -> bool:
    """Whether two votes on one question elected equal answers, which may be written differently, or both abstained."""
    if not before.elected or not after.elected:
        return not before.elected and not after.elected
    if not before.elected.keys().isdisjoint(after.elected):
        return True
    one_of_each = (next(iter(before.elected.values())), next(iter(after.elected.values())))
    first_class, second_class = (await judge(Group(prompt_T=before.group.prompt_T, rollout_G=one_of_each))).class_G
    return first_class is not None and first_class == second_class
