"""The eight symmetries of a grid as numpy arrays, by the original's numbers, which the names of puzzles hold (``|||t3|||``)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sttrl.trm.data.format import Array

MOVES: tuple[Callable[[Array], Array], ...] = (
    lambda grid: grid,
    lambda grid: np.rot90(grid, 1),
    lambda grid: np.rot90(grid, 2),
    lambda grid: np.rot90(grid, 3),
    np.fliplr,
    np.flipud,
    np.transpose,
    lambda grid: np.fliplr(np.rot90(grid, 1)),
)
"""0 to 3: turned so often counter-clockwise; 4: mirrored left to right; 5: top to bottom; 6: transposed; 7: at the other diagonal."""

INVERSES = (0, 3, 2, 1, 4, 5, 6, 7)
"""The symmetry that undoes each."""


def moved(grid: Array, symmetry: int) -> Array:
    """A grid after a symmetry."""
    return MOVES[symmetry](grid)
