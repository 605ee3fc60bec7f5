"""Makes the report of a run folder: reads journal and labels, grades, writes the files, returns the table."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sttrl.errors import DataError
from sttrl.ledger.folder import attempts, read_config
from sttrl.ledger.journal import OF_ALL, read_journal
from sttrl.ledger.records import FinishedQuestion
from sttrl.report.comparison import ComparedRun, compare_table
from sttrl.report.kinds import KindReport, report_of
from sttrl.report.labels import NO_GRADES, Grades, Labels, grade
from sttrl.report.tables import before_after_table
from sttrl.report.write import write_report
from sttrl.run.timing import added


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
    config = read_config(folder)
    kind = report_of(config)
    journal = read_journal(folder, kind.read)
    finished, of_all = journal.finished, journal.steps.get(OF_ALL, ())
    remarks, labels = list[str](), None
    try:
        data = kind.data(config, data_dir) if data is None else data
        remarks.append(kind.hand_in(folder, config, finished, data))
        labels = kind.labels(data)
    except DataError as error:
        remarks.append(f"no labels: {error}")
    grades = NO_GRADES if labels is None else asyncio.run(_grade(kind, finished, labels, folder))
    seconds = {**added([*(f.record.seconds for f in finished), *(step.seconds for step in of_all)]), **attempts(folder)[1]}
    shown = kind.shown(folder, finished, grades, data or str(config["dataset"]), labels)
    summary = write_report(folder, finished, grades, seconds, config, shown, of_all)
    run = ComparedRun(name=str(folder), summary=summary, config=config, finished=finished, grades=grades)
    pictures = kind.drawn(finished, grades, data or str(config["dataset"]), colours=sys.stdout.isatty())
    table = "\n".join([before_after_table(summary), *filter(None, remarks)])
    return RunReport(table=table, pictures=pictures, run=run)


def report_runs(folders: Sequence[Path], data_dir: Path | None = None) -> str:
    """The table of one run, or the comparison of several."""
    reports = [report_run(folder, data_dir) for folder in folders]
    return reports[0].table + reports[0].pictures if len(reports) == 1 else compare_table([report.run for report in reports])


async def _grade(kind: KindReport, finished: Sequence[FinishedQuestion], labels: Labels, folder: Path) -> Grades:
    async with kind.judge() as judge:
        return await grade(finished, labels, judge, folder)
