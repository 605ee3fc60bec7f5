"""Builds the data set of mazes from CSV files: square grids of walls (#), ways ( ), start (S), goal (G) and, in solutions, the path (o)."""

from __future__ import annotations

from collections.abc import Iterator
from math import isqrt

import numpy as np

from sttrl.errors import UsageError
from sttrl.trm.data.arguments import BuildMaze
from sttrl.trm.data.csv_files import Boards, find_file, read_boards, subsample
from sttrl.trm.data.format import BLANK, Array, Metadata, check_replaceable, new_dataset, save_names
from sttrl.trm.data.moves import MOVES, moved
from sttrl.trm.data.pairs import write_pairs
from sttrl.trm.data.rooms import check_room

CELLS = "# SGo"
"""What a cell can be, in the order of the tokens, which begin at 1."""
VOCABULARY = len(CELLS) + 1

_PATH = ord("o")


def build_maze(wish: BuildMaze) -> dict[str, Metadata]:
    """Build the data set, and return the metadata of its splits. The draws are the original's, under a seed.

    Raises DataError or DataRowError for bad files or too little room, UsageError for flags without a meaning.
    """
    if not 0 <= wish.seed < 2**32:
        raise UsageError(f"--seed is {wish.seed}.", "Use a number from 0 to 4294967295.")
    if wish.subsample_size is not None and wish.subsample_size < 1:
        raise UsageError(f"--subsample_size is {wish.subsample_size}.", "Use 1 or more.")
    check_replaceable(wish.output_dir)
    boards = {split: read_boards(find_file(wish.source_repo, split)) for split in ("train", "test")}
    boards["train"] = subsample(boards["train"], wish.subsample_size, np.random.RandomState(wish.seed))
    variants = {"train": len(MOVES) if wish.aug else 1, "test": 1}
    check_room(
        wish.output_dir,
        disk_bytes=sum(2 * variants[split] * each.questions.size for split, each in boards.items()),
        memory_bytes=sum(24 * variants[split] * len(each.questions) for split, each in boards.items()),
        remedy="Use a smaller --subsample-size, or another --output-dir.",
    )
    tokens = {split: _tokens(each) for split, each in boards.items()}
    with new_dataset(wish.output_dir) as temporary:
        written = {
            split: write_pairs(
                temporary / split,
                _pairs(*each, variants[split]),
                groups=len(each[0]),
                variants=variants[split],
                vocabulary=VOCABULARY,
            )
            for split, each in tokens.items()
        }
        save_names(temporary, [BLANK], None)
    return written


def _tokens(boards: Boards) -> tuple[Array, Array]:
    """Mazes and solutions as tokens. Raises DataRowError for the first maze that is none."""
    cells = boards.questions.shape[1]
    if isqrt(cells) ** 2 != cells:
        raise boards.fault(0, "question", f"it has {cells} cells, which is no square")
    token = np.zeros(256, dtype=np.uint8)
    token[list(CELLS.encode())] = np.arange(1, VOCABULARY)
    found = token[boards.questions], token[boards.answers]
    for field, values in zip(("question", "answer"), found, strict=True):
        wrong = (values == 0).any(axis=1)
        if wrong.any():
            raise boards.fault(int(np.flatnonzero(wrong)[0]), field, f"it has a character other than {CELLS!r}")
    off_path = (boards.answers != _PATH) & (boards.questions != _PATH)
    wrong = (off_path & (boards.answers != boards.questions)).any(axis=1)
    if wrong.any():
        raise boards.fault(int(np.flatnonzero(wrong)[0]), "answer", "it differs from the maze off the path")
    return found


def _pairs(mazes: Array, solutions: Array, variants: int) -> Iterator[tuple[Array, Array]]:
    """Each maze and its solution in so many symmetries, the first of which changes nothing."""
    side = isqrt(mazes.shape[1])
    for maze, solution in zip(mazes, solutions, strict=True):
        for symmetry in range(variants):
            given, wanted = (moved(cells.reshape(side, side), symmetry).ravel() for cells in (maze, solution))
            yield given, wanted
