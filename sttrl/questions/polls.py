"""How many samples a number of tokens allows: the arithmetic of a vote with the tokens that adapting took."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, sqrt
from statistics import fmean, pstdev

from sttrl.types import Rollout


def enough(tokens: int, lengths: Sequence[int]) -> int:
    """How many samples take at least so many tokens, very likely.

    Responses vary as those of these lengths; the expected sum is two standard deviations above the number of tokens. A few samples too
    many cost less than a second round.
    """
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
