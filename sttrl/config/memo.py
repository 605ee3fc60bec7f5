"""memo's marginal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from sttrl.config.rules import Group, at_least

MemoForm = Literal["answer", "token"]


@dataclass(frozen=True, kw_only=True)
class MemoSettings(Group):
    """memo's marginal."""

    methods: ClassVar[frozenset[str] | None] = frozenset({"memo"})

    memo_form: MemoForm = "answer"
    """memo's marginal: of the sampled answers, or of the next token over views of the prompt."""
    memo_views: Annotated[int, at_least(2)] = 8
    """Views of the prompt of --memo_form token (derived)."""
