"""Test-time training on rows that a problem brings, such as a puzzle's demonstrations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from sttrl.config.rules import Group, at_least


@dataclass(frozen=True, kw_only=True)
class TttSettings(Group):
    """Test-time training on rows that a problem brings, such as a puzzle's demonstrations."""

    methods: ClassVar[frozenset[str] | None] = frozenset({"ttt", "finetune"})
    needs: ClassVar[Mapping[str, tuple[str, tuple[Any, ...]]]] = dict.fromkeys(("scope", "ttt_rows"), ("adaptation_method", ("ttt",)))

    scope: Literal["problem", "dataset"] = "problem"
    """ttt: an adapter for each problem, or one for all of them."""
    ttt_rows: Annotated[int, at_least(1)] = 80
    """ttt: rows that each problem brings (derived); with --train_form marc the most (marc: 250)."""
    ttt_batch: Annotated[int, at_least(1)] = 1
    """ttt and finetune: rows in one optimiser step (derived)."""
    ttt_epochs: Annotated[int, at_least(1)] = 1
    """ttt and finetune: passes over the rows."""
