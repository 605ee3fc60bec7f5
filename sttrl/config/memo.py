"""The marginal distribution whose entropy memo lowers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from sttrl.config.rules import Group

MemoForm = Literal["answer", "token"]


@dataclass(frozen=True, kw_only=True)
class MemoSettings(Group):
    """The marginal distribution whose entropy memo lowers."""

    methods: ClassVar[frozenset[str] | None] = frozenset({"memo"})
    kinds: ClassVar[frozenset[str] | None] = frozenset({"questions"})

    memo_form: MemoForm = "answer"
    """memo: lower the entropy of the sampled answers, or of the next token averaged over the views of --question_views."""
