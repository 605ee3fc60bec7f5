"""Writes the files of a report: results.jsonl, metrics.jsonl, summary.json and report.html, each atomically."""

from __future__ import annotations

import json
from typing import Any

from sttrl.ledger.files import write_text
from sttrl.report.lines import metrics_lines, results_lines
from sttrl.report.read import RunContent
from sttrl.report.summary import summarise
from sttrl.report.view.details import Pieces
from sttrl.report.view.page import page_alone


def write_report(run: RunContent, pieces: Pieces | None = None) -> dict[str, Any]:
    """Write the four files into the run's folder and return the summary. ``pieces``: the texts of the model's tokens, for the page.

    Raises `JournalError` if a file cannot be written; its old content stays.
    """
    folder = run.folder
    summary = summarise(run.finished, run.grades, run.seconds, run.config)
    write_text(folder / "results.jsonl", results_lines(run.finished))
    write_text(folder / "metrics.jsonl", metrics_lines(run.finished, run.of_all))
    write_text(folder / "summary.json", json.dumps(summary, indent=1, allow_nan=False) + "\n")
    write_text(folder / "report.html", page_alone(folder.name, [(folder.name, run, summary, pieces)]))
    return summary
