"""marc's vote in two stages (The Surprising Effectiveness of Test-Time Training for Abstract Reasoning, arXiv 2411.07279).

Stage 1: the finds of each group of views, and those of all together, name three grids: the most frequent ones, then grids made of the
majority of rows and of columns. Stage 2: the grid that was named most often wins.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from itertools import groupby
from typing import Final, TypeVar

from sttrl.arc.candidates import Candidate, Find
from sttrl.arc.grids import Grid, shape
from sttrl.arc.selected import Selected

NAMED: Final = 3
"""Grids that each group names."""

T = TypeVar("T", bound=Hashable)


def marc_vote(candidates: Sequence[Candidate]) -> Selected:
    """Rank grids by how many groups name them; a group may name one twice. A grid that no view found may be among them.

    Of equal counts the grid that was found first is first, and grids that no view found come last. The published tie rule decides between
    the second and the third: the one with more finds in the group None is second, and the third where they have equally many; without
    that group nothing changes. A single grid is both attempts.
    """
    finds = in_order(candidates)
    groups = groups_of(finds)
    named = Counter(grid for grids in (*groups.values(), finds) for grid in name_grids(grids))
    ranked = [grid for grid, _ in named.most_common()]
    first = {find.grid: place for place, find in reversed(list(enumerate(finds)))}
    ranked.sort(key=lambda grid: (-named[grid], first.get(grid, len(finds))))
    tied = tuple(equal for _, run in groupby(ranked, key=lambda grid: named[grid]) if len(equal := tuple(run)) > 1)
    if None in groups and len(ranked) > 2 and named[ranked[1]] == named[ranked[2]]:
        votes = Counter(find.grid for find in groups[None])
        if votes[ranked[1]] <= votes[ranked[2]]:
            ranked[1], ranked[2] = ranked[2], ranked[1]
    ranked = ranked * 2 if len(ranked) == 1 else ranked
    return Selected(grid_R=tuple(ranked), score_R=tuple(float(named[grid]) for grid in ranked), tied=tied)


def in_order(candidates: Sequence[Candidate]) -> list[Find]:
    """All finds, the candidates' in turn."""
    return [find for candidate in candidates for find in candidate.find_F]


def groups_of(finds: Iterable[Find]) -> dict[str | None, list[Find]]:
    """The finds of each group of views."""
    groups: dict[str | None, list[Find]] = {}
    for find in finds:
        groups.setdefault(find.group, []).append(find)
    return groups


def name_grids(finds: Sequence[Find]) -> list[Grid]:
    """Three grids: the most frequent ones, then the majority of rows, then the majority of columns."""
    grids = [find.grid for find in finds]
    frequent = [grid for grid, _ in Counter(grids).most_common(NAMED)]
    made = [majority_rows(grids), majority_columns(grids)] if len(frequent) < NAMED and grids else []
    return [*frequent, *made][:NAMED]


def majority_rows(grids: Sequence[Grid]) -> Grid:
    """A grid of the most frequent shape, with the most frequent row at each place; of equally frequent ones the first.

    Grids with more or fewer rows count too, if they have as many columns.
    """
    rows, columns = most_frequent(shape(grid) for grid in grids)
    return tuple(most_frequent(grid[row] for grid in grids if len(grid) > row and len(grid[0]) == columns) for row in range(rows))


def majority_columns(grids: Sequence[Grid]) -> Grid:
    """The same with columns."""
    turned: list[Grid] = [tuple(zip(*grid, strict=True)) for grid in grids]
    return tuple(zip(*majority_rows(turned), strict=True))


def most_frequent(values: Iterable[T]) -> T:
    """The most frequent value; of equally frequent ones the first."""
    return Counter(values).most_common(1)[0][0]
