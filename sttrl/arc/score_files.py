"""The files of ``python main.py score SUBMISSION SOLUTIONS``, and the text of the scores."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from sttrl.arc.grids import Grid, as_grid, fault_of
from sttrl.arc.scores import Ratio, Score, Solutions, check_submission, counted, first_attempts, kaggle, marc_evaluate, score
from sttrl.arc.submission import Submission, read_json, read_submission, shown_id
from sttrl.errors import DataError

ID_COLUMNS: Final = ("task_id", "name")
LEVEL_COLUMN: Final = "level"
NO_LEVEL: Final = "no level"
LEVELS_HINT: Final = "Give a file such as marc's tasks_info.csv, with the columns task_id and level."


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
    return "\n".join((*_lines({**result.rules, "kaggle, attempt_1 only": first}), *_missing(result)))


def marc_text(given: Submission, truths: Solutions, level_of: Mapping[str, str] | None = None) -> str:
    """What marc's evaluation prints, of all tasks and of the tasks of each level."""
    groups = {"all": truths, **({} if level_of is None else by_level(truths, level_of))}
    parts = ["\n".join((f"{name}: {counted(len(group), 'task')}", *_lines(marc_evaluate(given, group)))) for name, group in groups.items()]
    submitted, asked = sum(len(given.get(id, ())) for id in truths), sum(map(len, truths.values()))
    about = f"the {submitted} of {asked} test outputs that were submitted"
    remark = f"Numbers per prediction are about {about}: leaving hard ones out raises them."
    return "\n\n".join((*parts, remark) if submitted < asked else parts)


def by_level(truths: Solutions, level_of: Mapping[str, str]) -> dict[str, Solutions]:
    """The solutions of the tasks of each level, and of those without one; levels without tasks are left out."""
    names = (*(f"level {level}" for level in level_of.values()), NO_LEVEL)
    groups: dict[str, dict[str, tuple[Grid, ...]]] = {name: {} for name in names}
    for id, grids in truths.items():
        groups[f"level {level_of[id]}" if id in level_of else NO_LEVEL][id] = grids
    return {name: group for name, group in groups.items() if group}


def _lines(ratios: Mapping[str, Ratio]) -> list[str]:
    """A line for each score: its name, what it divides, and a percentage."""
    width = max(24, *(len(name) + 1 for name in ratios))
    return [f"{name:{width}}{ratio.numerator:>9.6g} / {ratio.denominator:<6g}{100 * ratio.value:6.2f} %" for name, ratio in ratios.items()]


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


def read_levels(path: Path, truths: Solutions) -> dict[str, str]:
    """marc's ``tasks_info.csv``: task id -> level, by the columns ``task_id`` (or ``name``) and ``level``.

    Raises `DataError` for the first thing that is wrong, and for a file without any of the tasks that have these solutions.
    """
    header, rows = _csv_rows(path)
    named = next((name for name in ID_COLUMNS if name in header), None)
    if named is None or LEVEL_COLUMN not in header:
        raise DataError(f"{path} has the columns {', '.join(header)[:100] or 'of an empty file'}.", LEVELS_HINT)
    levels: dict[str, str] = {}
    for number, row in enumerate(rows, start=2):
        if row and len(row) != len(header):
            raise DataError(f"{path}, line {number} has {counted(len(row), 'cell')}, and the header {len(header)}.", LEVELS_HINT)
        cells = dict(zip(header, row, strict=False))
        if row and levels.setdefault(cells[named], cells[LEVEL_COLUMN]) != cells[LEVEL_COLUMN]:
            raise DataError(f"{path}, line {number}: task {shown_id(cells[named])} has another level before.", "Give each task one level.")
    if levels.keys().isdisjoint(truths):
        raise DataError(f"{path} has none of the tasks of the solutions.", "Give the levels of the same data set.")
    return levels


def _csv_rows(path: Path) -> tuple[list[str], list[list[str]]]:
    """The header of a CSV file and its rows, without white space around cells."""
    try:
        rows = [[cell.strip() for cell in row] for row in csv.reader(path.read_text(encoding="utf-8-sig").splitlines())]
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror or error}.", LEVELS_HINT) from error
    except (ValueError, csv.Error) as error:
        raise DataError(f"{path} is no CSV: {error}.", LEVELS_HINT) from error
    return (rows[0], rows[1:]) if rows else ([], [])
