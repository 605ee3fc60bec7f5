"""results.jsonl and metrics.jsonl: the journal's content for users, without labels.

results.jsonl holds the answers of a run, and nothing in which two identical runs may differ: no seconds, no attempts, no error texts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from sttrl.ledger.journal import OF_ALL
from sttrl.ledger.records import FinishedQuestion, StepRecord
from sttrl.ledger.step_metrics import step_metrics
from sttrl.questions.records import POLL_NAMES

_VOTE: Final = ("answer", "majority_ratio", "margin")
"""The fields of a vote in results.jsonl."""


def results_lines(finished: Sequence[FinishedQuestion]) -> str:
    """The content of results.jsonl: a line for each question, in the given order. The same questions give the same bytes."""
    return "".join(_line(_result(question)) for question in finished)


def metrics_lines(finished: Sequence[FinishedQuestion], of_all: Sequence[StepRecord] = ()) -> str:
    """The content of metrics.jsonl: a line for each step, first those of no question, then those of the questions in the given order."""
    steps = [(OF_ALL, of_all), *((question.record.id, question.steps) for question in finished)]
    return "".join(_line({"id": name, "step": step.step, **step_metrics(step)}) for name, own in steps for step in own)


def _result(question: FinishedQuestion) -> dict[str, Any]:
    record = question.record
    return {
        "id": record.id,
        "index": record.index,
        "status": record.status,
        "stop": record.stop,
        "answer": record.answer,
        "answer_source": record.answer_source,
        "polls": {name: record.polls[name].result() for name in POLL_NAMES if name in record.polls},
        "steps": [_step(step) for step in question.steps],
    }


def _step(step: StepRecord) -> dict[str, Any]:
    """A step. The fields of the vote are null if none was held; ``gate`` is null if no gate prevented an update."""
    election = step.election
    vote = dict.fromkeys(_VOTE) if election is None else {name: getattr(election, name) for name in _VOTE}
    return {**vote, "trained": step.update is not None, "gate": step.gate}


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, allow_nan=False) + "\n"
