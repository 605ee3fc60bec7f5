"""A run folder, read for a report or a page: its journal, its data set, its labels and their verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sttrl.errors import DataError, JournalError
from sttrl.ledger.folder import attempts, read_config
from sttrl.ledger.journal import JOURNAL, OF_ALL, JournalContent, read_journal
from sttrl.ledger.records import FinishedQuestion, StepRecord
from sttrl.report.kinds import KindReport, Shown, report_of
from sttrl.report.labels import NO_GRADES, Grades, Labels
from sttrl.run.timing import added


@dataclass(frozen=True, kw_only=True)
class LoadedRun:
    """A run as its folder holds it. ``grades``: none until the answers are compared with ``labels``.

    ``data``: the data set, or None if it cannot be read; ``remark`` says why if it or its labels are missing. ``attempt_seconds``:
    wall seconds of the attempts that ended.
    """

    folder: Path
    config: Mapping[str, Any]
    kind: KindReport
    journal: JournalContent
    attempt_seconds: Mapping[str, float]
    data: Any
    labels: Labels | None
    remark: str | None
    grades: Grades = NO_GRADES

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

    @cached_property
    def shown(self) -> Shown:
        """What a page shows of the problems besides the records."""
        data = str(self.config["dataset"]) if self.data is None else self.data
        return self.kind.shown(self.finished, self.grades, data, self.labels)


def load_run(folder: Path, data_dir: Path | None = None, data: Any = None) -> LoadedRun:
    """Read a run folder. Raises `JournalError` for a folder that holds no run, or a damaged one.

    ``data``: the data set, if it was read already. If not, ``data_dir`` is searched before the place that the run's configuration names.
    """
    config = read_config(folder)
    try:
        kind = report_of(config)
        journal, seconds = read_journal(folder, kind.read), attempts(folder)[1]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise JournalError(
            f"{folder / JOURNAL} is damaged: a record is not complete.", "Restore the file, or leave the run out."
        ) from error
    labels, remark = None, None
    try:
        data = kind.data(config, data_dir) if data is None else data
        labels = kind.labels(data)
    except DataError as error:
        remark = f"no labels: {error}"
    return LoadedRun(
        folder=folder, config=config, kind=kind, journal=journal, attempt_seconds=seconds, data=data, labels=labels, remark=remark
    )
