"""More effort where it is needed: the tasks about which an ARC run is least sure are done once more with another seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from sttrl.arc.records import TaskRecord, record_from_json
from sttrl.config import RunConfig
from sttrl.ledger.folder import run_folder
from sttrl.ledger.journal import read_finished
from sttrl.ledger.records import QuestionRecord

RETRY, POOLED = "-retry", "-pooled"
"""What is added to the name of a run for the folders of its retry and of both together."""


def retry_of(config: RunConfig) -> RunConfig | None:
    """The run that does the least sure tasks of a finished run again; None if ``--retry_unsure`` was not given or no task is finished."""
    share, folder = config.arc.retry_unsure, run_folder(config)
    tasks = [finished.record for finished in read_finished(folder, record_from_json)] if share is not None else []
    if share is None or not tasks:
        return None
    return config.changed(
        ids=unsure(tasks, share), limit=None, seed=config.run.seed + 1, run_name=f"{folder.name}{RETRY}", retry_unsure=None
    )


def pooled_folder(config: RunConfig) -> Path:
    """Where the candidates of a run and of its retry are selected from together."""
    folder = run_folder(config)
    return folder.with_name(f"{folder.name}{POOLED}")


def unsure(tasks: Sequence[QuestionRecord], share: float) -> tuple[str, ...]:
    """The ids of the least sure tasks, in the order of the data set: ``share`` of them, at least one."""
    count = max(1, math.floor(share * len(tasks)))
    chosen = {task.id for task in sorted(tasks, key=lambda task: (confidence(task), task.id))[:count]}
    return tuple(task.id for task in tasks if task.id in chosen)


def confidence(task: QuestionRecord) -> float:
    """How sure a run is of its first attempts: the share of the views that found them, of the test input with the lowest one."""
    if task.answer_source is None:
        return 0.0
    record: TaskRecord = task.polls[task.answer_source]
    return min(len(test.candidates[0].search_nll) / record.views if test.attempts else 0.0 for test in record.tests)
