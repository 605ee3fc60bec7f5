"""More effort where it is needed: how sure a run of ARC tasks is of a task, and how its second run differs."""

from __future__ import annotations

from sttrl.arc.pool import UNEQUAL
from sttrl.arc.records import TaskRecord
from sttrl.config import RunConfig
from sttrl.ledger.records import QuestionRecord


def share_of(config: RunConfig) -> float | None:
    """The share of the tasks that are done again; None: none."""
    return config.arc.retry_unsure


def confidence(task: QuestionRecord) -> float:
    """How sure a run is of its first attempts: the share of the views that found them, of the test input with the lowest one."""
    if task.answer_source is None:
        return 0.0
    record: TaskRecord = task.polls[task.answer_source]
    return min(len(test.candidates[0].search_nll) / record.views if test.attempts else 0.0 for test in record.tests)


def second_run(config: RunConfig, seconds: float) -> RunConfig | None:
    """The settings of the run that does tasks again: it may take what is left of ``--time_limit`` after ``seconds``; None if nothing is."""
    limit = config.arc.time_limit
    if limit is not None and seconds >= limit:
        return None
    return config.changed(retry_unsure=None, time_limit=None if limit is None else limit - seconds)


def selection_of_both(config: RunConfig) -> str:
    """The selection for the candidates of both runs: the run's own, but mul_aug_prob_3 instead of mul_aug_prob.

    mul_aug_prob adds up NLLs, so a candidate that both runs have scored would rank behind one that only one run has scored. Where all
    candidates were scored under equally many views, the two selections rank alike.
    """
    return "mul_aug_prob_3" if config.arc.selection == UNEQUAL else config.arc.selection
