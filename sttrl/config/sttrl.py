"""What ends sttrl early."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from sttrl.config.rules import NOT_NEGATIVE, SHARE, Group


@dataclass(frozen=True, kw_only=True)
class SttrlSettings(Group):
    """What ends sttrl early."""

    methods: ClassVar[frozenset[str] | None] = frozenset({"sttrl"})

    max_flip_rate: Annotated[float, SHARE] = 1.0
    """Gate: stop adapting once the elected answer changed in more than this share of the steps."""
    kl_budget: Annotated[float | None, NOT_NEGATIVE] = None
    """Stop adapting once the KL divergence to the base, in nats a token, exceeds this."""
