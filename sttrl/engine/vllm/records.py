"""What the sampler is asked for, and what it returns."""

from __future__ import annotations

import os
from dataclasses import dataclass

from sttrl.types import FinishReason, TopTokens

BASE = "base"
"""The weights that every fork begins with."""


@dataclass(frozen=True)
class PolicyKey:
    """Which weights to sample from: ``folder`` holds the delta and is written once, None is the base.

    ``bias_file`` holds a vector that is added to the logits, where the fork is one.
    """

    fork: str
    version: int
    folder: str | None
    bias_file: str | None = None

    @property
    def weights(self) -> str:
        """What vLLM must hold: every fork at version 0 is the base. Two exports never share a name, not even of one version."""
        return os.path.basename(self.folder) if self.folder else BASE


@dataclass(frozen=True)
class Sampled:
    """One response of the sampler: tokens, their log-probs, why it ended, and the likeliest tokens where asked for."""

    token_T: tuple[int, ...]
    logprob_T: tuple[float, ...]
    finish: FinishReason
    top_T: tuple[TopTokens, ...] = ()


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter as vLLM knows it."""

    name: str
    id: int
    folder: str
