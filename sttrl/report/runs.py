"""Makes the report of a run folder: reads journal and labels, grades, writes the files, returns the table."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sttrl.ledger.files import write_text
from sttrl.report.comparison import ComparedRun, compare_table, comparison
from sttrl.report.read import read_run
from sttrl.report.summary import summarise
from sttrl.report.tables import before_after_table
from sttrl.report.view.details import FindPieces, no_pieces
from sttrl.report.view.page import page_alone
from sttrl.report.view.sweeps import is_sweep, names_of, read_sweep_view, runs_below
from sttrl.report.write import write_report


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """The report of a run. ``table``: as text; it says why labels are missing, if they are. ``run``: for comparisons with other runs.

    ``pictures``: for a terminal, of a kind of problem that has some.
    """

    table: str
    pictures: str = ""
    run: ComparedRun

    @property
    def summary(self) -> Mapping[str, Any]:
        """The summary as in summary.json."""
        return self.run.summary


def report_run(folder: Path, data_dir: Path | None = None, data: Any = None, find_pieces: FindPieces = no_pieces) -> RunReport:
    """Write a run's report from its journal and return it. Raises `JournalError` for a folder that holds no run.

    ``data``: the data set, if it was read already. If not, ``data_dir`` is searched before the place that the run's configuration
    names. If labels cannot be read, the report has no accuracies and says why. ``find_pieces``: finds the texts of the model's tokens.
    """
    run = read_run(folder, data_dir, data)
    handed_in = "" if run.data is None else run.kind.hand_in(folder, run.config, run.finished, run.data)
    summary = write_report(run, find_pieces(run.config))
    compared = ComparedRun(name=str(folder), summary=summary, config=run.config, finished=run.finished, grades=run.grades)
    pictures = run.kind.drawn(run.finished, run.grades, run.data_or_name, colours=sys.stdout.isatty())
    table = "\n".join([before_after_table(summary), *filter(None, [handed_in, run.remark])])
    return RunReport(table=table, pictures=pictures, run=compared)


def report_runs(folders: Sequence[Path], data_dir: Path | None = None, find_pieces: FindPieces = no_pieces) -> str:
    """The table of one run, or the comparison of several."""
    reports = [report_run(folder, data_dir, find_pieces=find_pieces) for folder in folders]
    return reports[0].table + reports[0].pictures if len(reports) == 1 else compare_table([report.run for report in reports])


def write_page(folders: Sequence[Path], out: Path, data_dir: Path | None = None, find_pieces: FindPieces = no_pieces) -> None:
    """Write the page of several runs, or of a sweep, as one file. Raises `JournalError` for a folder that holds neither."""
    sweep = read_sweep_view(folders[0]) if len(folders) == 1 and is_sweep(folders[0]) else None
    names = names_of(folders if sweep is None else runs_below(folders[0]))
    runs = [(name, read_run(folder, data_dir)) for folder, name in names.items()]
    shown = [(name, run, summarise(run.finished, run.grades, run.seconds, run.config), find_pieces(run.config)) for name, run in runs]
    compared = [
        ComparedRun(name=name, summary=summary, config=run.config, finished=run.finished, grades=run.grades)
        for name, run, summary, _ in shown
    ]
    title = ", ".join(names.values()) if sweep is None else sweep["name"]
    write_text(out, page_alone(title, shown, comparison(compared) if sweep is None and len(runs) > 1 else None, sweep))
