"""Chosen on one half of the questions, judged on the other: whether any policy or vote beats the confidence vote with the same tokens.

The best of many candidates on some questions looks better on these than it is. On the other questions it is judged without that advantage.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Final

from sttrl.errors import UsageError
from sttrl.ledger.evaluated import Score
from sttrl.ledger.records import FinishedQuestion
from sttrl.report.comparison import ComparedRun, differences
from sttrl.report.labels import Grades
from sttrl.report.layout import aligned, broken, number_or_nothing, p_value_or_nothing, with_interval
from sttrl.report.metrics import score_questions
from sttrl.report.read import read_run
from sttrl.report.statistics import interval_of_gain, interval_of_mean, p_value_of_gain
from sttrl.report.summary import summarise
from sttrl.report.view.sweeps import is_sweep, runs_below
from sttrl.sweep.rows import ScoredRun, differing_settings, sweep_rows

METRIC: Final = "maj@k"
WIDTH: Final = 120
_LEGEND: Final = (
    "maj@k, a question's over its seeds, then over the questions; 95 % intervals by question. Candidates: of every row the adapted policy, "
    "elected by majority or by confidence, and the base's majority vote with the tokens that adapting took. conf.: the base's confidence "
    "vote with the tokens of the chosen row. above: the judged one less conf., paired by question, and p of that. both: every question is "
    "judged by the choice of the other half. A question's half is a hash of its id."
)

Values = Mapping[str, float]
"""A number for each question, by its id."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What may be chosen: maj@k of one policy or vote by question, and that of the confidence vote with the same tokens."""

    name: str
    value_P: Values
    confidence_P: Values


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A choice and how it does on questions that it was not chosen on. ``chosen_P``: its values on the questions that it was chosen on."""

    name: str
    chosen_P: Values
    value_P: Values
    confidence_P: Values


def half_of(question_id: str) -> int:
    """The half of a question, 0 or 1: the first bit of a hash of its id, so that it is the same in every run and sweep."""
    return hashlib.sha256(question_id.encode("utf-8", "surrogatepass")).digest()[0] >> 7


def report_halves(folders: Sequence[Path], data_dir: Path | None = None) -> str:
    """The choices and how they are judged, as text. ``folders``: run folders, or folders of sweeps.

    Raises `UsageError` where nothing can be chosen, `JournalError` for a folder that holds no run.
    """
    runs = [folder for each in folders for folder in (runs_below(each) if is_sweep(each) else [each])]
    read = [read_run(folder, data_dir) for folder in runs]
    compared = [
        ComparedRun(name=str(r.folder), summary=summarise(r.finished, r.grades, r.seconds, r.config), config=r.config, finished=r.finished,
                    grades=r.grades)
        for r in read
    ]  # fmt: skip
    found = candidates(compared)
    warnings = [line for reason in differences(compared) for line in broken(f"Warning: not comparable: {reason}.", WIDTH)]
    return "\n".join([*warnings, *_lines(found, judge(found))])


def candidates(runs: Sequence[ComparedRun]) -> list[Candidate]:
    """The candidates of every row, a row being runs that differ only in their seed. Rows without votes with the same tokens have none."""
    scored = [
        ScoredRun(name=r.name, config=r.config, summary=r.summary, scores=score_questions(r.finished, r.grades), timed=0) for r in runs
    ]
    named = {run.name: run for run in runs}
    settings = [name for name in differing_settings([run.config for run in runs]) if name != "seed"] if len(runs) > 1 else []
    found: list[Candidate] = []
    for row in sweep_rows(scored, settings):
        values: dict[str, list[tuple[str, float]]] = {}
        for run in row.runs:
            for kind, pairs in _values(named[run.name]).items():
                values.setdefault(kind, []).extend(pairs)
        means = {kind: _means(pairs) for kind, pairs in values.items()}
        confidence_P = means.pop("confidence", {})
        found += [Candidate(name=f"{row.label}: {kind}", value_P=value_P, confidence_P=confidence_P) for kind, value_P in means.items()]
    return [each for each in found if each.confidence_P]


def judge(found: Sequence[Candidate]) -> tuple[Judged, Judged]:
    """The best candidate of each half, with its values on the other half.

    The best has the highest mean over the questions that all candidates have; of equals the first is taken. Raises `UsageError` where there
    is no candidate, or no question in a half.
    """
    if not found:
        raise UsageError(
            "--halves: no run has an adapted policy beside votes with the same tokens.",
            "Give runs of questions with labels, of a method that adapts, with --vote_same_tokens.",
        )
    shared = set.intersection(*({*each.value_P} & {*each.confidence_P} for each in found))
    halves = [sorted(question for question in shared if half_of(question) == half) for half in (0, 1)]
    if not shared:
        raise UsageError("--halves: there is no question that all runs have.", "Give runs with questions in common.")
    if not all(halves):
        raise UsageError("--halves: one half has no question that all runs have.", "Give runs with more questions in common.")
    first, second = (_judged(found, here, there) for here, there in (halves, halves[::-1]))
    return first, second


def _judged(found: Sequence[Candidate], here: Sequence[str], there: Sequence[str]) -> Judged:
    best = max(found, key=lambda each: round(fmean(each.value_P[question] for question in here), 12))
    return Judged(
        name=best.name,
        chosen_P={question: best.value_P[question] for question in here},
        value_P={question: best.value_P[question] for question in there},
        confidence_P={question: best.confidence_P[question] for question in there},
    )


def _values(run: ComparedRun) -> dict[str, list[tuple[str, float]]]:
    """maj@k of every question with all of them, by candidate and for the confidence vote with the same tokens."""
    found: dict[str, list[tuple[str, float]]] = {}
    for question, score in zip(run.finished, score_questions(run.finished, run.grades), strict=True):
        scores = {
            "adapted, by majority": _metric(score.adapted),
            "adapted, by confidence": None if score.adapted is None else _by_confidence(question, run.grades),
            "base, majority vote": _metric(score.vote_same_tokens),
            "confidence": _metric(score.confidence_same_tokens),
        }
        known = {kind: value for kind, value in scores.items() if value is not None}
        if len(known) == len(scores):
            for kind, value in known.items():
                found.setdefault(kind, []).append((score.id, value))
    return found


def _by_confidence(question: FinishedQuestion, grades: Grades) -> float | None:
    """maj@k of the adapted policy by the confidence vote; of the base where adapting failed."""
    record, verdicts = question.record, grades.of(question.record.id)
    poll = record.polls.get("adapted" if record.status == "done" else "base") or record.polls.get("base")
    return None if poll is None or verdicts is None else _metric(poll.score_by_confidence(verdicts))


def _metric(score: Score | None) -> float | None:
    return None if score is None else score.metrics.get(METRIC)


def _means(pairs: Iterable[tuple[str, float]]) -> dict[str, float]:
    """A question's mean over its seeds."""
    found: dict[str, list[float]] = {}
    for question, value in pairs:
        found.setdefault(question, []).append(value)
    return {question: fmean(values) for question, values in found.items()}


def _lines(found: Sequence[Candidate], judged: Sequence[Judged]) -> list[str]:
    first, second = judged
    counts = f"halves of {len(first.chosen_P)} and {len(second.chosen_P)} questions"
    rows: list[tuple[str, ...]] = [("chosen on", "maj@k there", "on the other", "conf.", "above", "p")]
    for half, each in zip(("half 1", "half 2"), judged, strict=True):
        rows.append((half, number_or_nothing(fmean(each.chosen_P.values())), *_cells(each.value_P, each.confidence_P)))
    rows.append(("both", "", *_cells({**first.value_P, **second.value_P}, {**first.confidence_P, **second.confidence_P})))
    names = [f"half {number}: {each.name}" for number, each in enumerate(judged, 1)]
    title = f"chosen of {len(found)} candidates, {counts}"
    return [title, "", *(line for name in names for line in broken(name, WIDTH)), "", *aligned(rows), *broken(_LEGEND, WIDTH)]


def _cells(value_P: Values, confidence_P: Values) -> tuple[str, ...]:
    """The judged mean with its interval, the confidence vote's, and the difference with its interval and p."""
    values, others = list(value_P.values()), [confidence_P[question] for question in value_P]
    own, gain = interval_of_mean(values), interval_of_gain(others, values)
    assert own is not None and gain is not None, "no half is empty"
    above = with_interval(fmean(values) - fmean(others), gain.low, gain.high, signed=True)
    p_value = p_value_or_nothing(p_value_of_gain(others, values))
    return with_interval(fmean(values), own.low, own.high), number_or_nothing(fmean(others)), above, p_value
