"""The confidence vote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Literal

from sttrl.config.rules import Group, at_least

ConfidenceKind = Literal[
    "mean_logprob", "deepconf_mean", "deepconf_tail", "deepconf_bottom", "deepconf_lowest", "self_certainty", "step_mean", "step_surprisal",
]  # fmt: skip
BY_STEP: Final[frozenset[ConfidenceKind]] = frozenset({"step_mean", "step_surprisal"})
"""The confidences that are means over reasoning steps."""


@dataclass(frozen=True, kw_only=True)
class ConfidenceVoteSettings(Group):
    """The confidence vote."""

    votes: ClassVar[frozenset[str] | None] = frozenset({"confidence"})
    needs: ClassVar[Mapping[str, tuple[str, tuple[Any, ...]]]] = {
        "confidence_window": ("confidence", ("deepconf_tail", "deepconf_bottom", "deepconf_lowest")),
        "confidence_top_k": ("confidence", ("deepconf_mean", "deepconf_tail", "deepconf_bottom", "deepconf_lowest", "step_mean")),
    }

    confidence: ConfidenceKind = "mean_logprob"
    """The weight of a sample: exp of its mean log-prob; DeepConf's (arXiv 2508.15260) mean, tail, lowest 10 % or lowest window;
    self-certainty (arXiv 2502.18581); or the mean of its reasoning steps' means (SCOPE, arXiv 2512.15146) of DeepConf's token confidence
    (step_mean, the paper) or of -log p of the sampled tokens (step_surprisal, its code)."""
    confidence_window: Annotated[int, at_least(1)] = 2048
    """Tokens in a window of DeepConf (arXiv 2508.15260: 2048)."""
    confidence_top_k: Annotated[int, at_least(1)] = 20
    """How many of the likeliest tokens DeepConf's and SCOPE's token confidence is computed from (arXiv 2508.15260: 20)."""
