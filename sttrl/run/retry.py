"""More effort where it is needed: the tasks about which an ARC run is least sure are done once more with another seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from sttrl.arc.pool import UNEQUAL
from sttrl.arc.records import TaskRecord, record_from_json
from sttrl.config import RunConfig
from sttrl.ledger.folder import run_folder
from sttrl.ledger.journal import read_finished
from sttrl.ledger.records import QuestionRecord

RETRY, POOLED = "-retry", "-pooled"
"""What is added to the name of a run, with the share of tasks, for the folders of its retry and of both together."""


def retry_of(config: RunConfig, tasks: int, seconds: float) -> RunConfig | None:
    """The run that does the least sure tasks of a run again; None unless ``--retry_unsure`` was given and all ``tasks`` are finished.

    ``seconds``: how long this attempt has taken. The retry may take what is left of ``--time_limit``; None if nothing is.
    """
    share, limit = config.arc.retry_unsure, config.arc.time_limit
    finished = [found.record for found in read_finished(run_folder(config), record_from_json)] if share is not None else []
    if share is None or not finished or len(finished) < tasks or (limit is not None and seconds >= limit):
        return None
    return config.changed(
        ids=unsure(finished, share),
        limit=None,
        seed=config.run.seed + 1,
        run_name=f"{run_folder(config).name}{RETRY}{share:g}",
        retry_unsure=None,
        time_limit=None if limit is None else limit - seconds,
    )


def pooled_folder(config: RunConfig) -> Path:
    """Where the candidates of a run and of its retry are selected from together."""
    folder = run_folder(config)
    return folder.with_name(f"{folder.name}{POOLED}{config.arc.retry_unsure:g}")


def selection_of_both(config: RunConfig) -> str:
    """The selection for the candidates of both runs: the run's own, but mul_aug_prob_3 instead of mul_aug_prob.

    mul_aug_prob adds up NLLs, so a candidate that both runs have scored would rank behind one that only one run has scored. Where all
    candidates were scored under equally many views, the two selections rank alike.
    """
    return "mul_aug_prob_3" if config.arc.selection == UNEQUAL else config.arc.selection


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
