"""Two early stops of sttrl."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from sttrl.config.rules import FRACTION, NOT_NEGATIVE, Group


@dataclass(frozen=True, kw_only=True)
class SttrlSettings(Group):
    """Two early stops of sttrl."""

    methods: ClassVar[frozenset[str] | None] = frozenset({"sttrl"})

    max_flip_rate: Annotated[float, FRACTION] = 1.0
    """Stop adapting once the elected answer changed between more than this fraction of successive votes."""
    kl_budget: Annotated[float | None, NOT_NEGATIVE] = None
    """Stop adapting once the KL divergence to the base, in nats a token, exceeds this."""
