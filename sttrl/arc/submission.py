"""submission.json: two attempts for every test input of every task (Kaggle's ARC Prize)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sttrl.arc.grids import MISSING, Grid, fault_of
from sttrl.arc.selected import ATTEMPTS
from sttrl.arc.tasks import Task
from sttrl.errors import DataError
from sttrl.ledger.files import write_text

SUBMISSION = "submission.json"
"""The file of a run that is handed in."""

Submission = Mapping[str, tuple[tuple[Grid, ...], ...]]
"""Task id -> for each test input its attempts."""

Answers = Mapping[tuple[str, int], Sequence[Grid]]
"""(task id, index of the test input) -> its grids, best first. A test input without an answer may be left out."""


LONGEST_ID = 60
"""How many characters of a task id a message shows."""


@dataclass(frozen=True, kw_only=True)
class Filled:
    """How much of a submission is ``[[0]]`` because there was no answer.

    ``outputs``: test inputs. ``unanswered``: those without any attempt. ``attempts``: attempts that are missing, those of unanswered test
    inputs included.
    """

    outputs: int
    unanswered: int
    attempts: int


def build_submission(tasks: Sequence[Task], answers: Answers) -> tuple[Submission, Filled]:
    """A submission with every task and every test input of a data set, missing attempts filled with ``[[0]]``.

    Raises:
        ValueError: an answer to a test input that the tasks do not have, or one that is not a grid.
    """
    places = {task.id: [(task.id, index) for index in range(len(task.tests))] for task in tasks}
    if unknown := set(answers) - {place for inputs in places.values() for place in inputs}:
        raise ValueError(f"there is no test input {min(unknown)}")
    for place, grids in answers.items():
        for grid in grids[:ATTEMPTS]:
            if fault := fault_of(grid):
                raise ValueError(f"the answer to test input {place} is no grid: {fault}")
    given = {id: [tuple(answers.get(place, ())[:ATTEMPTS]) for place in inputs] for id, inputs in places.items()}
    counts = [len(attempts) for attempts_I in given.values() for attempts in attempts_I]
    filled = Filled(outputs=len(counts), unanswered=counts.count(0), attempts=ATTEMPTS * len(counts) - sum(counts))
    return {id: tuple(attempts + (MISSING,) * (ATTEMPTS - len(attempts)) for attempts in given[id]) for id in given}, filled


def as_json(submission: Submission) -> dict[str, list[dict[str, Any]]]:
    """A submission as its file holds it."""
    return {
        id: [{attempt_name(number): [list(row) for row in grid] for number, grid in enumerate(attempts, start=1)} for attempts in inputs]
        for id, inputs in submission.items()
    }


def attempt_name(number: int) -> str:
    """The key of an attempt, from 1."""
    return f"attempt_{number}"


def write_submission(path: Path, tasks: Sequence[Task], answers: Answers) -> Filled:
    """Write submission.json atomically, and read it back.

    Raises `JournalError` for a disk that cannot be written, and `DataError` if the file does not hold what was written.
    """
    submission, filled = build_submission(tasks, answers)
    write_text(path, json.dumps(as_json(submission)) + "\n")
    if read_submission(path) != submission:
        raise DataError(f"{path} does not hold the submission that was written.", "Check the disk, and run the same command again.")
    return filled


def read_submission(path: Path) -> Submission:
    """The attempts of a submission. Raises `DataError` for the first thing that is wrong with it."""
    value = read_json(path, "a submission")
    return {id: _attempts(inputs, f"{path}, task {shown_id(id)}") for id, inputs in value.items()}


def shown_id(id: str) -> str:
    """A task id for a message: on one line, and shortened if it is no id that a data set would have."""
    text = " ".join(id.split())
    return text if text.isprintable() and 0 < len(text) <= LONGEST_ID else f"{ascii(id)[:LONGEST_ID]}..."


def read_json(path: Path, what: str) -> dict[str, Any]:
    """A file with one JSON object of task ids. Raises `DataError`."""
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror or error}.", f"Give the file of {what}.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {str(error).splitlines()[0]}.", f"Give the file of {what}.") from error
    if not isinstance(value, dict):
        raise DataError(f"{path} is not {what}: it holds no JSON object of task ids.", "Give a file in Kaggle's format.")
    return value


def _attempts(inputs: object, place: str) -> tuple[tuple[Grid, ...], ...]:
    if not isinstance(inputs, list):
        raise DataError(f"{place} is not a list.", "Give a list with one entry for each test input.")
    return tuple(_entry(entry, f"{place}, test input {number}") for number, entry in enumerate(inputs, start=1))


def _entry(entry: object, place: str) -> tuple[Grid, ...]:
    if not isinstance(entry, dict):
        raise DataError(f"{place} is not an object with attempt_1 and attempt_2.", "Give both attempts.")
    names = [attempt_name(number) for number in range(1, ATTEMPTS + 1)]
    for name in names:
        if name not in entry:
            raise DataError(f"{place} has no {name}.", "Give both attempts; [[0]] stands for none.")
        if fault := fault_of(entry[name]):
            raise DataError(f"{place}, {name} is no grid: {fault}.", "Give rows of colours from 0 to 9; [[0]] stands for no attempt.")
    if extra := sorted(set(entry) - set(names)):
        raise DataError(f"{place} has {extra[0]!r}, and a test input has {' and '.join(names)} only.", "Leave it out.")
    return tuple(tuple(map(tuple, entry[name])) for name in names)
