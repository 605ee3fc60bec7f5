"""ARC grids as sequences of tokens: on a canvas of 30x30 cells, with an edge of end tokens below and to the right of the grid."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

CANVAS = 30
"""Rows and columns of the canvas."""
SEQUENCE = CANVAS * CANVAS
PAD, END, FIRST_COLOUR = 0, 1, 2
"""Tokens: outside the grid, its edge, and colour 0."""
VOCABULARY = FIRST_COLOUR + 10


def draw(canvas: npt.NDArray[np.uint8], grid: npt.NDArray[np.uint8], row: int, column: int) -> None:
    """Draw a grid into an empty canvas (900,), its first cell at the row and column. The edge is drawn where the canvas has room for it."""
    square = canvas.reshape(CANVAS, CANVAS)
    below, right = row + grid.shape[0], column + grid.shape[1]
    square[row:below, column:right] = grid + FIRST_COLOUR
    if below < CANVAS:
        square[below, column:right] = END
    if right < CANVAS:
        square[row:below, right] = END
