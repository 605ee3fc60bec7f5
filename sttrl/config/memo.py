"""The marginal distribution whose entropy memo lowers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from sttrl.config.rules import Group, at_least

MemoForm = Literal["answer", "token"]


@dataclass(frozen=True, kw_only=True)
class MemoSettings(Group):
    """The marginal distribution whose entropy memo lowers."""

    methods: ClassVar[frozenset[str] | None] = frozenset({"memo"})
    kinds: ClassVar[frozenset[str] | None] = frozenset({"questions"})

    memo_form: MemoForm = "answer"
    """memo: lower the entropy of the sampled answers, or of the next token averaged over views of the prompt."""
    memo_views: Annotated[int, at_least(2)] = 8
    """Number of views of the prompt in --memo_form token (derived)."""
