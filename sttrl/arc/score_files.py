"""The files of ``python main.py score SUBMISSION SOLUTIONS``, and the text of the scores."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Final

from sttrl.arc.grids import as_grid, fault_of
from sttrl.arc.scores import Score, Solutions, check_submission, counted, first_attempts, kaggle, score
from sttrl.arc.submission import Submission, read_json, read_submission, shown_id
from sttrl.errors import DataError

ID_COLUMNS: Final = ("task_id", "name")
LEVEL_COLUMN: Final = "level"
LEVELS_HINT: Final = "Give a file such as marc's tasks_info.csv, with the columns task_id and level."


def read_both(submission: Path, solutions: Path) -> tuple[Submission, Solutions]:
    """A submission and the solutions of its tasks. Raises `DataError` for the first thing that is wrong with a file."""
    truths = read_solutions(solutions)
    return read_answers(submission, truths), truths


def read_answers(path: Path, truths: Solutions) -> Submission:
    """A submission to the tasks that have these solutions. Raises `DataError`."""
    given = read_submission(path)
    try:
        check_submission(given, truths)
    except DataError as error:
        raise DataError(f"{path}: {error.message}", error.hint) from error
    return given


def score_text(given: Submission, truths: Solutions) -> str:
    """The score of a submission by each rule, and what is missing."""
    result = score(given, truths)
    first = kaggle(first_attempts(given), truths)
    ratios = {**result.rules, "kaggle, attempt_1 only": first}
    lines = [f"{name:24}{ratio.numerator:>9.6g} / {ratio.denominator:<6g}{100 * ratio.value:6.2f} %" for name, ratio in ratios.items()]
    return "\n".join((*lines, *_missing(result)))


def _missing(result: Score) -> tuple[str, ...]:
    counts = {"task": result.missing_tasks, "test input": result.missing_outputs, "attempt": result.missing_attempts}
    return ("", "missing: " + ", ".join(counted(count, name) for name, count in counts.items()))


def read_solutions(path: Path) -> Solutions:
    """Kaggle's file of solutions: task id -> the output of each test input. Raises `DataError`."""
    solutions = {}
    for id, outputs in read_json(path, "solutions").items():
        if not isinstance(outputs, list) or not outputs:
            raise DataError(
                f"{path}, task {shown_id(id)} is not a list of grids.", "Give a file such as arc-agi_evaluation_solutions.json."
            )
        for number, output in enumerate(outputs, start=1):
            if fault := fault_of(output):
                raise DataError(
                    f"{path}, task {shown_id(id)}, test input {number} has no grid: {fault}.", "Give rows of colours from 0 to 9."
                )
        solutions[id] = tuple(map(as_grid, outputs))
    if not solutions:
        raise DataError(f"{path} has no solutions.", "Give a file such as arc-agi_evaluation_solutions.json.")
    return solutions


def read_levels(path: Path) -> dict[str, str]:
    """marc's ``tasks_info.csv``: task id -> level, by the columns ``task_id`` (or ``name``) and ``level``. Raises `DataError`."""
    try:
        rows = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines()))
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror or error}.", LEVELS_HINT) from error
    except (ValueError, csv.Error) as error:
        raise DataError(f"{path} is no CSV: {error}.", LEVELS_HINT) from error
    header = [name.strip() for name in rows[0]] if rows else []
    named = next((name for name in ID_COLUMNS if name in header), None)
    if named is None or LEVEL_COLUMN not in header:
        raise DataError(f"{path} has the columns {', '.join(header)[:100] or 'of an empty file'}.", LEVELS_HINT)
    id_place, level_place = header.index(named), header.index(LEVEL_COLUMN)
    levels: dict[str, str] = {}
    for number, row in enumerate(rows[1:], start=2):
        if row and len(row) != len(header):
            raise DataError(f"{path}, line {number} has {counted(len(row), 'cell')}, and the header {len(header)}.", LEVELS_HINT)
        if row and levels.setdefault(row[id_place].strip(), row[level_place].strip()) != row[level_place].strip():
            raise DataError(f"{path}, line {number}: task {shown_id(row[id_place])} has another level before.", "Give each task one level.")
    return levels
