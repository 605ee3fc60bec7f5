"""Sudokus as ARC tasks: demonstrations are puzzles with their solutions, the test input is another puzzle, and 0 is an empty cell.

Product of Experts (arXiv 2505.07859) does so: 8 demonstrations in training, 1 in the evaluation. The symmetries of the square and the
permutations of the digits 1 to 9, with 0 kept, map a Sudoku to a Sudoku, so the views of an ARC task are valid.
"""

from __future__ import annotations

import json
from math import isqrt
from pathlib import Path

import numpy as np

from sttrl.errors import DataError, UsageError
from sttrl.ledger.files import write_text
from sttrl.trm.data.arguments import BuildSudokuTasks
from sttrl.trm.data.csv_files import Boards, find_file, read_boards, subsample
from sttrl.trm.data.format import Array
from sttrl.trm.data.sudoku import digits_of

CHALLENGES, SOLUTIONS, TRAIN = "sudoku_challenges.json", "sudoku_solutions.json", "train"
PAIRS = "sudoku.json"
Pair = dict[str, list[list[int]]]


def build_sudoku_tasks(wish: BuildSudokuTasks) -> str:
    """Write challenges, solutions and training pairs, and return the text to print.

    Raises DataError or DataRowError for bad files, UsageError for flags without a meaning.
    """
    for name in ("tasks", "demos", "subsample_size"):
        if getattr(wish, name) < 1:
            raise UsageError(f"--{name} is {getattr(wish, name)}.", "Use 1 or more.")
    check_ours(wish.output_dir)
    draws = np.random.RandomState(np.random.MT19937(np.random.SeedSequence(wish.seed)))
    boards = {split: read_boards(find_file(wish.source_repo, split), wish.min_difficulty) for split in ("train", "test")}
    train, test = (
        pairs_of(subsample(boards[split], size, draws)) for split, size in (("train", wish.subsample_size), ("test", wish.tasks))
    )
    if len(train) < 2 * wish.demos:
        has = f"{boards['train'].file} has {len(train)} puzzles"
        raise DataError(f"{has}, too few to show {wish.demos} and train on others.", "Use fewer --demos.")
    # At most a half is for demonstrations, so that no task shows what is trained on.
    room = min(len(train) // 2, wish.demos * len(test))
    shown, trained = train[:room], train[room:]
    names = [f"sudoku-{number:05}" for number in range(len(test))]
    tasks = {
        name: {
            "train": [shown[number] for number in draws.choice(room, size=wish.demos, replace=False)],
            "test": [{"input": pair["input"]}],
        }
        for name, pair in zip(names, test, strict=True)
    }
    solutions = {name: [pair["output"]] for name, pair in zip(names, test, strict=True)}
    for place, value in ((f"{TRAIN}/{PAIRS}", trained), (SOLUTIONS, solutions), (CHALLENGES, tasks)):
        write_text(wish.output_dir / place, json.dumps(value) + "\n")
    return (
        f"{wish.output_dir}: {len(tasks)} tasks with {wish.demos} demonstrations, for --dataset\n"
        f"{wish.output_dir / TRAIN}: {len(trained)} pairs, for --train_dataset of finetune"
    )


def check_ours(folder: Path) -> None:
    """Raises DataError for a folder that holds anything but what this builder writes."""
    strange = sorted(path.name for path in folder.glob("*") if path.name not in (CHALLENGES, SOLUTIONS, TRAIN))
    if strange or folder.is_file():
        raise DataError(f"{folder} holds something else{f': {strange[0]}' if strange else ''}.", "Choose another --output-dir.")


def pairs_of(boards: Boards) -> list[Pair]:
    """The puzzles with their solutions as grids."""
    return [{"input": grid(puzzle), "output": grid(solution)} for puzzle, solution in zip(*digits_of(boards), strict=True)]


def grid(cells: Array) -> list[list[int]]:
    """A board in rows."""
    side = isqrt(len(cells))
    rows: list[list[int]] = cells.reshape(side, side).tolist()
    return rows
