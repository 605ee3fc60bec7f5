"""Rewards of replies to a held-out demonstration, whose answer is known. Pure functions.

No published system that trains on ARC with reinforcement learning has public rewards to follow; the parts are named and weighted.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Final

from sttrl.arc.codecs.base import Unreadable
from sttrl.arc.grids import Grid, shape


@dataclass(frozen=True, kw_only=True)
class RewardParts:
    """A number for each part, as a weight or as a value in [0, 1].

    ``format``: a grid could be read. ``shape``: it has the answer's shape. ``cells``: share of equal cells, 0 where the shape is another.
    ``exact``: it is the answer.
    """

    format: float
    shape: float
    cells: float
    exact: float


DEFAULT_WEIGHTS: Final = RewardParts(format=0.1, shape=0.2, cells=0.7, exact=1.0)
"""A right answer is worth as much as everything else together, so that nearly right ones do not compete with it."""


def reward_parts(reply: Grid | Unreadable, answer: Grid) -> RewardParts:
    """The value of each part, in [0, 1]."""
    if isinstance(reply, Unreadable):
        return RewardParts(format=0.0, shape=0.0, cells=0.0, exact=0.0)
    if shape(reply) != shape(answer):
        return RewardParts(format=1.0, shape=0.0, cells=0.0, exact=0.0)
    pairs = [(a, b) for row, true_row in zip(reply, answer, strict=True) for a, b in zip(row, true_row, strict=True)]
    return RewardParts(format=1.0, shape=1.0, cells=sum(a == b for a, b in pairs) / len(pairs), exact=float(reply == answer))


def reward(reply: Grid | Unreadable, answer: Grid, weights: RewardParts = DEFAULT_WEIGHTS) -> float:
    """The weighted sum of the parts."""
    parts = reward_parts(reply, answer)
    total: float = sum(weight * value for weight, value in zip(astuple(weights), astuple(parts), strict=True))
    return total
