"""The numbers of a step by metric name, for metrics.jsonl and for trackers. docs/metrics.md is the glossary."""

from __future__ import annotations

import math
from statistics import fmean
from typing import Final

from sttrl.ledger.records import StepRecord

UPDATE_METRICS: Final = {
    "loss": "update/loss",
    "grad_norm": "update/grad_norm",
    "lr": "update/lr",
    "embedding_lr": "update/embedding_lr",
    "kl_to_base": "update/kl_to_base_nats",
    "logprob_gap_mean": "update/logprob_gap_mean_nats",
    "logprob_gap_max": "update/logprob_gap_max_nats",
    "logprob_correlation": "update/logprob_correlation",
    "micro_batches": "update/micro_batches",
    "optimizer_steps": "update/optimizer_steps",
    "clip_fraction": "update/clip_fraction",
    "value_loss": "update/value_loss",
    "tis_weight": "update/tis_weight",
    "forking_share": "update/forking_share",
}
"""The name in metrics.jsonl of each field of `UpdateStats`. Its ``tokens`` are ``tokens/trained``."""


def step_metrics(step: StepRecord) -> dict[str, float | int | None]:
    """The numbers of a step by metric name; None for one that was not measured.

    The names of ``vote/`` and ``reward/`` are left out if no vote was held, those of ``update/`` if no update was made.
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
        **({} if step.weight is None else {"vote/weight": step.weight}),
        "reward/mean": fmean(step.reward_G) if step.reward_G else None,
        **({"reward/demonstrations_mean": fmean(step.ballots.reward_G)} if step.ballots.reward_G else {}),
    }
