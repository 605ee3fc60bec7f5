"""Compares runs: their tables side by side, and each run against the first, paired by question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any, Final

from sttrl.ledger.folder import setting_name
from sttrl.ledger.records import FinishedQuestion
from sttrl.report.labels import Grades
from sttrl.report.layout import NOTHING, aligned, broken, named, p_value_or_nothing, page, with_interval
from sttrl.report.metrics import QuestionScore, score_questions
from sttrl.report.statistics import Interval, interval_of_gain, p_value_of_gain
from sttrl.report.tables import ROWS, facts, metric_cell

COMPARABLE: Final = (
    "dataset", "question_column", "answer_column", "answer_kind", "limit", "ids", "val_samples", "val_temp", "val_top_p",
    "max_prompt_tokens", "max_response_tokens", "prompt_format", "instruction", "system_prompt", "chat_template_kwargs",
    "question_views", "question_view_form",
)  # fmt: skip
"""Settings that must be the same for two runs to be compared question by question."""
NOTED: Final = {
    "model": "the bases differ",
    "model_revision": "the bases differ",
    "dataset_revision": "the questions may differ",
    "ties": "maj@k decides ties otherwise",
    "temp": "the votes with the same tokens are sampled otherwise",
    "top_p": "the votes with the same tokens are sampled otherwise",
}
"""Settings that two runs may differ in, and what a difference means for the comparison."""
_LEGEND: Final = (
    "Against A, paired by question: adapted less A's adapted, with 95 % intervals, over the n questions that both runs finished and "
    "that have a label; a run that does not adapt counts its base. p: permutation test, signs flipped by question. "
    "same base: questions whose base polls gave the same answers."
)
_ROW_LEGEND: Final = "vote, conf.: the base's votes with the tokens that adapting took, by majority and by confidence."
_EARLY_LEGEND: Final = " early: by majority, in rounds that end once the vote is decided."


@dataclass(frozen=True, kw_only=True)
class ComparedRun:
    """A run: its name, summary and configuration, and the finished questions and verdicts that the summary is computed from."""

    name: str
    summary: Mapping[str, Any]
    config: Mapping[str, Any]
    finished: Sequence[FinishedQuestion]
    grades: Grades


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """The mean difference in a metric between two runs, over the ``n`` questions for which both have it. All None if ``n`` is 0."""

    n: int
    mean: float | None
    interval: Interval | None
    p_value: float | None


def compare_table(runs: Sequence[ComparedRun]) -> str:
    """The comparison as text: warnings, each later run against the first, then a table for each metric with a row for each run."""
    letters = [_letter(number) for number in range(len(runs))]
    lines = [f"{letter}  {run.name}" for letter, run in zip(letters, runs, strict=True)]
    lines += [line for reason in differences(runs) for line in broken(f"Warning: not comparable: {reason}.")]
    lines += [line for note in notes(runs) for line in broken(f"Note: {note}.")]
    lines += [*_paired_table(letters, runs), *_metric_tables(letters, runs), *_facts(letters, runs)]
    return page(lines)


def differences(runs: Sequence[ComparedRun]) -> tuple[str, ...]:
    """Why runs cannot be compared: the settings and questions that differ."""
    found = [f"{setting_name(name)} is {_listed(values)}" for name, values in _settings(runs, COMPARABLE).items()]
    if _differ([run.summary["questions"]["ids_sha256"] for run in runs]):
        totals = _listed([run.summary["questions"]["total"] for run in runs])
        found.append(f"the finished questions are not the same ({totals} of them)")
    return tuple(found)


def notes(runs: Sequence[ComparedRun]) -> tuple[str, ...]:
    """Notes on settings that differ although the runs can be compared."""
    return tuple(f"{setting_name(name)} is {_listed(values)}: {NOTED[name]}" for name, values in _settings(runs, tuple(NOTED)).items())


def paired_difference(before: Sequence[QuestionScore], after: Sequence[QuestionScore], metric: str) -> PairedDifference:
    """The metric of the later run's final policy minus that of the first run's, over the questions for which both have it."""
    value_A, value_B = _final(before, metric), _final(after, metric)
    shared = [question for question in value_A if question in value_B]
    a_P, b_P = [value_A[question] for question in shared], [value_B[question] for question in shared]
    return PairedDifference(
        n=len(shared),
        mean=sum(b - a for a, b in zip(a_P, b_P, strict=True)) / len(shared) if shared else None,
        interval=interval_of_gain(a_P, b_P),
        p_value=p_value_of_gain(a_P, b_P),
    )


def same_base(before: ComparedRun, after: ComparedRun) -> tuple[int, int]:
    """(questions whose base polls gave the same answers, questions of which both runs have a base poll)."""
    ballots_A, ballots_B = ({q.record.id: q.record.polls["base"].ballots for q in run.finished if "base" in q.record.polls}
                            for run in (before, after))  # fmt: skip
    shared = ballots_A.keys() & ballots_B.keys()
    return sum(ballots_A[question] == ballots_B[question] for question in shared), len(shared)


def _final(scores: Sequence[QuestionScore], metric: str) -> dict[str, float]:
    """A metric of the final policy, for each question that has it."""
    found = {score.id: score.final.metrics[metric] for score in scores if score.final is not None}
    return {question: value for question, value in found.items() if value is not None}


def comparison(runs: Sequence[ComparedRun]) -> dict[str, Any]:
    """The same for a page, as JSON values: a letter for each run, the warnings and notes, and each later run against the first."""
    letters = [_letter(number) for number in range(len(runs))]
    header, *rows = _paired_cells_of(letters, runs)
    warnings = [f"Not comparable: {reason}." for reason in differences(runs)]
    notes_of = [f"{note}." for note in notes(runs)]
    return {"letters": letters, "warnings": warnings, "notes": notes_of, "legend": _LEGEND, "header": header, "rows": rows}


def _paired_table(letters: Sequence[str], runs: Sequence[ComparedRun]) -> list[str]:
    return ["", *broken(_LEGEND), "", *aligned(_paired_cells_of(letters, runs))] if len(runs) > 1 else []


def _paired_cells_of(letters: Sequence[str], runs: Sequence[ComparedRun]) -> list[tuple[str, ...]]:
    """The header and the rows of the table of differences."""
    scores = [score_questions(run.finished, run.grades) for run in runs]
    paired = _metrics(runs, "paired")
    rows = [("", "n", "same base", *(cell for metric in paired for cell in (metric, "p")))]
    for letter, run, own in zip(letters[1:], runs[1:], scores[1:], strict=True):
        found = [paired_difference(scores[0], own, metric) for metric in paired]
        same, both = same_base(runs[0], run)
        rows.append((letter, str(found[0].n if found else 0), f"{same}/{both}", *(cell for each in found for cell in _paired_cells(each))))
    return rows


def _paired_cells(found: PairedDifference) -> tuple[str, str]:
    if found.mean is None or found.interval is None or found.p_value is None:
        return NOTHING, NOTHING
    return with_interval(found.mean, found.interval.low, found.interval.high, signed=True), p_value_or_nothing(found.p_value)


def _metric_tables(letters: Sequence[str], runs: Sequence[ComparedRun]) -> list[str]:
    early = any(run.summary["early_same_tokens"] for run in runs)
    legend = _ROW_LEGEND + (_EARLY_LEGEND if early else "")
    lines = ["", *broken(legend)] if any(run.summary["vote_same_tokens"] for run in runs) else []
    shown = [row for row in ROWS if early or row[1] != "early_same_tokens"]
    for metric in _metrics(runs, "all"):
        header = (metric, *(label.partition(" (")[0] for label, _ in shown))
        rows = [(letter, *(metric_cell(run.summary, key, metric) for _, key in shown)) for letter, run in zip(letters, runs, strict=True)]
        lines += ["", *aligned([header, *rows])]
    return lines


def _metrics(runs: Sequence[ComparedRun], which: str) -> list[str]:
    """The metrics of the runs' kind of problem."""
    return next((list(run.summary["metrics"][which]) for run in runs if run.summary["metrics"] is not None), [])


def _facts(letters: Sequence[str], runs: Sequence[ComparedRun]) -> list[str]:
    found = [facts(run.summary) for run in runs]
    lines = []
    for name in dict.fromkeys(name for each in found for name in each):
        lines += ["", name, *(line for letter, each in zip(letters, found, strict=True) for line in named(letter, each.get(name, NOTHING)))]
    return lines


def _settings(runs: Sequence[ComparedRun], names: Sequence[str]) -> dict[str, list[object]]:
    """The values of the settings that differ."""
    values = {name: [_value(run.config, name) for run in runs] for name in names}
    return {name: each for name, each in values.items() if _differ(each)}


def _value(config: Mapping[str, Any], name: str) -> object:
    """The value of a setting; None for views over which memo averages, because its evaluations ask the plain question."""
    averaged = config.get("adaptation_method") == "memo" and config.get("memo_form") == "token"
    return None if averaged and name.startswith("question_view") else config.get(name)


def _letter(number: int) -> str:
    return ascii_uppercase[number] if number < len(ascii_uppercase) else str(number + 1)


def _differ(values: Sequence[object]) -> bool:
    return any(value != values[0] for value in values[1:])


def _listed(values: Sequence[object]) -> str:
    return " and ".join(dict.fromkeys(str(value) for value in values))
