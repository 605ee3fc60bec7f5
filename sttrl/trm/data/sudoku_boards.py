"""Sudoku boards of any size: their symmetries, and the 288 solved boards of 4x4 cells."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np

from sttrl.trm.data.format import Array


@dataclass(frozen=True, kw_only=True)
class BoardSymmetry:
    """A change of a board that keeps it a Sudoku. ``cells``: the old cell that each new cell shows; ``digits``: the new digit of each."""

    cells: Array
    digits: Array

    def apply(self, board: Array) -> Array:
        """The board, with its cells in one row, after the change. 0 is an empty cell."""
        changed: Array = self.digits[board[self.cells]]
        return changed


def draw_symmetry(draws: np.random.RandomState, box: int) -> BoardSymmetry:
    """A random symmetry of boards with boxes of ``box`` x ``box`` cells; the draws are the original's, in its order."""
    side = box * box
    digits = np.concatenate([[0], draws.permutation(np.arange(1, side + 1))])
    transposed = draws.rand() < 0.5
    rows, columns = _lines(draws, box), _lines(draws, box)
    cells = rows[:, None] * side + columns[None, :]
    if transposed:
        cells = cells % side * side + cells // side
    return BoardSymmetry(cells=cells.ravel(), digits=digits)


def _lines(draws: np.random.RandomState, box: int) -> Array:
    """Rows, or columns, in a new order that keeps those of a band together."""
    return np.concatenate([band * box + draws.permutation(box) for band in draws.permutation(box)])


def solved_4x4() -> Array:
    """All 288 solved boards of 4x4 cells (288, 16), sorted."""
    rows = list(permutations(range(1, 5)))
    boards: list[tuple[tuple[int, ...], ...]] = [()]
    for _ in range(4):
        boards = [(*board, row) for board in boards for row in rows if _fits(board, row)]
    return np.array(boards, dtype=np.uint8).reshape(len(boards), 16)


def _fits(board: tuple[tuple[int, ...], ...], row: tuple[int, ...]) -> bool:
    """Whether a further row repeats no digit in a column or a box."""
    if any(above[column] == row[column] for above in board for column in range(4)):
        return False
    return len(board) % 2 == 0 or not any({*board[-1][half : half + 2]} & {*row[half : half + 2]} for half in (0, 2))
