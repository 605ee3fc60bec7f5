"""Reads a run folder and its data set: what was journalled, what was asked, the labels and the verdicts."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from sttrl.errors import DataError, JournalError
from sttrl.ledger.folder import attempts, read_config
from sttrl.ledger.journal import JOURNAL, OF_ALL, JournalContent, read_journal
from sttrl.ledger.records import FinishedQuestion, StepRecord
from sttrl.report.kinds import KindReport, Shown, report_of
from sttrl.report.labels import NO_GRADES, Grades, Labels, grade
from sttrl.run.timing import added


@dataclass(frozen=True, kw_only=True)
class RunContent:
    """The content of a run folder. ``config``: of config.json. ``data``: the data set; None if it cannot be read.

    ``attempt_seconds``: wall seconds of the attempts that ended. ``labels``: None if they cannot be read; ``unread``: why. ``grades``: none
    until the answers are compared with the labels.
    """

    folder: Path
    config: Mapping[str, Any]
    kind: KindReport
    journal: JournalContent = field(repr=False)
    attempt_seconds: Mapping[str, float]
    data: Any = field(repr=False)
    labels: Labels | None
    unread: str | None
    grades: Grades = field(default=NO_GRADES, repr=False)

    @property
    def finished(self) -> tuple[FinishedQuestion, ...]:
        """The finished questions, in the order of the data set."""
        return self.journal.finished

    @property
    def of_all(self) -> tuple[StepRecord, ...]:
        """The steps that are of no question."""
        return self.journal.steps.get(OF_ALL, ())

    @property
    def running(self) -> dict[str, tuple[StepRecord, ...]]:
        """The steps of each question that is not finished."""
        return {name: steps for name, steps in self.journal.steps.items() if name != OF_ALL}

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds of each activity, and of all attempts."""
        activities = added([*(f.record.seconds for f in self.finished), *(step.seconds for step in self.of_all)])
        return {**activities, **self.attempt_seconds}

    @property
    def data_or_name(self) -> Any:
        """The data set, or its name in the settings if it cannot be read."""
        return self.data or str(self.config["dataset"])

    @property
    def remark(self) -> str | None:
        """Why there are no labels; None if there are some."""
        return None if self.unread is None else f"no labels: {self.unread}"

    @cached_property
    def shown(self) -> Shown:
        """What a page shows of the problems besides the records."""
        return self.kind.shown(self.finished, self.grades, self.data_or_name, self.labels)


def load_run(folder: Path, data_dir: Path | None = None, data: Any = None) -> RunContent:
    """Read a run folder without grading its answers. Raises `JournalError` for a folder that holds no run, or a damaged one.

    ``data``: the data set, if it was read already. If not, ``data_dir`` is searched before the place that the run's configuration names.
    """
    config = read_config(folder)
    try:
        kind = report_of(config)
        journal, seconds = read_journal(folder, kind.read), attempts(folder)[1]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        message = f"{folder / JOURNAL} is damaged: a record is not complete."
        raise JournalError(message, "Restore the file, or leave the run out.") from error
    labels, unread = None, None
    try:
        data = kind.data(config, data_dir) if data is None else data
        labels = kind.labels(data)
    except DataError as error:
        unread = str(error)
    return RunContent(
        folder=folder, config=config, kind=kind, journal=journal, attempt_seconds=seconds, data=data, labels=labels, unread=unread
    )


def read_run(folder: Path, data_dir: Path | None = None, data: Any = None, keep_grades: bool = True) -> RunContent:
    """The same, with the answers graded that no report has graded yet. ``keep_grades``: whether new verdicts go into the run folder."""
    run = load_run(folder, data_dir, data)
    return run if run.labels is None else replace(run, grades=_graded(run.kind, run.finished, run.labels, folder, keep_grades))


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
