"""Fine-tuning on rows of ARC tasks in a report: the loss on held-out tasks, without labels and grids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from sttrl.arc.rows import LossRecord
from sttrl.arc.sources import ArcData
from sttrl.ledger.records import FinishedQuestion
from sttrl.report.labels import Grades, Labels
from sttrl.report.tasks import GridJudge, ShownTasks, grid_judge, tasks_as_json, tasks_of


class RowsReport:
    """See `sttrl.report.kinds.KindReport`."""

    def read(self, value: dict[str, Any]) -> LossRecord:
        """The loss on a held-out task."""
        return LossRecord(**value)

    def data(self, config: Mapping[str, Any], data_dir: Path | None) -> ArcData:
        """The held-out tasks. Raises `DataError`."""
        return tasks_of(config, data_dir)

    def labels(self, data: ArcData) -> Labels:
        """An empty label for each task: a loss needs no solution."""
        return Labels(kind="loss", by_id={task.id: "" for task in data.tasks})

    def asked(self, data: ArcData) -> Mapping[str, str]:
        """The held-out tasks."""
        return tasks_as_json(data)

    def hand_in(self, folder: Path, config: Mapping[str, Any], finished: Sequence[FinishedQuestion], data: ArcData) -> str:
        """Nothing."""
        return ""

    def judge(self) -> AbstractAsyncContextManager[GridJudge]:
        """A judge that is never asked."""
        return grid_judge()

    def drawn(self, finished: Sequence[FinishedQuestion], grades: Grades, data: ArcData | str, colours: bool) -> str:
        """Nothing."""
        return ""

    def shown(self, finished: Sequence[FinishedQuestion], grades: Grades, data: ArcData | str, labels: Labels | None) -> ShownTasks:
        """The held-out tasks, without grids: only a loss was measured on them."""
        return ShownTasks()
