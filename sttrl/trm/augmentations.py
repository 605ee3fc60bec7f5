"""What an identifier's name says of its puzzle: the task, the symmetry and the colours; and how grids are mapped back (numpy, no torch)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sttrl.arc.grids import COLOURS
from sttrl.arc.views.key import Colours
from sttrl.errors import DataError
from sttrl.trm.data.canvas import FIRST_COLOUR
from sttrl.trm.data.format import SEPARATOR
from sttrl.trm.data.moves import INVERSES, moved

Cells = NDArray[np.integer[Any]]
"""A grid or a token sequence as an array."""


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How a variant was made of a task. Colour c became ``digits[c]``."""

    task: str
    symmetry: int
    digits: tuple[int, ...]

    def undo(self, grid: Cells) -> Cells:
        """The grid of the task that the variant shows as the given one."""
        return self._colours_back[moved(grid, INVERSES[self.symmetry])]

    @cached_property
    def _colours_back(self) -> Cells:
        return np.argsort(np.asarray(self.digits))


@lru_cache(maxsize=4096)
def read_identifier(name: str) -> Augmentation:
    """The augmentation that an identifier names; a name without one is the task itself.

    Raises DataError for another form, and for colours that are no permutation: they could not be mapped back.
    """
    if SEPARATOR not in name:
        return Augmentation(task=name, symmetry=0, digits=tuple(range(COLOURS)))
    task, _, rest = name.partition(SEPARATOR)
    symmetry, _, digits = rest.partition(SEPARATOR)
    known = symmetry[:1] == "t" and symmetry[1:] in "01234567" and len(symmetry) == 2
    if not known or not (digits.isascii() and digits.isdigit()):
        raise DataError(f"The identifier {name!r} is not task|||t0 to t7|||ten digits.", "Build the data set again.")
    try:
        colours = Colours(digits=tuple(map(int, digits)))
    except DataError as error:
        raise DataError(f"The identifier {name!r} maps two colours to one, so it has no inverse.", "Build the data set again.") from error
    return Augmentation(task=task, symmetry=int(symmetry[1]), digits=colours.digits)


def grid_hash(grid: Cells) -> str:
    """The original's hash of a grid: SHA-256 of its rows, its columns and its cells, each as a byte."""
    rows, columns = grid.shape
    return hashlib.sha256(bytes((rows, columns)) + np.ascontiguousarray(grid, dtype=np.uint8).tobytes()).hexdigest()


def crop(tokens_BS: Cells) -> list[Cells]:
    """The grid of each canvas: the largest rectangle at the top left that holds colours only.

    A canvas is square, row by row. Of rectangles of one area the one with fewer rows is taken; a canvas that does not begin with a colour
    gives a grid of 0 rows and 0 columns. Any token but a colour ends a row, padding included.
    """
    tokens_BRC = tokens_BS.reshape(len(tokens_BS), *(canvas_side(tokens_BS.shape[1]),) * 2)
    coloured_BRC = (tokens_BRC >= FIRST_COLOUR) & (tokens_BRC < FIRST_COLOUR + COLOURS)
    width_BR = np.minimum.accumulate(np.logical_and.accumulate(coloured_BRC, axis=2).sum(axis=2), axis=1)
    area_BR = width_BR * np.arange(1, width_BR.shape[1] + 1)
    rows_B = area_BR.argmax(axis=1) + 1
    grids: list[Cells] = []
    for tokens_RC, width_R, rows in zip(tokens_BRC, width_BR, rows_B, strict=True):
        width = int(width_R[rows - 1])
        grids.append(tokens_RC[: rows if width else 0, :width].astype(np.int64) - FIRST_COLOUR)
    return grids


def canvas_side(seq_len: int) -> int:
    """The side of a square canvas of so many cells. Raises DataError where it is not square."""
    side = round(seq_len**0.5)
    if side * side != seq_len:
        raise DataError(
            f"Sequences of {seq_len} cells are no square canvas, so they hold no ARC grids.", "Use evaluators=[] for this data."
        )
    return side
