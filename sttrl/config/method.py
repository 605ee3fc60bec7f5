"""How the policy adapts, and for how long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from sttrl.config.rules import POSITIVE_SHARE, Group, at_least

AdaptationMethod = Literal["sttrl", "ttrl", "ttft", "slot", "memo", "none"]


@dataclass(frozen=True, kw_only=True)
class MethodSettings(Group):
    """How the policy adapts, and for how long."""

    adaptation_method: AdaptationMethod = "sttrl"
    """sttrl: vote, reward agreement, update by policy gradient, per question. ttrl: the same over batches of all questions.
    ttft: fine-tune on the samples that agree. slot: tune a vector on the prompt. memo: lower the entropy of the answers.
    none: the base model alone."""
    continuous: bool = False
    """Keep one policy for the whole run instead of a fresh fork for every question."""
    steps: Annotated[int | None, at_least(0)] = None
    """Steps per question at most; unset: sttrl 5 and ttft 5 (derived), slot 5 and memo 1 (their READMEs)."""
    stop_agreement: Annotated[float, POSITIVE_SHARE] = 1.0
    """Stop adapting once this share of the samples agrees; 1.0 stops at unanimity only."""
