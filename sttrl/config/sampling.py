"""The samples that a policy adapts on, and the longest response."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from sttrl.config.rules import POSITIVE_FRACTION, Group, Rule, at_least

VARIED = Rule(lambda value: 0 < value < float("inf"), "Votes need samples that differ: use a finite temperature above 0.")


@dataclass(frozen=True, kw_only=True)
class SamplingSettings(Group):
    """The samples that a policy adapts on, and the longest response."""

    without: ClassVar[frozenset[str]] = frozenset({"finetune"})

    n_votes: Annotated[int, at_least(1)] = 64
    """Samples that vote in each step (TTRL: 64)."""
    n_train: Annotated[int, at_least(2)] = 32
    """How many of those samples are trained on (TTRL: 32, the first ones)."""
    temp: Annotated[float, VARIED] = 1.0
    """Sampling temperature while adapting (TTRL: 1.0 for Qwen2.5-Math, 0.6 for other models)."""
    top_p: Annotated[float, POSITIVE_FRACTION] = 1.0
    """top-p while adapting (TTRL: 1.0)."""
    max_response_tokens: Annotated[int, at_least(1)] = 3072
    """Longest response; a response cut here does not vote (TTRL: 3072)."""
