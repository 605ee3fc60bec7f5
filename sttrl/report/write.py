"""Writes the files of a report: results.jsonl, metrics.jsonl, summary.json and report.html, each atomically."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sttrl.ledger.files import write_text
from sttrl.ledger.records import FinishedQuestion, StepRecord
from sttrl.report.html import report_page
from sttrl.report.kinds import Shown
from sttrl.report.labels import Grades
from sttrl.report.lines import metrics_lines, results_lines
from sttrl.report.summary import summarise
from sttrl.report.texts import NO_TEXTS


def write_report(
    run_folder: Path,
    finished: Sequence[FinishedQuestion],
    grades: Grades,
    seconds: Mapping[str, float],
    config: Mapping[str, Any],
    shown: Shown = NO_TEXTS,
    of_all: Sequence[StepRecord] = (),
) -> dict[str, Any]:
    """Write the four files and return the summary. ``config``: the content of config.json. ``shown``: what the cards of the page show.
    ``of_all``: the steps that are of no question.

    Raises `JournalError` if a file cannot be written; its old content stays.
    """
    summary = summarise(finished, grades, seconds)
    write_text(run_folder / "results.jsonl", results_lines(finished))
    write_text(run_folder / "metrics.jsonl", metrics_lines(finished, of_all))
    write_text(run_folder / "summary.json", json.dumps(summary, indent=1, allow_nan=False) + "\n")
    write_text(run_folder / "report.html", report_page(run_folder.name, finished, grades, summary, config, shown))
    return summary
