"""Evaluation before and after adapting, and the fair baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from sttrl.config.rules import NOT_NEGATIVE, POSITIVE_SHARE, Group, at_least


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings(Group):
    """Evaluation before and after adapting, and the fair baseline."""

    val_samples: Annotated[int, at_least(1)] = 16
    """Samples per evaluation, before and after (TTRL: mean@16)."""
    val_temp: Annotated[float, NOT_NEGATIVE] = 0.6
    """Evaluation temperature (TTRL: 0.6)."""
    val_top_p: Annotated[float, POSITIVE_SHARE] = 0.95
    """Evaluation nucleus (TTRL: 0.95)."""
    vote_same_tokens: bool = True
    """After adapting, let the base vote with as many tokens as that took: the fair baseline."""
