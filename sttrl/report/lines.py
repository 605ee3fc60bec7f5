"""results.jsonl and metrics.jsonl: the journal as users read it. No label comes near either.

results.jsonl holds what a run answered and nothing that two identical runs may differ in: no seconds, no attempts, no error texts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from sttrl.ledger.records import FinishedQuestion, StepRecord
from sttrl.ledger.step_metrics import step_metrics
from sttrl.questions.records import POLL_NAMES

_VOTE: Final = ("answer", "majority_ratio", "margin")
"""What results.jsonl says of a vote."""


def results_lines(finished: Sequence[FinishedQuestion]) -> str:
    """results.jsonl: a line a question, in the order given; the same questions give the same bytes."""
    return "".join(_line(_result(question)) for question in finished)


def metrics_lines(finished: Sequence[FinishedQuestion]) -> str:
    """metrics.jsonl: a line a step, questions in the order given."""
    return "".join(_line({"id": q.record.id, "step": step.step, **step_metrics(step)}) for q in finished for step in q.steps)


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
    """A step; its vote is null where none was held, its gate where none closed."""
    election = step.election
    vote = dict.fromkeys(_VOTE) if election is None else {name: getattr(election, name) for name in _VOTE}
    return {**vote, "trained": step.update is not None, "gate": step.gate}


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, allow_nan=False) + "\n"
