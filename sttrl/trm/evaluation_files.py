"""The files of an evaluation: submission.json in the original's folder and form, the scores by every rule, the best candidates.

``evaluator_{name}_step_{n}/submission.json`` and ``step_{n}_all_preds.{rank}`` are the original's; scores.json and candidates.jsonl beside
the first are ours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sttrl.arc.grids import as_grid, fault_of
from sttrl.arc.scores import Ratio, Score, Solutions, first_attempts, kaggle, score
from sttrl.arc.selected import ATTEMPTS
from sttrl.arc.submission import SUBMISSION, Submission, read_json, shown_id
from sttrl.errors import DataError
from sttrl.ledger.files import json_line, write_json, write_text
from sttrl.trm.votes import Ballot, SubmissionFile, known_solutions, rank_of

ARC: Final = "ARC"
"""The evaluator's name in the names of its files."""
SCORES: Final = "scores.json"
CANDIDATES: Final = "candidates.jsonl"
KEPT_CANDIDATES: Final = 10
"""How many candidates of a test input candidates.jsonl keeps; its ``candidates`` counts all."""
FIRST_ONLY: Final = "attempt_1"
ORACLE: Final = "oracle"


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What an evaluation's files hold. ``score`` is None where no solution is known. ``remarks``: for the user, what it is not about."""

    folder: Path
    ballot: Ballot
    score: Score | None
    remarks: list[str]


def evaluation_folder(run: Path, name: str, step: int) -> Path:
    """The folder of an evaluator's files at a step: ``evaluator_ARC_step_7``."""
    return run / f"evaluator_{name}_step_{step}"


def write_evaluation(run: Path, name: str, step: int, ballot: Ballot, test_puzzles: Mapping[str, Any]) -> Evaluation:
    """Write the files of a vote below the run's folder, which is made if need be, and return what they hold.

    ``name`` is the evaluator's (ARC); of several data sets each has a name of its own.
    """
    folder = evaluation_folder(run, name, step)
    solutions = known_solutions(test_puzzles)
    result = rules_of(ballot, solutions)
    write_text(folder / SUBMISSION, json.dumps(ballot.submission))
    write_text(folder / CANDIDATES, "".join(_candidate_lines(ballot, solutions)))
    write_json(folder / SCORES, _scores(ballot, result, step))
    return Evaluation(folder=folder, ballot=ballot, score=result, remarks=_remarks(ballot, solutions))


def rules_of(ballot: Ballot, solutions: Solutions) -> Score | None:
    """The score by each rule of `sttrl.arc`, of the first attempts alone too, and the oracle; None without solutions.

    The oracle counts outputs that are among the candidates at all, each worth 1 over the outputs of its task.
    """
    if not solutions:
        return None
    given = as_submission(ballot.submission)
    known: Submission = {task: attempts for task, attempts in given.items() if task in solutions}
    result = score(known, solutions)
    found = [
        (rank_of(truth, ballot.ranking[task, index]) is not None) / len(outputs)
        for task, outputs in solutions.items()
        for index, truth in enumerate(outputs)
    ]
    more = {FIRST_ONLY: kaggle(first_attempts(known), solutions), ORACLE: Ratio(numerator=sum(found), denominator=len(solutions))}
    return Score(
        rules={**result.rules, **more},
        missing_tasks=result.missing_tasks,
        missing_outputs=result.missing_outputs,
        missing_attempts=result.missing_attempts,
    )


def as_submission(content: SubmissionFile) -> Submission:
    """A submission's file as `sttrl.arc` has it: the first two attempts of each test input, in the order of their numbers."""
    return {
        task: tuple(tuple(as_grid(entry[name]) for name in sorted(entry, key=_number)[:ATTEMPTS]) for entry in entries)
        for task, entries in content.items()
    }


def merge_submissions(files: Sequence[Path]) -> SubmissionFile:
    """One submission of several with different tasks, such as those of chunks of a test set.

    Attempts are put in the order of their numbers: attempt_10 comes after attempt_2. Raises DataError for a task in two files and for an
    attempt that is no grid.
    """
    merged: SubmissionFile = {}
    where: dict[str, Path] = {}
    for file in files:
        for task, entries in read_json(file, "a submission").items():
            if task in merged:
                raise DataError(f"Task {shown_id(task)} is in {where[task]} and in {file}.", "Give submissions with different tasks.")
            merged[task], where[task] = [_entry(entry, f"{file}, task {shown_id(task)}") for entry in _list(entries, file, task)], file
    return merged


def _list(entries: Any, file: Path, task: str) -> list[Any]:
    if not isinstance(entries, list):
        raise DataError(f"{file}, task {shown_id(task)} is not a list.", "Give a list with one entry for each test input.")
    return entries


def _entry(entry: Any, place: str) -> dict[str, list[list[int]]]:
    if not isinstance(entry, dict) or not entry or any(_number(name) < 1 for name in entry):
        raise DataError(f"{place} has an entry without attempts.", "Give attempt_1, attempt_2 and so on.")
    ordered = {name: entry[name] or [[0]] for name in sorted(entry, key=_number)}
    for name, grid in ordered.items():
        if fault := fault_of(grid):
            raise DataError(f"{place}, {name} is no grid: {fault}.", "Give rows of colours from 0 to 9; [[0]] stands for no attempt.")
    return ordered


def _number(name: str) -> int:
    """The number of an attempt's name; 0 for another name."""
    word, _, number = name.partition("_")
    return int(number) if word == "attempt" and number.isascii() and number.isdigit() else 0


def _scores(ballot: Ballot, result: Score | None, step: int) -> dict[str, Any]:
    rules = {} if result is None else {name: _plain(ratio) for name, ratio in result.rules.items()}
    return {"step": step, "metrics": ballot.metrics, "rules": rules, "outputs": ballot.outputs, "missing": ballot.missing}


def _plain(ratio: Ratio) -> dict[str, float]:
    return {"value": ratio.value, "numerator": ratio.numerator, "denominator": ratio.denominator}


def _candidate_lines(ballot: Ballot, solutions: Solutions) -> list[str]:
    """A line for each test input: how many candidates and votes it has, the rank of the right one, and the best ones."""
    lines = []
    for (task, index), votes in ballot.ranking.items():
        truth = solutions[task][index] if task in solutions else None
        line = {
            "task": task,
            "test_input": index,
            "candidates": len(votes),
            "votes": sum(vote.count for vote in votes),
            "rank_of_solution": None if truth is None else rank_of(truth, votes),
            "best": [{"grid": vote.grid, "count": vote.count, "mean_q": vote.mean_q} for vote in votes[:KEPT_CANDIDATES]],
        }
        lines.append(json_line(line, allow_nan=False))
    return lines


def _remarks(ballot: Ballot, solutions: Solutions) -> list[str]:
    """How many tasks have no scores, and test inputs no answer; votes that were left out."""
    tasks, known = len(ballot.submission), len(solutions)
    unknown = f"The scores are of {known} of {tasks} tasks; the outputs of the others are not known."
    missing = f"{ballot.missing} of {ballot.outputs} test inputs have no answer; [[0]] stands for it."
    unmatched = f"{ballot.unmatched} predictions belong to no test input of the data set: it and test_puzzles.json differ."
    return [unknown] * (0 < known < tasks) + [missing] * bool(ballot.missing) + [unmatched] * bool(ballot.unmatched)
