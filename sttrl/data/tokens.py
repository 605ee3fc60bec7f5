"""From prompts to token ids, so that a special token written inside a question is text and nothing else.

A prompt is rendered with a mark in the place of each such text. Between two special tokens of the template, a stretch that
holds marks is encoded as plain text, with the marks undone; everything else as always.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

_MARKS = range(0xF0000, 0xFFFFE)
"""Characters of a private use area, which no template reads."""


class Tokenizer(Protocol):
    """The part of a transformers tokenizer that prompts need."""

    @property
    def chat_template(self) -> Any:
        """The model's chat template, or nothing."""

    @property
    def added_tokens_decoder(self) -> Mapping[int, Any]:
        """The tokens that are found in a text before it is split into others; ``special`` marks those that control the model."""

    def apply_chat_template(self, conversation: list[dict[str, str]], **options: Any) -> Any:
        """The conversation as text, or as {"input_ids": ...}."""

    def encode(self, text: str, **options: Any) -> list[int]:
        """Token ids of a text, with the special tokens a plain text begins with unless ``add_special_tokens`` is False."""


def specials_in(texts: Sequence[str], tokenizer: Tokenizer) -> tuple[str, ...]:
    """The tokenizer's special tokens that stand in one of these texts, longest first."""
    known = {str(token.content) for token in tokenizer.added_tokens_decoder.values() if token.special}
    return tuple(sorted((token for token in known if any(token in text for text in texts)), key=lambda token: (-len(token), token)))


def encode_as_text(texts: Sequence[str], render: Callable[[Sequence[str]], str], tokenizer: Tokenizer, *, begins: bool) -> tuple[int, ...]:
    """Token ids of what ``render`` makes of the texts, in which special tokens are text. ``begins``: add what a plain text begins with."""
    marks = _marks(specials_in(texts, tokenizer), texts)
    rendered = render([_replaced(text, marks) for text in texts])
    undo = {mark: token for token, mark in marks.items()}
    every = sorted((str(token.content) for token in tokenizer.added_tokens_decoder.values() if token.special), key=len, reverse=True)
    ids: list[int] = []
    before = ""
    for stretch in re.split(f"({'|'.join(map(re.escape, every))})", rendered):
        if not any(mark in stretch for mark in undo):
            before += stretch
            continue
        ids += tokenizer.encode(before, add_special_tokens=begins and not ids) if before or (begins and not ids) else []
        ids += tokenizer.encode(_replaced(stretch, undo), add_special_tokens=False, split_special_tokens=True)
        before = ""
    return (*ids, *(tokenizer.encode(before, add_special_tokens=False) if before else ()))


def _marks(tokens: Sequence[str], texts: Sequence[str]) -> dict[str, str]:
    free = (chr(code) for code in _MARKS if not any(chr(code) in text for text in texts))
    return dict(zip(tokens, free, strict=False))


def _replaced(text: str, replacements: Mapping[str, str]) -> str:
    for old, new in replacements.items():
        text = text.replace(old, new)
    return text
