"""Reads a run folder and its data set: what was journalled, what was asked, the labels and the verdicts."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sttrl.errors import DataError
from sttrl.ledger.folder import attempts, read_config
from sttrl.ledger.journal import OF_ALL, read_journal
from sttrl.ledger.records import FinishedQuestion, StepRecord
from sttrl.report.kinds import KindReport, report_of
from sttrl.report.labels import NO_GRADES, Grades, Labels, grade
from sttrl.run.timing import added


@dataclass(frozen=True, kw_only=True)
class RunContent:
    """The content of a run folder. ``config``: of config.json. ``data``: the data set; None if it cannot be read.

    ``labels``: None if they cannot be read; ``unread``: why. ``seconds``: of the whole run, by activity. ``of_all``: the steps that are of
    no problem.
    """

    folder: Path
    config: Mapping[str, Any]
    kind: KindReport
    finished: Sequence[FinishedQuestion]
    of_all: Sequence[StepRecord]
    seconds: Mapping[str, float]
    data: Any = field(repr=False)
    labels: Labels | None
    unread: str | None
    grades: Grades = field(repr=False)

    @property
    def data_or_name(self) -> Any:
        """The data set, or its name in the settings if it cannot be read."""
        return self.data or str(self.config["dataset"])


def read_run(folder: Path, data_dir: Path | None = None, data: Any = None, keep_grades: bool = True) -> RunContent:
    """Read a run folder, and grade the answers that no report has graded yet. Raises `JournalError` for a folder that holds no run.

    ``data``: the data set, if it was read already. If not, ``data_dir`` is searched before the place that the run's configuration
    names. ``keep_grades``: whether new verdicts are written to the run folder.
    """
    config = read_config(folder)
    kind = report_of(config)
    journal = read_journal(folder, kind.read)
    finished, of_all = journal.finished, journal.steps.get(OF_ALL, ())
    labels, unread = None, None
    try:
        data = kind.data(config, data_dir) if data is None else data
        labels = kind.labels(data)
    except DataError as error:
        unread = str(error)
    return RunContent(
        folder=folder,
        config=config,
        kind=kind,
        finished=finished,
        of_all=of_all,
        seconds={**added([*(f.record.seconds for f in finished), *(step.seconds for step in of_all)]), **attempts(folder)[1]},
        data=data,
        labels=labels,
        unread=unread,
        grades=NO_GRADES if labels is None else _graded(kind, finished, labels, folder, keep_grades),
    )


def _graded(kind: KindReport, finished: Sequence[FinishedQuestion], labels: Labels, folder: Path, keep: bool) -> Grades:
    async def grades() -> Grades:
        async with kind.judge() as judge:
            return await grade(finished, labels, judge, folder, keep)

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(grades())
    with ThreadPoolExecutor(max_workers=1) as thread:  # a notebook has an event loop of its own
        return thread.submit(asyncio.run, grades()).result()
