"""Builds the data set of Sudoku puzzles from CSV files: 81 cells (9x9), or 16 (4x4). A token is a digit + 1; an empty cell is 1."""

from __future__ import annotations

from collections.abc import Iterator
from math import isqrt
from typing import Any

import numpy as np

from sttrl.errors import UsageError
from sttrl.trm.data.arguments import BuildSudoku
from sttrl.trm.data.csv_files import Boards, find_file, read_boards, subsample
from sttrl.trm.data.format import BLANK, Array, Metadata, check_replaceable, new_dataset, save_names
from sttrl.trm.data.pairs import write_pairs
from sttrl.trm.data.rooms import check_room
from sttrl.trm.data.sudoku_boards import draw_symmetry

BOXES = {16: 2, 81: 3}
"""The side of a box, by the number of cells of a board."""
EMPTY = b".0"
"""How files write an empty cell."""


def build_sudoku(wish: BuildSudoku) -> dict[str, Metadata]:
    """Build the data set, and return the metadata of its splits. The draws are the original's, under a seed.

    Raises DataError or DataRowError for bad files or too little room, UsageError for flags without a meaning.
    """
    _check(wish)
    boards = {split: read_boards(find_file(wish.source_repo, split), wish.min_difficulty) for split in ("train", "test")}
    draws = np.random.RandomState(wish.seed)
    boards["train"] = subsample(boards["train"], wish.subsample_size, draws)
    variants = {"train": wish.num_aug + 1, "test": 1}
    # Variants are int64 and plain digits uint8, as the original writes them.
    widths = {split: 8 if count > 1 else 1 for split, count in variants.items()}
    check_room(
        wish.output_dir,
        disk_bytes=sum(2 * widths[split] * variants[split] * each.questions.size for split, each in boards.items()),
        memory_bytes=sum(24 * variants[split] * len(each.questions) for split, each in boards.items()),
        remedy=f"Use a smaller --num-aug ({wish.num_aug} now), --subsample-size, or another --output-dir.",
    )
    digits = {split: digits_of(each) for split, each in boards.items()}
    cells = boards["train"].questions.shape[1]
    with new_dataset(wish.output_dir) as temporary:
        written = {
            split: write_pairs(
                temporary / split,
                _pairs(puzzles, solutions, variants[split], draws),
                groups=len(puzzles),
                variants=variants[split],
                vocabulary=isqrt(cells) + 2,
                dtype=np.int64 if widths[split] == 8 else np.uint8,
            )
            for split, (puzzles, solutions) in digits.items()
        }
        save_names(temporary, [BLANK], None)
    return written


def _check(wish: BuildSudoku) -> None:
    if wish.num_aug < 0 or not 0 <= wish.seed < 2**32:
        raise UsageError(f"--num_aug is {wish.num_aug} and --seed is {wish.seed}.", "Neither may be negative.")
    if wish.subsample_size is not None and wish.subsample_size < 1:
        raise UsageError(f"--subsample_size is {wish.subsample_size}.", "Use 1 or more.")
    check_replaceable(wish.output_dir)


def digits_of(boards: Boards) -> tuple[Array, Array]:
    """Puzzles and solutions as digits, 0 for empty. Raises DataRowError for the first board that is none."""
    questions = np.where(np.isin(boards.questions, list(EMPTY)), ord("0"), boards.questions) - ord("0")
    answers = boards.answers - ord("0")
    box = BOXES.get(questions.shape[1])
    if box is None:
        raise boards.fault(0, "question", f"it has {questions.shape[1]} cells, and a board has 81 or 16")
    side = box * box
    for field, values, least in (("question", questions, 0), ("answer", answers, 1)):
        wrong = ((values < least) | (values > side)).any(axis=1)  # a character below "0" wraps round to above the side
        _refuse(boards, wrong, field, f"it has a character other than {'. and ' if least == 0 else ''}{least} to {side}")
    _refuse(boards, ((questions > 0) & (questions != answers)).any(axis=1), "answer", "it contradicts a digit that is given")
    for lines in _lines(answers, box):
        repeated = (np.sort(lines, axis=-1) != np.arange(1, side + 1)).any(axis=(1, 2))
        _refuse(boards, repeated, "answer", "it is no solved board: a digit is twice in a row, column or box")
    return questions.astype(np.uint8), answers.astype(np.uint8)


def _refuse(boards: Boards, wrong: Any, field: str, problem: str) -> None:
    if wrong.any():
        raise boards.fault(int(np.flatnonzero(wrong)[0]), field, problem)


def _lines(answers: Array, box: int) -> Iterator[Array]:
    """The rows, the columns and the boxes of boards, each (boards, side, side)."""
    side = box * box
    square = answers.reshape(-1, side, side)
    yield square
    yield square.transpose(0, 2, 1)
    yield answers.reshape(-1, box, box, box, box).transpose(0, 1, 3, 2, 4).reshape(-1, side, side)


def _pairs(puzzles: Array, solutions: Array, variants: int, draws: np.random.RandomState) -> Iterator[tuple[Array, Array]]:
    """Tokens of each puzzle and its solution, then of its variants."""
    box = BOXES[puzzles.shape[1]]
    for puzzle, solution in zip(puzzles, solutions, strict=True):
        yield puzzle + 1, solution + 1
        for _ in range(variants - 1):
            symmetry = draw_symmetry(draws, box)
            yield symmetry.apply(puzzle) + 1, symmetry.apply(solution) + 1
