"""The training of one policy on all problems."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from sttrl.config.rules import Group, at_least


@dataclass(frozen=True, kw_only=True)
class TrainingSettings(Group):
    """The training of one policy on all problems."""

    methods: ClassVar[frozenset[str] | None] = frozenset({"ttrl", "ttt", "finetune"})

    eval_every: Annotated[int | None, at_least(0)] = None
    """Evaluate all problems every so many steps; 0: only before and after the training; unset: ttrl 10, the others 0 (derived)."""
    checkpoint_every: Annotated[int, at_least(1)] = 10
    """Write a checkpoint every so many steps; an interrupted run is resumed from the last one (derived)."""
