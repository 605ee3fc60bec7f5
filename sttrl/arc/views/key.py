"""A view: operations on grids, colours and the order of demonstrations, written as a key and read from it.

Two spellings are in use. ARChitects: ``tp``, ``rt``, ``perm0123456789``, ``ex2-0-1``. Kaggle 2024 and NVARC: ``transpose``, ``rot90``,
``permute0123456789``, ``ex201``. ``rt`` turns counter-clockwise, as numpy's rot90; ``perm`` makes colour c its digit c; ``ex`` chooses
demonstrations. ``flip0``, ``flip1``, ``rot180`` and ``rot270`` are read too, and written with ``tp`` and ``rt``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from sttrl.arc.grids import COLOURS, Grid
from sttrl.arc.tasks import Pair, Puzzle
from sttrl.errors import DataError

Dialect = Literal["architects", "kaggle"]
"""How a key is spelt."""
Symmetry = Literal["tp", "rt"]
"""Transpose, or a quarter turn counter-clockwise. Together they make all eight symmetries of a rectangle's grid."""


@dataclass(frozen=True, kw_only=True)
class Colours:
    """Colour c becomes ``digits[c]``. A permutation of the colours, else a DataError."""

    digits: tuple[int, ...]

    def __post_init__(self) -> None:
        if sorted(self.digits) != list(range(COLOURS)):
            text = "".join(map(str, self.digits))
            raise DataError(f"'perm{text}' maps two colours to one, so it has no inverse.", "Use every digit from 0 to 9 once.")


@dataclass(frozen=True, kw_only=True)
class Order:
    """The demonstrations to show, in this order, numbered from 0. It may leave some out."""

    demos: tuple[int, ...]


Operation = Symmetry | Colours | Order
"""One step of a view."""

WORDS: dict[str, tuple[Symmetry, ...]] = {
    "tp": ("tp",),
    "transpose": ("tp",),
    "rt": ("rt",),
    "rot90": ("rt",),
    "rot180": ("rt", "rt"),
    "rot270": ("rt", "rt", "rt"),
    "flip0": ("tp", "rt"),
    "flip1": ("tp", "rt", "rt", "rt"),
}
"""The words for symmetries. ``flip0`` reverses the rows' order, ``flip1`` each row."""
SPELLING: dict[Dialect, dict[str, str]] = {
    "architects": {"tp": "tp", "rt": "rt", "colours": "perm", "between": "-"},
    "kaggle": {"tp": "transpose", "rt": "rot90", "colours": "permute", "between": ""},
}
"""How each dialect writes an operation. ``between``: what stands between the numbers of demonstrations."""
COLOUR_WORD = re.compile(r"perm(?:ute)?([0-9]{10})")
"""Colours, in either spelling."""
ORDER_WORD = re.compile(r"ex((?:[0-9]{1,99}(?:-[0-9]{1,99})*)?)")
"""An order, in either spelling."""
KAGGLE_WORDS = ("transpose", "rot90", "permute")
"""A word that begins like one of these is in Kaggle's spelling."""


def transposed(grid: Grid) -> Grid:
    """Rows become columns."""
    return tuple(zip(*grid, strict=True))


def turned(grid: Grid) -> Grid:
    """A quarter turn counter-clockwise."""
    return tuple(zip(*grid, strict=True))[::-1]


MOVES: dict[Symmetry, Callable[[Grid], Grid]] = {"tp": transposed, "rt": turned}
"""What the symmetries do to a grid."""
UNDONE: dict[Symmetry, tuple[Symmetry, ...]] = {"tp": ("tp",), "rt": ("rt", "rt", "rt")}
"""What undoes them."""
PROBE: Grid = ((0, 1), (2, 3))
"""A grid that every symmetry changes differently."""
IDENTITY = "Identity"
"""The vote group of views that do not move the grid."""
VOTE_GROUPS: dict[Grid, str] = {
    ((0, 1), (2, 3)): IDENTITY,
    ((0, 2), (1, 3)): "Transpose",
    ((2, 3), (0, 1)): "Flip0",
    ((1, 0), (3, 2)): "Flip1",
    ((1, 3), (0, 2)): "Rot90",
    ((3, 2), (1, 0)): "Rot180",
    ((2, 0), (3, 1)): "Rot270",
    ((3, 1), (2, 0)): "AntiTranspose",
}
"""A symmetry's name, by what it makes of the probe."""


@dataclass(frozen=True, kw_only=True)
class View:
    """A sequence of operations, applied from left to right. Without any it changes nothing."""

    ops: tuple[Operation, ...] = ()

    @staticmethod
    def read(key: str, *, dialect: Dialect | None = None, ignore_unknown: bool = False) -> View:
        """The view of a key such as ``tp.rt.perm3150482976.ex2-0-1``. The empty key is the view that changes nothing.

        ``dialect`` matters for ``ex12`` only: ARChitects' demonstration 12, or Kaggle's 1 and 2. None: Kaggle's if the key has one of
        its words. ``ignore_unknown`` leaves out unknown words, as ARChitects does. Raises DataError for an unknown word.
        """
        words = key.split(".") if key else []
        if dialect is None:
            dialect = "kaggle" if any(word.startswith(KAGGLE_WORDS) for word in words) else "architects"
        ops: list[Operation] = []
        for word in words:
            read = _operations(word, dialect)
            if read is None and not ignore_unknown:
                known = f"{', '.join(WORDS)}, perm and 10 digits, ex and numbers of demonstrations"
                raise DataError(f"the view {key!r} has the unknown operation {word!r}.", f"Known: {known}.")
            ops += read or ()
        return View(ops=tuple(ops))

    @property
    def key(self) -> str:
        """The view's key in ARChitects' spelling; reading it gives the same view."""
        return self.written("architects")

    def written(self, dialect: Dialect) -> str:
        """The view's key in a dialect. Raises DataError where Kaggle's has no word: a demonstration's number has one digit there."""
        return ".".join(_word(op, dialect) for op in self.ops)

    def then(self, other: View) -> View:
        """This view, and the other one of its result."""
        return View(ops=self.ops + other.ops)

    def inverse(self) -> View:
        """The view that maps grids back. Orders of demonstrations are left out: what was dropped cannot come back."""
        return View(ops=tuple(undone for op in reversed(self.ops) for undone in _undone(op)))

    def apply(self, grid: Grid) -> Grid:
        """The grid in this view."""
        for op in self.ops:
            if isinstance(op, Colours):
                grid = tuple(tuple(op.digits[cell] for cell in row) for row in grid)
            elif not isinstance(op, Order):
                grid = MOVES[op](grid)
        return grid

    def invert(self, grid: Grid) -> Grid:
        """The grid of which this view shows the given one."""
        return self.inverse().apply(grid)

    def order(self, demos: int) -> tuple[int, ...]:
        """The numbers of the demonstrations shown, of ``demos``. Several orders compose: each chooses from the one before.

        Raises DataError where one asks for a demonstration that is not there.
        """
        chosen = tuple(range(demos))
        for op in self.ops:
            if isinstance(op, Order):
                missing = next((number for number in op.demos if number >= len(chosen)), None)
                if missing is not None:
                    hint = "Demonstrations are numbered from 0; Kaggle's spelling ex012 is read where dialect='kaggle' is given."
                    raise DataError(f"the view {self.key!r} asks for demonstration {missing} of {len(chosen)}.", hint)
                chosen = tuple(chosen[number] for number in op.demos)
        return chosen

    def on(self, puzzle: Puzzle) -> Puzzle:
        """The puzzle in this view: every grid transformed, the demonstrations in the view's order."""
        demos = tuple(puzzle.demos[number] for number in self.order(len(puzzle.demos)))
        return Puzzle(
            demos=tuple(Pair(input=self.apply(pair.input), output=self.apply(pair.output)) for pair in demos),
            query=None if puzzle.query is None else self.apply(puzzle.query),
            answer=None if puzzle.answer is None else self.apply(puzzle.answer),
        )

    @property
    def vote_group(self) -> str:
        """The group in which the view's answers vote: the name of the symmetry that maps them back, whatever the colours.

        For ``rt`` it is "Rot270", and "Identity" where the grid is not moved. Source: marc's hierarchical vote, arXiv:2411.07279.
        """
        moves = tuple(op for op in self.inverse().ops if isinstance(op, str))
        return VOTE_GROUPS[View(ops=moves).apply(PROBE)]


def _operations(word: str, dialect: Dialect) -> tuple[Operation, ...] | None:
    """The operations of one word of a key; None if it is no word."""
    if word in WORDS:
        return WORDS[word]
    if found := COLOUR_WORD.fullmatch(word):
        return (Colours(digits=tuple(int(digit) for digit in found[1])),)
    if (found := ORDER_WORD.fullmatch(word)) is None:
        return None
    numbers = found[1].split("-") if found[1] else []
    return (Order(demos=tuple(int(number) for number in (found[1] if dialect == "kaggle" and len(numbers) == 1 else numbers))),)


def _word(op: Operation, dialect: Dialect) -> str:
    spelling = SPELLING[dialect]
    if isinstance(op, Colours):
        return spelling["colours"] + "".join(map(str, op.digits))
    if isinstance(op, Order):
        if dialect == "kaggle" and max(op.demos, default=0) > 9:
            raise DataError(
                f"Kaggle's spelling has no demonstration {max(op.demos)}: one digit each.", "Write the key in ARChitects' spelling."
            )
        return "ex" + spelling["between"].join(map(str, op.demos))
    return spelling[op]


def _undone(op: Operation) -> tuple[Operation, ...]:
    if isinstance(op, Colours):
        return (Colours(digits=tuple(op.digits.index(colour) for colour in range(COLOURS))),)
    return () if isinstance(op, Order) else UNDONE[op]


def recolouring(targets: Mapping[int, int]) -> View:
    """The colour permutation that maps some colours as given; the others keep themselves where they can.

    Raises DataError where two colours get the same target.
    """
    digits = dict(targets) | {colour: colour for colour in range(COLOURS) if colour not in targets and colour not in targets.values()}
    left = iter([colour for colour in range(COLOURS) if colour not in digits.values()])
    digits |= {colour: next(left, colour) for colour in range(COLOURS) if colour not in digits}
    return View(ops=(Colours(digits=tuple(digits[colour] for colour in range(COLOURS))),))
