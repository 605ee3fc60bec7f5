"""Candidates: the distinct grids that were found for one test input under several views, in the space of the task."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from sttrl.arc.codecs.base import Unreadable
from sttrl.arc.grids import Grid

BASELINE_PROB: Final = 0.05
"""What Kaggle's sum of log-probs is counted from (da-fr/arc-prize-2024, Kaggle notebook)."""


@dataclass(frozen=True, kw_only=True)
class Find:
    """A grid that a search found under a view. ``nll``: of its reply, in nats.

    ``group``: the views that vote together in marc's vote; None: the views that do not transform the grid.
    """

    view: str
    grid: Grid
    nll: float
    group: str | None = None


@dataclass(frozen=True, kw_only=True)
class ViewReplies:
    """What a search found under one view: texts with their NLLs, and how to map a grid back to the space of the task."""

    view: str
    reply_G: tuple[tuple[str, float], ...]
    invert: Callable[[Grid], Grid]
    group: str | None = None


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A distinct grid. ``find_F``: in the order found, one a view. ``expert_nll``: its NLL under each view of the product of experts."""

    grid: Grid
    find_F: tuple[Find, ...]
    expert_nll: dict[str, float] = field(default_factory=dict)

    @property
    def search_nll(self) -> tuple[float, ...]:
        """The NLLs of the search, in the order found."""
        return tuple(find.nll for find in self.find_F)


def read_replies(replies: ViewReplies, read: Callable[[str], Grid | Unreadable]) -> tuple[tuple[Find, ...], tuple[Unreadable, ...]]:
    """The grids of a view's replies, in their order, and the replies without a grid.

    A grid that several replies stand for is found once, with the lowest NLL.
    """
    finds: dict[Grid, Find] = {}
    bad: list[Unreadable] = []
    for text, nll in replies.reply_G:
        grid = read(text)
        if isinstance(grid, Unreadable):
            bad.append(grid)
            continue
        grid = replies.invert(grid)
        if grid not in finds or nll < finds[grid].nll:
            finds[grid] = Find(view=replies.view, grid=grid, nll=nll, group=replies.group)
    return tuple(finds.values()), tuple(bad)


def candidates_of(finds: Sequence[Find]) -> tuple[Candidate, ...]:
    """The distinct grids in the order in which they were found first."""
    of_grid: dict[Grid, list[Find]] = {}
    for find in finds:
        of_grid.setdefault(find.grid, []).append(find)
    return tuple(Candidate(grid=grid, find_F=tuple(found)) for grid, found in of_grid.items())


def promising(candidates: Sequence[Candidate], most: int) -> tuple[Candidate, ...]:
    """The candidates found under most views, then the likeliest, at most ``most``; in the order in which they were found first."""
    best = sorted(candidates, key=lambda candidate: (-len(candidate.find_F), min(candidate.search_nll)))[:most]
    return tuple(candidate for candidate in candidates if candidate in best)


def with_experts(candidates: Sequence[Candidate], nll_C: Sequence[dict[str, float]]) -> tuple[Candidate, ...]:
    """The candidates with their NLLs under the views of the product of experts, in the same order."""
    return tuple(replace(candidate, expert_nll=nll) for candidate, nll in zip(candidates, nll_C, strict=True))


def lowest_nll(finds: Sequence[Find]) -> Grid | None:
    """The grid of the find with the lowest NLL so far; of equal ones the first (ARChitects 2024 and 2025)."""
    return min(finds, key=lambda find: find.nll).grid if finds else None


def largest_sum(finds: Sequence[Find]) -> Grid | None:
    """The grid with the largest sum over its finds of log p - log 0.05; of equal ones the one found first (Kaggle 2024)."""
    sums: dict[Grid, float] = {}
    for find in finds:
        sums[find.grid] = sums.get(find.grid, 0.0) - find.nll - math.log(BASELINE_PROB)
    return max(sums, key=lambda grid: sums[grid]) if sums else None


GUESSES: Final[dict[str, Callable[[Sequence[Find]], Grid | None]]] = {
    "lowest_nll": lowest_nll,
    "largest_sum": largest_sum,
}
"""Which grid the search of the next view is given as a guess, from all finds so far; None before the first find."""
