"""The reward scope."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from sttrl.config.reinforcement import REINFORCING
from sttrl.config.rules import FRACTION, OPTIONAL_COUNT, Group
from sttrl.config.vote import WEIGHING
from sttrl.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class ScopeSettings(Group):
    """The reward scope (arXiv 2512.15146)."""

    methods: ClassVar[frozenset[str] | None] = REINFORCING
    needs: ClassVar[Mapping[str, tuple[str, tuple[Any, ...]]]] = dict.fromkeys(("scope_votes", "scope_quality"), ("reward", ("scope",)))

    scope_votes: Annotated[int | None, OPTIONAL_COUNT] = None
    """Samples that are drawn for the label of a subgroup; unset: half of those that vote (SCOPE's scripts: 32 of 64)."""
    scope_quality: Annotated[float, FRACTION] = 0.7
    """What counts when the size of the subgroups is chosen: 1, the mean reward alone; 0, how many different labels there are (SCOPE's
    scripts: 0.7)."""

    def check(self, reward: str, vote: str, n_votes: int) -> None:
        """Raises `UsageError` if the reward is scope, and the vote has no weights of single samples, of which its labels are made, or all
        labels would be made of the same samples."""
        if reward == "scope" and vote not in WEIGHING:
            raise UsageError(
                f"--reward scope with --voting_function {vote}: its labels need the weights of the samples.",
                f"Use --voting_function {', '.join(WEIGHING)}, or another reward.",
            )
        if reward == "scope" and self.scope_votes is not None and self.scope_votes >= n_votes > 1:
            raise UsageError(
                f"--scope_votes {self.scope_votes} with --n_votes {n_votes}: every subgroup would have the label of all samples.",
                f"Use --scope_votes {n_votes // 2}, or more votes.",
            )
