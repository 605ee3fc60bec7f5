"""Makes the report of a run folder: reads journal and labels, grades, writes the files, returns the table."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sttrl.report.comparison import ComparedRun, compare_table
from sttrl.report.read import read_run
from sttrl.report.tables import before_after_table
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


def report_run(folder: Path, data_dir: Path | None = None, data: Any = None) -> RunReport:
    """Write a run's report from its journal and return it. Raises `JournalError` for a folder that holds no run.

    ``data``: the data set, if it was read already. If not, ``data_dir`` is searched before the place that the run's configuration
    names. If labels cannot be read, the report has no accuracies and says why.
    """
    content = read_run(folder, data_dir, data)
    finished, grades = content.finished, content.grades
    remarks = [] if content.data is None else [content.kind.hand_in(folder, content.config, finished, content.data)]
    remarks += [] if content.unread is None else [f"no labels: {content.unread}"]
    shown = content.kind.shown(folder, finished, grades, content.data_or_name, content.labels)
    summary = write_report(folder, finished, grades, content.seconds, content.config, shown, content.of_all)
    run = ComparedRun(name=str(folder), summary=summary, config=content.config, finished=finished, grades=grades)
    pictures = content.kind.drawn(finished, grades, content.data_or_name, colours=sys.stdout.isatty())
    table = "\n".join([before_after_table(summary), *filter(None, remarks)])
    return RunReport(table=table, pictures=pictures, run=run)


def report_runs(folders: Sequence[Path], data_dir: Path | None = None) -> str:
    """The table of one run, or the comparison of several."""
    reports = [report_run(folder, data_dir) for folder in folders]
    return reports[0].table + reports[0].pictures if len(reports) == 1 else compare_table([report.run for report in reports])
