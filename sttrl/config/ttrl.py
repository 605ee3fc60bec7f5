"""The training of ttrl, on all questions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from sttrl.config.rules import OPTIONAL_COUNT, Group


@dataclass(frozen=True, kw_only=True)
class TtrlSettings(Group):
    """The training of ttrl, on all questions."""

    methods: ClassVar[frozenset[str] | None] = frozenset({"ttrl"})

    train_batch_size: Annotated[int | None, OPTIONAL_COUNT] = None
    """ttrl: questions in a batch; unset: TTRL's number for the data set (AIME and AMC 8, others 32)."""
    epochs: Annotated[int | None, OPTIONAL_COUNT] = None
    """ttrl: passes over the questions; unset: TTRL's number for the data set (AIME 80, AMC 30, others 10)."""
