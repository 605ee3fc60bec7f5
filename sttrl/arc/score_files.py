"""The text of ``python main.py score SUBMISSION SOLUTIONS``."""

from __future__ import annotations

from pathlib import Path

from sttrl.arc.grids import as_grid, fault_of
from sttrl.arc.scores import Score, Solutions, check_submission, counted, first_attempts, kaggle, score
from sttrl.arc.submission import read_json, read_submission, shown_id
from sttrl.errors import DataError


def score_text(submission: Path, solutions: Path) -> str:
    """The score of a submission by each rule, and what is missing. Raises `DataError` for the first thing that is wrong with a file."""
    truths = read_solutions(solutions)
    given = read_submission(submission)
    try:
        check_submission(given, truths)
    except DataError as error:
        raise DataError(f"{submission}: {error.message}", error.hint) from error
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
