"""One training on all questions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from sttrl.config.rules import OPTIONAL_COUNT, Group, at_least


@dataclass(frozen=True, kw_only=True)
class TtrlSettings(Group):
    """One training on all questions."""

    methods: ClassVar[frozenset[str] | None] = frozenset({"ttrl"})

    train_batch_size: Annotated[int | None, OPTIONAL_COUNT] = None
    """ttrl: questions of a batch; unset: TTRL's of the data set (AIME and AMC 8, others 32)."""
    epochs: Annotated[int | None, OPTIONAL_COUNT] = None
    """ttrl: passes over the questions; unset: TTRL's of the data set (AIME 80, AMC 30, others 10)."""
    eval_every: Annotated[int, at_least(0)] = 10
    """ttrl: evaluate all questions after so many steps; 0: before and after only (derived)."""
    checkpoint_every: Annotated[int, at_least(1)] = 10
    """ttrl: write the policy's state after so many steps, to go on from after an interruption (derived)."""
