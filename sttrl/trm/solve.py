"""Solves one task: adapts a checkpoint to its demonstrations, and reads the best answers from the vote."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from sttrl.arc.grids import Grid
from sttrl.errors import DataError
from sttrl.trm.adapt import Wish, adapt, newest_submission
from sttrl.trm.evaluation_files import CANDIDATES
from sttrl.trm.opened import Say


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The attempts for one test input, best first, with how many variants voted for each. ``number``: of the input, from 1."""

    task: str
    number: int
    attempts: tuple[Grid, ...]
    votes: tuple[int, ...]


def solve(wish: Wish, say: Say) -> tuple[tuple[Answer, ...], Path]:
    """The answers to the tasks of a file, and the run folder. Raises DataError, UsageError, DivergedError and JournalError."""
    adapted = adapt(wish, say)
    folder = adapted.folders[-1]
    file = newest_submission(folder)
    if file is None:
        raise DataError(f"{wish.data}: there is nothing to answer.", "Give a task with test inputs.")
    submission = json.loads(file.read_text(encoding="utf-8"))
    counts = counts_of(file.with_name(CANDIDATES))
    return tuple(
        Answer(
            task=task,
            number=number,
            attempts=tuple(tuple(map(tuple, grid)) for grid in entry.values()),
            votes=counts.get((task, number - 1), ()),
        )
        for task, entries in submission.items()
        for number, entry in enumerate(entries, start=1)
    ), folder


def counts_of(file: Path) -> dict[tuple[str, int], tuple[int, ...]]:
    """The votes of the best candidates of each test input."""
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return {(line["task"], line["test_input"]): tuple(candidate["count"] for candidate in line["best"]) for line in lines}
