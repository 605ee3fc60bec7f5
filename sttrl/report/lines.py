"""results.jsonl and metrics.jsonl: the journal as users read it. No label comes near either.

results.jsonl holds what a run answered and nothing that two identical runs may differ in: no seconds, no attempts, no error texts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, Final

from sttrl.ledger.records import POLL_NAMES, FinishedQuestion, PollRecord, StepRecord

UPDATE_METRICS: Final = {
    "loss": "update/loss",
    "grad_norm": "update/grad_norm",
    "lr": "update/lr",
    "kl_to_base": "update/kl_to_base_nats",
    "logprob_gap_mean": "update/logprob_gap_mean_nats",
    "logprob_gap_max": "update/logprob_gap_max_nats",
    "logprob_correlation": "update/logprob_correlation",
    "micro_batches": "update/micro_batches",
    "optimizer_steps": "update/optimizer_steps",
    "clip_fraction": "update/clip_fraction",
    "value_loss": "update/value_loss",
}
"""Name in metrics.jsonl of each number an update measures; its tokens are ``tokens/trained``."""

_VOTE: Final = ("answer", "majority_ratio", "margin")
"""What results.jsonl says of a vote."""


def results_lines(finished: Sequence[FinishedQuestion]) -> str:
    """results.jsonl: a line a question, in the order given; the same questions give the same bytes."""
    return "".join(_line(_result(question)) for question in finished)


def metrics_lines(finished: Sequence[FinishedQuestion]) -> str:
    """metrics.jsonl: a line a step, questions in the order given."""
    return "".join(_line({"id": q.record.id, "step": step.step, **step_metrics(step)}) for q in finished for step in q.steps)


def step_metrics(step: StepRecord) -> dict[str, float | int | None]:
    """The numbers of a step by metric name; None where one was not measured.

    No vote and no reward names where no vote was held, no update names where no update followed.
    """
    update = {} if step.update is None else {UPDATE_METRICS[name]: step.update[name] for name in UPDATE_METRICS if name in step.update}
    values: dict[str, float | int | None] = {
        **_vote_metrics(step),
        **update,
        "tokens/sampled": step.tokens_sampled,
        "tokens/trained": step.tokens_trained,
        **{f"time/{activity}_s": value for activity, value in step.seconds.items()},
    }
    return {name: value if value is None or math.isfinite(value) else None for name, value in values.items()}


def _vote_metrics(step: StepRecord) -> dict[str, float | int | None]:
    if step.ballots is None or step.election is None or step.majority is None:
        return {}
    return {
        "vote/majority_ratio": step.election.majority_ratio,
        "vote/margin": step.election.margin,
        "vote/voters": step.election.voters,
        "vote/samples": step.election.samples,
        "vote/classes": len(set(step.ballots.class_G) - {None}),
        "vote/agrees_with_majority": int(step.election.answer == step.majority.answer),
        "reward/mean": sum(step.reward_G) / len(step.reward_G) if step.reward_G else None,
    }


def _result(question: FinishedQuestion) -> dict[str, Any]:
    record = question.record
    return {
        "id": record.id,
        "index": record.index,
        "status": record.status,
        "stop": record.stop,
        "answer": record.answer,
        "answer_source": record.answer_source,
        "polls": {name: _poll(record.polls[name]) for name in POLL_NAMES if name in record.polls},
        "steps": [_step(step) for step in question.steps],
    }


def _poll(poll: PollRecord) -> dict[str, Any]:
    return {"k": poll.k, **{name: getattr(poll.election, name) for name in _VOTE}}


def _step(step: StepRecord) -> dict[str, Any]:
    """A step; its vote is null where none was held, its gate where none closed."""
    election = step.election
    vote = dict.fromkeys(_VOTE) if election is None else {name: getattr(election, name) for name in _VOTE}
    return {**vote, "trained": step.update is not None, "gate": step.gate}


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, allow_nan=False) + "\n"
