"""Test-time training on rows that a problem brings, such as a puzzle's demonstrations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from sttrl.config.rules import Group, at_least


@dataclass(frozen=True, kw_only=True)
class TttSettings(Group):
    """Test-time training on rows that a problem brings, such as a puzzle's demonstrations."""

    methods: ClassVar[frozenset[str] | None] = frozenset({"ttt"})

    scope: Literal["problem", "dataset"] = "problem"
    """ttt: an adapter for each problem, or one for all of them."""
    ttt_rows: Annotated[int, at_least(1)] = 80
    """ttt: rows that each problem brings (derived)."""
    ttt_batch: Annotated[int, at_least(1)] = 1
    """ttt: rows in one optimiser step (derived)."""
    ttt_epochs: Annotated[int, at_least(1)] = 1
    """ttt: passes over the rows."""
