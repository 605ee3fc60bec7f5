"""The JSON value of one run on a page: its tables, curves, facts and settings, and a row for each question."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sttrl.arc.records import TaskRecord, grid_text
from sttrl.ledger.evaluated import Verdicts
from sttrl.ledger.folder import KIND
from sttrl.ledger.records import FinishedQuestion, StepRecord
from sttrl.questions.records import POLL_NAMES
from sttrl.report.html import short
from sttrl.report.layout import number_or_nothing
from sttrl.report.metrics import QuestionScore, score_questions
from sttrl.report.read import RunContent
from sttrl.report.tables import ROWS, evaluated, facts, gain_remark, metric_cell, thinned, time_columns, vote_remark
from sttrl.report.texts import verdict_of

SHOWN_TEXT: Final = 2000
"""How many characters of a question the list has; the question itself has all."""
RUNNING: Final = "running"
"""The status of a question that is not finished."""


def run_view(name: str, run: RunContent, summary: Mapping[str, Any]) -> dict[str, Any]:
    """What a page shows of a run before a question is opened. ``name``: of the run. ``summary``: as in summary.json."""
    k, metrics = (summary["base"] or {}).get("k", "k"), summary["metrics"] or {"all": [], "headline": "", "unbounded": []}
    shown = run.shown
    return {
        "name": name,
        "folder": str(run.folder),
        "model": short(run.config.get("model")),
        "dataset": short(run.config.get("dataset")),
        "method": short(run.config.get("adaptation_method")),
        "kind": run.config.get(KIND) or "questions",
        "headline": metrics["headline"].replace("@k", f"@{k}"),
        "metrics": [metric.replace("@k", f"@{k}") for metric in metrics["all"]],
        "rows": [_row(label, key, summary) for label, key in ROWS if summary[key] is not None],
        "remarks": [remark for remark in (vote_remark(summary), gain_remark(summary), run.remark, shown.remark) if remark],
        "facts": facts(summary),
        "time": _time(summary, k),
        "config": {setting: short(value) for setting, value in run.config.items()},
        "questions": question_rows(run),
    }


def question_rows(run: RunContent) -> list[dict[str, Any]]:
    """A row for each question: the finished ones in the order of the data set, then those that are under way."""
    shown, scores = run.shown, score_questions(run.finished, run.grades)
    rows = [
        {
            **_question(question.record.id, question.steps),
            **_end(question, score, run.grades.of(score.id)),
            "text": _cut(shown.text(score.id)),
            "label": shown.label(score.id) if shown.text(score.id) is not None else None,
        }
        for question, score in zip(run.finished, scores, strict=True)
    ]
    under_way = [
        {**_question(name, steps), "status": RUNNING, "flags": [RUNNING, *_vote_flags(steps)], "said": {}, "text": _cut(shown.text(name))}
        for name, steps in run.running.items()
    ]
    return [*rows, *under_way]


def key_of(problem_id: str) -> str:
    """A short name of a problem for addresses, the same in every run. The id itself may be long, and hold any character."""
    return hashlib.sha256(problem_id.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def answered_right(question: FinishedQuestion, verdicts: Verdicts | None) -> bool | None:
    """Whether a problem's answer is right; None without a label. No answer is wrong."""
    if verdicts is None:
        return None
    evaluation = question.record.polls.get(question.record.answer_source or "")
    return False if evaluation is None else evaluation.right(verdicts)


def _row(label: str, key: str, summary: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the table before and after; the gain has no bar, because it may be negative."""
    metrics, block = summary["metrics"], summary[key]
    cells = [metric_cell(summary, key, metric) for metric in metrics["all"]]
    bar = None if key == "gain" else {"value": block[metrics["headline"]], "ends": block["ci95"]}
    return {"label": label, "cells": cells, "bar": bar}


def _time(summary: Mapping[str, Any], k: object) -> dict[str, Any] | None:
    """The table over time and the points of its curves; None for a run without."""
    rows, columns = evaluated(summary), time_columns(summary)
    if not rows:
        return None
    unbounded = summary["metrics"]["unbounded"]
    return {
        "columns": [label.replace("@k", f"@{k}") for label, _ in columns],
        "rows": [[str(row["step"]), *(number_or_nothing(row.get(key)) for _, key in columns)] for row in thinned(rows)],
        "curves": [
            {"label": label.replace("@k", f"@{k}"), "points": [[row["step"], row[key]] for row in rows if row.get(key) is not None]}
            for label, key in columns
            if key not in unbounded
        ],
    }


def _question(name: str, steps: Sequence[StepRecord]) -> dict[str, Any]:
    elections = [step.election for step in steps]
    return {
        "key": key_of(name),
        "id": short(name),
        "steps": len(steps),
        "ratios": [round(election.majority_ratio, 3) for election in elections if election is not None],
    }


def _end(question: FinishedQuestion, score: QuestionScore, verdicts: Verdicts | None) -> dict[str, Any]:
    record, change = question.record, score.change
    flags = [{1: "won", -1: "lost", 0: "unchanged"}[change]] if change is not None else []
    flags += _vote_flags(question.steps, record.stop)
    flags += [] if record.status == "done" else ["diverged" if record.status == "diverged" else "failed"]
    return {
        "status": record.status,
        "stop": record.stop,
        "error": None if record.error is None else short(record.error),
        "answer": None if record.answer is None else short(record.answer),
        "right": answered_right(question, verdicts),
        "base": None if score.base is None else score.base.headline,
        "adapted": None if score.adapted is None else score.adapted.headline,
        "change": change,
        "flags": flags,
        "said": {name: _said(record.polls[name], verdicts) for name in POLL_NAMES if name in record.polls},
    }


def _said(poll: Any, verdicts: Verdicts | None) -> dict[str, Any]:
    """What an evaluation answered, and whether it is right; of an ARC task also the first attempt at its first test input."""
    answer = poll.answer
    plain = answer is not None and verdicts is not None and answer in verdicts
    right = None if verdicts is None else poll.right(verdicts)
    verdict = verdict_of(answer, verdicts) if plain else {True: "right", False: "wrong", None: None}[right]
    first = next((grid_text(test.attempts[0]) for test in poll.tests if test.attempts), None) if isinstance(poll, TaskRecord) else None
    return {
        "answer": None if answer is None else short(answer),
        "verdict": verdict if answer is not None else None,
        **({} if first is None else {"grid": first}),
    }


def _vote_flags(steps: Sequence[StepRecord], stop: str | None = None) -> list[str]:
    """What filters ask of the votes: one tied, or a gate prevented an update."""
    tied = stop == "tie" or any(step.election is not None and step.election.winner is None and step.election.tied_C for step in steps)
    return [*(["tie"] if tied else []), *(["gated"] if any(step.gate for step in steps) else [])]


def _cut(text: str | None) -> str | None:
    return text if text is None or len(text) <= SHOWN_TEXT else f"{text[:SHOWN_TEXT]}…"
