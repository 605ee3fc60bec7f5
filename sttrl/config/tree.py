"""How the samples of a vote are drawn: each alone, or as trees that fork where the policy is unsure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from sttrl.config.rules import Group, at_least
from sttrl.config.vote import ELECTING, VoteSettings
from sttrl.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class TreeSettings(Group):
    """How the samples of a vote are drawn (ETTRL, arXiv 2508.11356)."""

    methods: ClassVar[frozenset[str] | None] = ELECTING
    needs: ClassVar[Mapping[str, tuple[str, tuple[Any, ...]]]] = dict.fromkeys(("fork_points", "fork_branches"), ("rollouts", ("tree",)))

    rollouts: Literal["parallel", "tree"] = "parallel"
    """Draw every sample alone, or trees: a whole response, and others that leave it at its tokens of highest entropy (ETTRL)."""
    fork_points: Annotated[int, at_least(1)] = 2
    """Tokens of a tree's first response at which others leave it (ETTRL: 2)."""
    fork_branches: Annotated[int, at_least(1)] = 2
    """Responses that leave it at each of these tokens (ETTRL: 2)."""

    @property
    def responses(self) -> int:
        """Responses of a tree."""
        return 1 + self.fork_points * self.fork_branches if self.rollouts == "tree" else 1

    def check(self, vote: VoteSettings, n_votes: int, views: int) -> None:
        """Raises `UsageError` unless the samples are whole trees of one prompt, all drawn at once. ``views``: of each question."""
        if self.rollouts == "parallel":
            return
        if n_votes % self.responses:
            lower = n_votes - n_votes % self.responses
            raise UsageError(
                f"--n_votes {n_votes} with --rollouts tree: a tree has {self.responses} responses.",
                f"Use --n_votes {f'{lower} or ' if lower else ''}{lower + self.responses}.",
            )
        if vote.votes_until is not None:
            raise UsageError(
                f"--votes_until {vote.votes_until} with --rollouts tree: whole trees are drawn at once.",
                "Leave it out, or use --rollouts parallel.",
            )
        if views > 1:
            raise UsageError(
                f"--question_views {views} with --rollouts tree: all responses of a tree answer one prompt.",
                "Use --question_views 1, or --rollouts parallel.",
            )
