"""The confidence vote."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from sttrl.config.rules import Group, at_least

ConfidenceKind = Literal["mean_logprob", "deepconf_mean", "deepconf_tail", "deepconf_bottom", "deepconf_lowest", "self_certainty"]


@dataclass(frozen=True, kw_only=True)
class ConfidenceVoteSettings(Group):
    """The confidence vote."""

    votes: ClassVar[frozenset[str] | None] = frozenset({"confidence"})

    confidence: ConfidenceKind = "mean_logprob"
    """The weight of a sample: exp of its mean log-prob; DeepConf's (arXiv 2508.15260) mean, tail, lowest 10 % or lowest window; or
    self-certainty (arXiv 2502.18581)."""
    confidence_window: Annotated[int, at_least(1)] = 2048
    """Tokens in a window of DeepConf (arXiv 2508.15260: 2048)."""
    confidence_top_k: Annotated[int, at_least(1)] = 20
    """How many of the likeliest tokens DeepConf's token confidence is computed from (arXiv 2508.15260: 20)."""
