"""What the codecs share about rows of cells: writing them as digits, and checking what was read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sttrl.arc.codecs.base import Unreadable
from sttrl.arc.grids import Grid, as_grid, fault_of
from sttrl.arc.tasks import Pair, Puzzle
from sttrl.errors import DataError

DIGITS = "0123456789"


def digit_rows(grid: Grid, separator: str = "\n") -> str:
    """A grid as rows of digits without spaces."""
    return separator.join("".join(map(str, row)) for row in grid)


def digits_of(lines: Iterable[str]) -> list[list[int]]:
    """The digits of each line, whatever else is on it; lines without digits are left out."""
    rows = ([int(character) for character in line if character in DIGITS] for line in lines)
    return [row for row in rows if row]


def checked(rows: Sequence[Sequence[int]]) -> Grid | Unreadable:
    """The grid of these rows, or what is wrong with them."""
    if not rows:
        return Unreadable(reason="no cells")
    fault = fault_of([list(row) for row in rows])
    return as_grid(rows) if fault is None else Unreadable(reason=fault)


def until(reply: str, end: str) -> str:
    """The part of a reply before the end mark."""
    return reply.partition(end)[0] if end else reply


def with_query(puzzle: Puzzle) -> tuple[tuple[Pair, ...], Grid, Grid | None]:
    """Demonstrations, query and answer; without a query the last demonstration becomes both. Raises `DataError` if there is none."""
    if puzzle.query is not None:
        return puzzle.demos, puzzle.query, puzzle.answer
    if not puzzle.demos:
        raise DataError("A puzzle has no query and no demonstrations.", "Give it one of the two.")
    return puzzle.demos[:-1], puzzle.demos[-1].input, puzzle.demos[-1].output
