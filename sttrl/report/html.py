"""report.html: the templates of `sttrl/report/templates`, filled with the numbers and texts of one run.

The page is one file and loads nothing. jinja2 escapes every value, and `visible` replaces control characters in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from sttrl.ledger.records import FinishedQuestion
from sttrl.questions.records import PollName
from sttrl.report.figures import blocks, curves, inline
from sttrl.report.kinds import Shown
from sttrl.report.labels import Grades
from sttrl.report.layout import number_or_nothing
from sttrl.report.metrics import score_questions
from sttrl.report.tables import ROWS, evaluated, facts, gain_remark, metric_cell, thinned, time_columns, vote_remark
from sttrl.report.texts import NO_TEXTS, verdict_of

SIDES: Final[tuple[tuple[PollName, str], ...]] = (("base", "base"), ("vote_same_tokens", "vote (same tokens)"), ("adapted", "adapted"))
"""The polls whose answers the page shows, with their names there."""
SHOWN_CHARS: Final = 160
SHOWN_TEXT_CHARS: Final = 2000
_JOINERS: Final = "\u200c\u200d"
"""Invisible characters that some scripts need."""


def report_page(
    name: str,
    finished: Sequence[FinishedQuestion],
    grades: Grades,
    summary: Mapping[str, Any],
    config: Mapping[str, Any],
    shown: Shown = NO_TEXTS,
) -> str:
    """The page of a run. ``name``: of the run. ``config``: its settings as plain values. ``shown``: what the cards show."""
    rows = [(label, key) for label, key in ROWS if summary[key] is not None]
    k, metrics = (summary["base"] or {}).get("k", "k"), summary["metrics"] or {"all": [], "headline": ""}
    steps, columns = evaluated(summary), time_columns(summary)
    return templates().get_template("page.html").render(
        name=name,
        config=config,
        k=k,
        headline=metrics["headline"],
        metric_names=[metric.replace("@k", f"@{k}") for metric in metrics["all"]],
        metric_rows=[(label, [metric_cell(summary, key, metric) for metric in metrics["all"]], summary[key]) for label, key in rows],
        remarks=[remark for remark in (vote_remark(summary), gain_remark(summary)) if remark],
        summary_facts=facts(summary),
        time_names=[label.replace("@k", f"@{k}") for label, _ in columns],
        time_rows=[[row["step"], *(number_or_nothing(row.get(key)) for _, key in columns)] for row in thinned(steps)],
        curves=Markup(_curves(steps, [column for column in columns if column[1] not in metrics.get("unbounded", ())])),
        questions=[
            (
                question,
                score,
                grades.of(score.id),
                [step.election.majority_ratio for step in question.steps if step.election is not None],
                answered_right(question, grades),
            )
            for question, score in zip(finished, score_questions(finished, grades), strict=True)
        ],
        shown=shown,
    )  # fmt: skip


def answered_right(question: FinishedQuestion, grades: Grades) -> bool | None:
    """Whether a problem's answer is right; None without a label. No answer is wrong."""
    record, verdicts = question.record, grades.of(question.record.id)
    if verdicts is None:
        return None
    evaluation = record.polls.get(record.answer_source or "")
    return False if evaluation is None else evaluation.right(verdicts)


def _curves(steps: Sequence[Mapping[str, Any]], columns: Sequence[tuple[str, str]]) -> str:
    points = {label: [(row["step"], row[key]) for row in steps if row.get(key) is not None] for label, key in columns}
    known = {label: point_S for label, point_S in points.items() if point_S}
    return inline(curves(known), "curves") if known else ""


@cache
def templates() -> Environment:
    """The templates of the pages, with their filters."""
    made = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        finalize=visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"short": short, "shortened": shortened, "blocks": blocks, "numbers": _numbers, "percent": "{:.1%}".format}
    made.globals |= {"sides": SIDES, "verdict_of": verdict_of}
    return made


def visible(value: object) -> object:
    """A value as text without invisible characters; markup is not changed."""
    return value if isinstance(value, Markup) else "".join(map(_visible, str(value)))


def short(value: object) -> str:
    """The beginning of a value, as text."""
    text = str(value)
    return text[:SHOWN_CHARS] + ("…" if len(text) > SHOWN_CHARS else "")


def shortened(text: str) -> str:
    """A text, without its middle if it is long: the answer is at the end."""
    half = SHOWN_TEXT_CHARS // 2
    cut = text if len(text) <= SHOWN_TEXT_CHARS else f"{text[:half]}\n[… {len(text) - 2 * half} characters …]\n{text[-half:]}"
    return cut.replace("\r\n", "\n").strip()


def _visible(char: str) -> str:
    if char == "\n" or char.isprintable() or char in _JOINERS:
        return char
    return " " if char.isspace() else "·"


def _numbers(value_S: Sequence[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in value_S)
