"""TTRL-Guard: what is done about a question whose elected answer changes, or changed once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from sttrl.config.reinforcement import REINFORCING
from sttrl.config.rules import FRACTION, Group, at_least
from sttrl.errors import UsageError

GuardPart = Literal["frs", "mps", "rcsu"]


@dataclass(frozen=True, kw_only=True)
class GuardSettings(Group):
    """TTRL-Guard (arXiv 2605.19444); its other constants are those of its code."""

    methods: ClassVar[frozenset[str] | None] = REINFORCING
    needs: ClassVar[Mapping[str, tuple[str, tuple[Any, ...]]]] = {
        "guard_window": ("guard", ("frs", "rcsu")),
        "guard_share": ("guard", ("rcsu",)),
        "guard_skip": ("guard", ("rcsu",)),
    }

    guard: tuple[GuardPart, ...] = ()
    """Parts of TTRL-Guard: frs lowers the weight of a question whose elected answer has just changed, mps adds a bonus for frequent other
    answers then, rcsu leaves out updates on questions that are sure again."""
    guard_window: Annotated[int, at_least(1)] = 5
    """How many of the last votes on a question frs and rcsu average the majority ratio over. Before there are so many, rcsu does nothing,
    and frs does not look at the average (its code: 5)."""
    guard_share: Annotated[float, FRACTION] = 0.7
    """rcsu: a question is sure if this mean is above it (its code: 0.7; its scripts: 0.5)."""
    guard_skip: Annotated[float, FRACTION] = 0.7
    """rcsu: probability with which the update on such a question is left out (its code: 0.7)."""

    def check(self, flag: str, votes: int) -> None:
        """Raises `UsageError` unless there are enough votes on a question to compare. ``flag``: the setting that says how many."""
        for part in self.guard:
            least = self.guard_window if part == "rcsu" else 2
            if votes < least:
                message = f"--guard {part} does nothing with --{flag} {votes}: it needs {least} votes on a question."
                raise UsageError(message, f"Leave it out, or use --{flag} {least} or more.")
