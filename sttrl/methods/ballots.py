"""Ballots with one response more, and two votes against each other. The judge decides, never a text."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from sttrl.types import Ballots, Group, HeldVote, Rollout

JudgeOf = Callable[[Group], Awaitable[Ballots]]
"""Judges responses to one question."""


async def beside(judge: JudgeOf, vote: HeldVote, other: Rollout) -> Ballots:
    """The ballots of a vote with one more response, last: in the first class that the judge puts it into, or in one of its own."""
    ballots = vote.ballots
    members = [vote.group.rollout_G[ballots.class_G.index(c)] for c in range(len(ballots.representative_C))]
    judged = await judge(replace(vote.group, rollout_G=(*members, other)))
    answer, own = judged.answer_G[-1], judged.class_G[-1]
    new = own is not None and own not in judged.class_G[:-1]
    return replace(
        ballots,
        answer_G=(*ballots.answer_G, answer),
        class_G=(*ballots.class_G, len(members) if new else None if own is None else judged.class_G.index(own)),
        representative_C=(*ballots.representative_C, *((answer.text or "",) if new else ())),
    )


async def elect_the_same(judge: JudgeOf, before: HeldVote, after: HeldVote) -> bool:
    """Whether two votes on one question elected equal answers, however they are written; to abstain is an answer of its own."""
    if not before.elected or not after.elected:
        return not before.elected and not after.elected
    if not before.elected.keys().isdisjoint(after.elected):
        return True
    one_of_each = (next(iter(before.elected.values())), next(iter(after.elected.values())))
    first_class, second_class = (await judge(Group(prompt_T=before.group.prompt_T, rollout_G=one_of_each))).class_G
    return first_class is not None and first_class == second_class
