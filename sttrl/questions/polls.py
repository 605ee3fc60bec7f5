"""How many samples a budget of tokens allows, for the vote with the same tokens."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, sqrt
from statistics import fmean, pstdev

from sttrl.types import Rollout


def enough(tokens: int, lengths: Sequence[int]) -> int:
    """A number of samples that very likely have at least ``tokens`` tokens together. ``lengths``: of some earlier samples.

    With this number, the expected sum minus two standard deviations is ``tokens``. A few samples too many cost less than a second round of
    sampling.
    """
    mean, deviation = max(1.0, fmean(lengths)), pstdev(lengths)
    return ceil(((deviation + sqrt(deviation**2 + mean * tokens)) / mean) ** 2)


def within(rollouts: Sequence[Rollout], budget: int) -> Sequence[Rollout]:
    """The first rollouts, as many as fit the budget of response tokens; at least one."""
    spent = 0
    for count, rollout in enumerate(rollouts):
        spent += len(rollout.token_T)
        if spent > budget:
            return rollouts[: max(1, count)]
    return rollouts
