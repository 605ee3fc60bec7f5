"""Evaluation before and after adapting, and the baseline with the same number of tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from sttrl.config.rules import NOT_NEGATIVE, POSITIVE_FRACTION, Group, at_least


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings(Group):
    """Text questions: evaluation before and after adapting, and the baseline with the same number of tokens."""

    kinds: ClassVar[frozenset[str] | None] = frozenset({"questions"})

    val_samples: Annotated[int, at_least(1)] = 16
    """Samples per evaluation, before and after (TTRL: mean@16)."""
    val_temp: Annotated[float, NOT_NEGATIVE] = 0.6
    """Sampling temperature of evaluations (TTRL: 0.6)."""
    val_top_p: Annotated[float, POSITIVE_FRACTION] = 0.95
    """top-p of evaluations (TTRL: 0.95)."""
    vote_same_tokens: bool = True
    """After adapting, let the base model vote with as many tokens as adapting took: the fair baseline."""
