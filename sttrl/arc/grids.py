"""Grids: rectangles of cells with the colours 0 to 9."""

from __future__ import annotations

from collections.abc import Sequence

Grid = tuple[tuple[int, ...], ...]
"""Rows of colours, all of the same length, top row first."""

LONGEST_SIDE = 30
"""The most rows and the most columns of a grid."""
COLOURS = 10
"""Colours are the numbers 0 to 9."""
MISSING: Grid = ((0,),)
"""What a submission holds where there is no answer."""


def fault_of(value: object) -> str | None:
    """What is wrong with a value that should be a grid, without a full stop; None if it is a grid."""
    if not isinstance(value, list | tuple) or not value:
        return "not a list of rows" if not isinstance(value, list | tuple) else "a grid without rows"
    if len(value) > LONGEST_SIDE:
        return f"{len(value)} rows, and a grid has at most {LONGEST_SIDE}"
    for number, row in enumerate(value, start=1):
        if not isinstance(row, list | tuple) or not row:
            return f"row {number} is " + ("empty" if isinstance(row, list | tuple) else "not a list")
        if len(row) > LONGEST_SIDE:
            return f"row {number} has {len(row)} cells, and a grid has at most {LONGEST_SIDE} columns"
        if len(row) != len(value[0]):
            return f"row {number} has {len(row)} cells, and row 1 has {len(value[0])}"
        for column, cell in enumerate(row, start=1):
            if not isinstance(cell, int) or isinstance(cell, bool) or not 0 <= cell < COLOURS:
                return f"row {number}, column {column} is {cell!r}, and a colour is a number from 0 to {COLOURS - 1}"
    return None


def as_grid(value: Sequence[Sequence[int]]) -> Grid:
    """The grid of a value without faults."""
    return tuple(tuple(int(cell) for cell in row) for row in value)


def shape(grid: Grid) -> tuple[int, int]:
    """Rows and columns."""
    return len(grid), len(grid[0])
