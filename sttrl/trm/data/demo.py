"""Data sets that the project makes itself, small enough to train on a CPU in minutes: Sudoku 4x4, and ARC-like rules.

``sudoku4``: every puzzle has one solution. Train and test are apart by solved board: 200 of the 288 are for training, and the variants of
training puzzles stay among those 200.

``rules``: a rule moves a 4x4 grid by one of the eight symmetries and exchanges its four colours in one of three ways, 24 rules in all. 20
are trained on; ``rules-held-out`` has the four others, each with its demonstrations (train) and its test pairs (test). Each symmetry and
each exchange of colours occurs in training; the held-out combinations do not. No input occurs twice, whatever the rule or the split.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sttrl.errors import UsageError
from sttrl.trm.data.arguments import BuildDemo
from sttrl.trm.data.canvas import FIRST_COLOUR
from sttrl.trm.data.format import BLANK, Array, new_dataset, save_names
from sttrl.trm.data.moves import moved
from sttrl.trm.data.pairs import write_pairs
from sttrl.trm.data.sudoku_boards import draw_symmetry, solved_4x4

SUDOKU_NAME, RULES_NAME, HELD_OUT_NAME = "sudoku4", "rules", "rules-held-out"
"""The folders of the data sets."""

TRAIN_BOARDS = 200
"""How many of the 288 solved boards are for training."""
GIVENS = (4, 5, 6)
"""How many cells of a puzzle are given; 4 is the fewest with which a puzzle can have one solution."""
_DISTINCT_PUZZLES = 10_000
"""The most puzzles or pairs that can be asked for. The 88 test boards have more different puzzles than this."""

SIDE, COLOURS = 4, 4
"""Grids of rules: their side and their colours. Tokens are as in ARC data sets."""
EXCHANGES = ((0, 1, 2, 3), (1, 2, 3, 0), (2, 0, 3, 1))
"""What the colours 0 to 3 become, in the three ways."""
HELD_OUT = ((1, 1), (3, 2), (4, 0), (6, 1))
"""The four held-out rules: symmetry, exchange of colours."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A symmetry (0 to 7, see `sttrl.trm.data.moves`) and then an exchange of colours."""

    symmetry: int
    exchange: tuple[int, ...]

    @property
    def name(self) -> str:
        """The name in identifiers.json: ``t1c1230``."""
        return f"t{self.symmetry}c{''.join(map(str, self.exchange))}"

    def apply(self, grid: Array) -> Array:
        """The output of a grid (4, 4)."""
        output: Array = np.asarray(self.exchange, dtype=np.uint8)[moved(grid, self.symmetry)]
        return output


RULES = tuple(Rule(symmetry=symmetry, exchange=exchange) for symmetry in range(8) for exchange in EXCHANGES)
"""All 24 rules."""
HELD_OUT_RULES = tuple(Rule(symmetry=symmetry, exchange=EXCHANGES[number]) for symmetry, number in HELD_OUT)
TRAIN_RULES = tuple(rule for rule in RULES if rule not in HELD_OUT_RULES)


def build_demo(wish: BuildDemo) -> tuple[Path, ...]:
    """Write the data sets and return their folders. Raises UsageError for sizes that cannot be met."""
    _check(wish)
    folders: list[Path] = []
    if wish.kind in ("all", "sudoku4"):
        folders.append(build_sudoku4(wish))
    if wish.kind in ("all", "rules"):
        folders += build_rules(wish)
    return tuple(folders)


def build_sudoku4(wish: BuildDemo) -> Path:
    """Write the data set of Sudoku 4x4, and return its folder."""
    draws = np.random.RandomState(np.random.MT19937(np.random.SeedSequence((wish.seed, 4))))
    boards = solved_4x4()
    draws.shuffle(boards)
    train, test = boards[:TRAIN_BOARDS], boards[TRAIN_BOARDS:]
    known = {board.tobytes() for board in train}
    train_puzzles = _distinct_puzzles(train, boards, wish.train_puzzles, draws)
    test_puzzles = _distinct_puzzles(test, boards, wish.test_puzzles, draws)
    groups = [_with_variants(*puzzle, known=known, variants=wish.num_aug, draws=draws) for puzzle in train_puzzles]
    folder = wish.output_dir / SUDOKU_NAME
    with new_dataset(folder) as temporary:
        for split, found in (("train", groups), ("test", [[puzzle] for puzzle in test_puzzles])):
            # A token is a digit + 1; an empty cell is 1.
            pairs = [(puzzle + 1, solution + 1) for group in found for puzzle, solution in group]
            write_pairs(temporary / split, pairs, groups=len(found), variants=len(found[0]), vocabulary=6)
        save_names(temporary, [BLANK], None)
    return folder


def build_rules(wish: BuildDemo) -> tuple[Path, Path]:
    """Write the data sets of the 20 rules and of the 4 held-out ones, and return their folders."""
    draws = np.random.Generator(np.random.PCG64(np.random.SeedSequence((wish.seed, 20))))
    seen: set[bytes] = set()
    folders = []
    for name, rules, trained in ((RULES_NAME, TRAIN_RULES, wish.pairs), (HELD_OUT_NAME, HELD_OUT_RULES, wish.demos)):
        folder = wish.output_dir / name
        tasks: dict[str, dict[str, Any]] = {rule.name: {} for rule in rules}
        with new_dataset(folder) as temporary:
            for split, count in (("train", trained), ("test", wish.tests)):
                found = {rule: [(grid, rule.apply(grid)) for grid in _new_grids(draws, count, seen)] for rule in rules}
                _write_rules(temporary / split, found)
                for rule, pairs in found.items():
                    tasks[rule.name][split] = [{"input": given.tolist(), "output": wanted.tolist()} for given, wanted in pairs]
            save_names(temporary, [BLANK, *tasks], tasks)
        folders.append(folder)
    return folders[0], folders[1]


def _write_rules(folder: Path, found: Mapping[Rule, Sequence[tuple[Array, Array]]]) -> None:
    """Each pair is a group of its own, so that the pairs of a batch are from all rules."""
    pairs = [(given.ravel() + FIRST_COLOUR, wanted.ravel() + FIRST_COLOUR) for each in found.values() for given, wanted in each]
    identifiers = [number for number, each in enumerate(found.values(), start=1) for _ in each]
    vocabulary = COLOURS + FIRST_COLOUR
    write_pairs(folder, pairs, groups=len(pairs), variants=1, vocabulary=vocabulary, identifiers=identifiers, rows=len(found) + 1)


def _check(wish: BuildDemo) -> None:
    for name in ("train_puzzles", "test_puzzles", "pairs", "demos", "tests"):
        value = getattr(wish, name)
        if not 1 <= value <= _DISTINCT_PUZZLES:
            raise UsageError(f"--{name} is {value}.", f"Use a number from 1 to {_DISTINCT_PUZZLES}.")
    if not 0 <= wish.num_aug <= 1000 or wish.seed < 0:
        raise UsageError(f"--num_aug is {wish.num_aug} and --seed is {wish.seed}.", "Use 0 to 1000 variants, and a seed of 0 or more.")


def _distinct_puzzles(boards: Array, all_boards: Array, count: int, draws: np.random.RandomState) -> list[tuple[Array, Array]]:
    """Different puzzles of some boards with their solutions. A puzzle has one solution: exactly one of all boards fits its givens."""
    found: dict[bytes, tuple[Array, Array]] = {}
    while len(found) < count:
        givens = draws.choice(GIVENS)
        while True:
            solution = boards[draws.randint(len(boards))]
            cells = draws.permutation(solution.size)[:givens]
            if np.count_nonzero((all_boards[:, cells] == solution[cells]).all(axis=1)) == 1:
                break
        puzzle = np.zeros_like(solution)
        puzzle[cells] = solution[cells]
        found.setdefault(puzzle.tobytes(), (puzzle, solution))
    return list(found.values())


def _with_variants(
    puzzle: Array, solution: Array, *, known: set[bytes], variants: int, draws: np.random.RandomState
) -> list[tuple[Array, Array]]:
    """A puzzle and variants of it whose solutions are among the known boards."""
    group = [(puzzle, solution)]
    while len(group) < variants + 1:
        symmetry = draw_symmetry(draws, box=2)
        changed = symmetry.apply(solution).astype(np.uint8)
        if changed.tobytes() in known:
            group.append((symmetry.apply(puzzle).astype(np.uint8), changed))
    return group


def _new_grids(draws: np.random.Generator, count: int, seen: set[bytes]) -> Iterable[Array]:
    """Random grids that were not drawn before."""
    drawn = 0
    while drawn < count:
        grid = draws.integers(0, COLOURS, size=(SIDE, SIDE), dtype=np.uint8)
        if grid.tobytes() not in seen:
            seen.add(grid.tobytes())
            drawn += 1
            yield grid
