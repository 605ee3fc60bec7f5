"""What the votes on a question so far, the present one included, say of an update on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from sttrl.config import RunConfig
from sttrl.ledger.records import StepRecord
from sttrl.objectives.restrain import RestrainConfig, prompt_weight
from sttrl.types import HeldVote


def weighed(config: RunConfig, vote: HeldVote, past: Sequence[StepRecord]) -> HeldVote:
    """A vote with the weight of its question. ``past``: the earlier steps that asked the same prompt."""
    if config.reinforcement.reward == "restrain" and config.restrain.restrain_prompt_weight:
        first = next((step.ballots.class_G for step in past if step.ballots is not None), vote.ballots.class_G)
        return replace(vote, weight=prompt_weight(_largest_share(first), RestrainConfig.of(config)))
    return vote


def _largest_share(class_G: Sequence[int | None]) -> float:
    """The share of the samples that gave the most frequent answer; 0 if none gave any."""
    count = Counter(c for c in class_G if c is not None)
    return max(count.values(), default=0) / len(class_G)
