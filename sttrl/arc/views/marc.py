"""The training sets and inference views of marc, "The Surprising Effectiveness of Test-Time Training for Abstract Reasoning".

Source: arXiv:2411.07279. Most of its training operations have no inverse, so they are functions of grids and no views.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from typing import TypeVar

from sttrl.arc.grids import COLOURS, LONGEST_SIDE, Grid, shape
from sttrl.arc.tasks import Pair, Puzzle
from sttrl.arc.views.draws import Dice
from sttrl.arc.views.key import Order, View, recolouring

Change = Callable[[Grid], Grid]
"""What an operation does to a grid."""
Item = TypeVar("Item")

TURN = View.read("rt")
HALF_TURN = View.read("rot180")
BACK_TURN = View.read("rot270")
FLIP_ROWS = View.read("flip0")
FLIP_COLUMNS = View.read("flip1")
TRANSPOSE = View.read("tp")


def beside(left: Grid, right: Grid) -> Grid:
    """Two grids of the same height, side by side."""
    return tuple(one + other for one, other in zip(left, right, strict=True))


def taller(grid: Grid) -> Grid:
    """Every row twice."""
    return tuple(row for row in grid for _ in range(2))


def wider(grid: Grid) -> Grid:
    """Every column twice."""
    return tuple(tuple(cell for cell in row for _ in range(2)) for row in grid)


def larger(grid: Grid) -> Grid:
    """Every cell as two by two cells."""
    return taller(wider(grid))


def rolled(grid: Grid, down: int, right: int) -> Grid:
    """The grid shifted; what leaves at one side enters at the other."""
    height, width = shape(grid)
    return tuple(tuple(grid[(row - down) % height][(column - right) % width] for column in range(width)) for row in range(height))


def enlarged(view: View) -> Change:
    """A view, then every cell as two by two cells."""
    return lambda grid: larger(view.apply(grid))


AUGMENTERS: dict[str, Change | None] = {
    "Rotate(90)": TURN.apply,
    "Rotate(270)": BACK_TURN.apply,
    "Rotate(180)": HALF_TURN.apply,
    "Flip(0)": FLIP_ROWS.apply,
    "Flip(1)": FLIP_COLUMNS.apply,
    "Reflect(0, reverse=True)": lambda grid: FLIP_ROWS.apply(grid) + grid,
    "Reflect(1, reverse=True)": lambda grid: beside(FLIP_COLUMNS.apply(grid), grid),
    "Reflect(0, reverse=False)": lambda grid: grid + FLIP_ROWS.apply(grid),
    "Reflect(1, reverse=False)": lambda grid: beside(grid, FLIP_COLUMNS.apply(grid)),
    "RandomTranslateXY()": None,
    "Transpose()": TRANSPOSE.apply,
    "IncreaseResolution(2)": larger,
    "IncreaseHeight(2)": taller,
    "IncreaseWidth(2)": wider,
    "Chain([Rotate(90), IncreaseResolution(2)])": enlarged(TURN),
    "Chain([Rotate(270), IncreaseResolution(2)])": enlarged(BACK_TURN),
    "Chain([Rotate(180), IncreaseResolution(2)])": enlarged(HALF_TURN),
    "Chain([Flip(0), IncreaseResolution(2)])": enlarged(FLIP_ROWS),
    "Chain([Flip(1), IncreaseResolution(2)])": enlarged(FLIP_COLUMNS),
    "Chain([Transpose(), IncreaseResolution(2)])": enlarged(TRANSPOSE),
    "Repeat(0, 2)": lambda grid: grid + grid,
    "Repeat(1, 2)": lambda grid: beside(grid, grid),
    "Repeat(2, 2)": lambda grid: beside(grid, grid) + beside(grid, grid),
}
"""The 23 training operations in marc's order, by marc's names. None: the random roll, which needs shifts."""

INFERENCE_VIEWS: dict[str, View] = {
    "Transpose()": TRANSPOSE,
    "Flip(0)": FLIP_ROWS,
    "Flip(1)": FLIP_COLUMNS,
    "Rotate(90)": TURN,
    "Rotate(180)": HALF_TURN,
}
"""The symmetries that marc asks under, by marc's names."""
LARGEST_SHIFT = 3


@dataclass(frozen=True, kw_only=True)
class Shifts:
    """How far the random roll moves inputs and outputs, in rows and columns. The two differ: marc draws them one by one."""

    input: tuple[int, int]
    output: tuple[int, int]


def draw_shifts(dice: Dice) -> Shifts:
    """Shifts from 1 to 3, the same for all examples of a task."""
    down, right, output_down, output_right = (1 + dice.below(LARGEST_SHIFT) for _ in range(4))
    return Shifts(input=(down, right), output=(output_down, output_right))


def changed(puzzle: Puzzle, of_input: Change, of_output: Change) -> Puzzle | None:
    """The puzzle with changed grids; None if one of them has more than 30 rows or columns."""
    result = Puzzle(
        demos=tuple(Pair(input=of_input(pair.input), output=of_output(pair.output)) for pair in puzzle.demos),
        query=None if puzzle.query is None else of_input(puzzle.query),
        answer=None if puzzle.answer is None else of_output(puzzle.answer),
    )
    return result if all(max(shape(grid)) <= LONGEST_SIDE for grid in grids_of(result)) else None


def augmented(puzzle: Puzzle, augmenter: str, shifts: Shifts) -> Puzzle | None:
    """The puzzle under one of AUGMENTERS; None if it gets larger than 30 by 30. ``shifts`` are for the random roll."""
    change = AUGMENTERS[augmenter]
    if change is not None:
        return changed(puzzle, change, change)
    return changed(puzzle, lambda grid: rolled(grid, *shifts.input), lambda grid: rolled(grid, *shifts.output))


def grids_of(puzzle: Puzzle) -> tuple[Grid, ...]:
    """All grids of a puzzle."""
    rest = tuple(grid for grid in (puzzle.query, puzzle.answer) if grid is not None)
    return tuple(grid for pair in puzzle.demos for grid in (pair.input, pair.output)) + rest


def colours_of(puzzle: Puzzle) -> frozenset[int]:
    """The colours that occur in a puzzle."""
    return frozenset(cell for grid in grids_of(puzzle) for row in grid for cell in row)


def colours_preferring_unused(used: frozenset[int], dice: Dice) -> View:
    """A random permutation of the colours: 0 stays, used colours become unused ones while there are any, the others change places."""
    shuffled = [1 + number for number in dice.permutation(COLOURS - 1)]
    mine, free = [colour for colour in shuffled if colour in used], [colour for colour in shuffled if colour not in used]
    rest = mine[len(free) :]
    return recolouring({0: 0} | dict(zip(mine, free, strict=False)) | dict(zip(rest, rest[1:] + rest[:1], strict=True)))


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Which demonstration is the query, and which of the others are shown."""

    query: int
    kept: tuple[int, ...]


def held_out_sets(demos: int, leave: int) -> tuple[HeldOut, ...]:
    """Each demonstration as the query of the others, without every choice of ``leave`` - 1 of them, in lexicographic order."""
    if leave > demos:
        return ()
    others = [[other for other in range(demos) if other != query] for query in range(demos)]
    return tuple(HeldOut(query=query, kept=kept) for query in range(demos) for kept in combinations(others[query], demos - leave))


def held_out_puzzles(demos: Sequence[Pair], leave: int) -> tuple[Puzzle, ...]:
    """The puzzles of ``held_out_sets``, with answers."""
    return tuple(
        Puzzle(demos=tuple(demos[number] for number in one.kept), query=demos[one.query].input, answer=demos[one.query].output)
        for one in held_out_sets(len(demos), leave)
    )


def distinct(items: Iterable[Item]) -> tuple[Item, ...]:
    """The items without repetitions, each where it came first."""
    return tuple(dict.fromkeys(items))


def with_augmenters(puzzles: Sequence[Puzzle], shifts: Shifts, augmenters: Iterable[str] = tuple(AUGMENTERS)) -> tuple[Puzzle, ...]:
    """The puzzles and what the augmenters make of them, without repetitions and without grids that are too large."""
    made = (augmented(puzzle, augmenter, shifts) for augmenter in augmenters for puzzle in puzzles)
    return distinct((*puzzles, *(puzzle for puzzle in made if puzzle is not None)))


def draw_view(puzzle: Puzzle, dice: Dice) -> View:
    """One pass of marc's permutations: colours that prefer unused ones, and the demonstrations in random order."""
    shown = View(ops=(Order(demos=dice.permutation(len(puzzle.demos))),))
    return colours_preferring_unused(colours_of(puzzle), dice).then(shown)


def with_permutations(puzzles: Sequence[Puzzle], draw: Callable[[Puzzle], View], passes: int = 1) -> tuple[Puzzle, ...]:
    """The puzzles, and each of them under a drawn view in every pass, without repetitions."""
    return distinct((*puzzles, *(draw(puzzle).on(puzzle) for _ in range(passes) for puzzle in puzzles)))


def training_set(demos: Sequence[Pair], leave: int, shifts: Shifts, dice: Dice, passes: int = 1) -> tuple[Puzzle, ...]:
    """All of marc's puzzles for training on a task: held-out demonstrations, augmented, then permuted."""
    augmented_ones = with_augmenters(held_out_puzzles(demos, leave), shifts)
    return with_permutations(augmented_ones, lambda puzzle: draw_view(puzzle, dice), passes)


def to_size(first: Sequence[Item], second: Sequence[Item], size: int, dice: Dice) -> tuple[Item, ...]:
    """The items to train on, of those that are short enough: ``first`` leaves one demonstration out, ``second`` leaves two.

    Too few of ``first`` are topped up with the head of ``second``; too many are shuffled and cut. None at all: all of ``second``, uncut.
    """
    if not first:
        return tuple(second)
    if len(first) > size:
        return tuple(first[number] for number in dice.permutation(len(first))[:size])
    return (*first, *second[: size - len(first)])


def adaptation_set(demos: Sequence[Pair], fits: Callable[[Puzzle], bool], dice: Dice, size: int) -> tuple[Puzzle, ...]:
    """The puzzles that marc trains on for a task: of those that are short enough, as many as ``to_size`` takes.

    ``fits`` says whether a puzzle is short enough for the model. ``size``: marc has 250.
    """
    shifts = draw_shifts(dice)
    first = tuple(puzzle for puzzle in training_set(demos, 1, shifts, dice) if fits(puzzle))
    others = filter(fits, training_set(demos, 2, shifts, dice) if len(first) < size else ())
    # Of the others only those are looked at that are needed: writing a puzzle as tokens takes time.
    second = tuple(islice(others, size - len(first)) if first and len(first) < size else others)
    return to_size(first, second, size, dice)


def drawn_puzzle(demos: Sequence[Pair], dice: Dice) -> Puzzle:
    """One puzzle for a training on many tasks: a demonstration held out, in half of the cases under one of the augmenters, and in half of
    them permuted (derived: marc trains on whole sets). An augmenter that makes it larger than 30 by 30 is not applied."""
    held_out = held_out_puzzles(demos, 1)
    puzzle, shifts = held_out[dice.below(len(held_out))], draw_shifts(dice)
    if dice.below(2):
        puzzle = augmented(puzzle, tuple(AUGMENTERS)[dice.below(len(AUGMENTERS))], shifts) or puzzle
    return draw_view(puzzle, dice).on(puzzle) if dice.below(2) else puzzle


def prompt_orders(demos: int, leave: int, shuffles: Mapping[tuple[int, ...], Sequence[Sequence[int]]]) -> tuple[View, ...]:
    """The orders to ask in: for every choice of all but ``leave`` demonstrations, as they are, then shuffled; without repetitions.

    ``shuffles``: for the numbers of the demonstrations kept, the permutations of their places.
    """
    kept = tuple(combinations(range(demos), demos - leave))
    found = (chosen for one in kept for chosen in (one, *(tuple(one[place] for place in places) for places in shuffles.get(one, ()))))
    return tuple(View(ops=(Order(demos=chosen),)) for chosen in distinct(found))


def draw_shuffles(demos: int, leave: int, dice: Dice, passes: int = 2) -> dict[tuple[int, ...], tuple[tuple[int, ...], ...]]:
    """Permutations for ``prompt_orders``: ``passes`` for every choice of demonstrations."""
    return {kept: tuple(dice.permutation(len(kept)) for _ in range(passes)) for kept in combinations(range(demos), demos - leave)}


def inference_views(orders: Sequence[View], choices: Mapping[str, int]) -> tuple[View, ...]:
    """The views to ask under: every order as it is, then each of INFERENCE_VIEWS with one order. ``choices``: which, by marc's name."""
    return (*orders, *(orders[choices[name]].then(view) for name, view in INFERENCE_VIEWS.items()))


def draw_choices(orders: Sequence[View], dice: Dice) -> dict[str, int]:
    """A random order for each of INFERENCE_VIEWS."""
    return {name: dice.below(len(orders)) for name in INFERENCE_VIEWS}


def drawn_prompts(demos: int, dice: Dice, leave: int = 1) -> tuple[View, ...]:
    """The views that marc asks a task under: without each choice of ``leave`` demonstrations, shuffled and under INFERENCE_VIEWS."""
    orders = prompt_orders(demos, leave, draw_shuffles(demos, leave, dice))
    return inference_views(orders, draw_choices(orders, dice))
