"""Candidates, guesses and the product of experts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from sttrl.arc.candidates import GUESSES, Find, ViewReplies, candidates_of, read_replies
from sttrl.arc.codecs.base import Unreadable
from sttrl.arc.experts import Expert, score_experts
from sttrl.arc.grids import Grid
from sttrl.engine.base import JUST_LOGPROBS
from sttrl.types import Measure, TokenStats, TrainGroup


def read(reply: str) -> Grid | Unreadable:
    digits = tuple(int(character) for character in reply if character.isdigit())
    return (digits,) if digits else Unreadable(reason="no digits")


def test_candidates_come_in_the_order_in_which_they_were_found_first() -> None:
    finds = [Find(view=view, grid=((n,),), nll=nll) for view, n, nll in (("a", 2, 0.5), ("a", 1, 0.7), ("b", 2, 0.1), ("c", 3, 0.0))]
    assert [(c.grid, c.search_nll) for c in candidates_of(finds)] == [(((2,),), (0.5, 0.1)), (((1,),), (0.7,)), (((3,),), (0.0,))]


def test_kaggle_passes_on_the_grid_with_the_largest_sum() -> None:
    often, once = ((1,),), ((2,),)
    finds = [Find(view="a", grid=once, nll=0.1), Find(view="b", grid=often, nll=1.0), Find(view="c", grid=often, nll=1.2)]
    assert GUESSES["largest_sum"](finds) == often
    assert GUESSES["lowest_nll"](finds) == once
    assert GUESSES["largest_sum"]([]) is GUESSES["lowest_nll"]([]) is None
    rare = [Find(view="a", grid=once, nll=0.1), Find(view="b", grid=often, nll=2.95), Find(view="c", grid=often, nll=2.95)]
    assert GUESSES["largest_sum"](rare) == once


def test_a_grid_that_two_replies_of_a_view_stand_for_is_found_once() -> None:
    replies = ViewReplies(view="a", reply_G=(("12", 2.0), ("3", 0.5), ("x", 0.1), ("12 ", 1.0)), invert=lambda grid: grid[::-1])
    found, bad = read_replies(replies, read)
    assert [(find.grid, find.nll) for find in found] == [(((1, 2),), 1.0), (((3,),), 0.5)]
    assert bad == (Unreadable(reason="no digits"),)


class Ramp:
    """Scores a reply by the sum of its tokens and the length of its prompt."""

    calls = 0

    async def score(self, groups: Sequence[TrainGroup], measure: Measure = JUST_LOGPROBS) -> tuple[tuple[TokenStats, ...], ...]:
        self.calls += 1
        return tuple(
            tuple(TokenStats(logprob_T=tuple(-float(t) * len(group.prefix_T) for t in row.token_T)) for row in group.row_G)
            for group in groups
        )


def test_experts_score_what_they_have_a_reply_for_in_one_call() -> None:
    experts = [
        Expert(view="a", prompt_T=(1,), reply_C=((1, 2), (3,))),
        Expert(view="none", prompt_T=(1,), reply_C=(None, None)),
        Expert(view="b", prompt_T=(1, 1), reply_C=(None, (3, 4))),
    ]
    scorer = Ramp()
    assert asyncio.run(score_experts(scorer, experts)) == ({"a": 3.0}, {"a": 3.0, "b": 14.0})
    assert scorer.calls == 1


def test_nobody_to_score_is_no_call() -> None:
    scorer = Ramp()
    assert asyncio.run(score_experts(scorer, [])) == ()
    assert asyncio.run(score_experts(scorer, [Expert(view="a", prompt_T=(1,), reply_C=(None,))])) == ({},)
    assert scorer.calls == 0
