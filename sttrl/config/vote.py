"""How samples elect a pseudo-label, and when the vote is not trusted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from sttrl.config.rules import SHARE, Group

VotingFunction = Literal["majority", "energy", "confidence"]
ELECTING = frozenset({"sttrl", "ttrl", "ttft"})
"""The methods that hold votes."""


@dataclass(frozen=True, kw_only=True)
class VoteSettings(Group):
    """How samples elect a pseudo-label, and when the vote is not trusted."""

    methods: ClassVar[frozenset[str] | None] = ELECTING

    voting_function: VotingFunction = "majority"
    """How samples elect the pseudo-label: majority of equivalent answers; or each weighed by its energy or its confidence."""
    ties: Literal["abstain", "first", "confidence"] = "abstain"
    """A tied vote: elect nobody and stop; or the class seen first in seed order; or that of higher mean confidence."""
    min_margin: Annotated[float, SHARE] = 0.0
    """Gate: no update after a vote whose winner leads by less than this share."""
    min_agreement: Annotated[float, SHARE] = 0.0
    """Gate: no update after a vote whose winner has less than this share of the samples."""
