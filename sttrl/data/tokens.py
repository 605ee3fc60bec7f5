"""Tokenises prompts so that a special token written inside a question, such as ``<|im_end|>``, is plain text.

The prompt is rendered with a placeholder character (a mark) for each such token in the question. The rendered text is split at the
template's special tokens. A part that contains marks gets its original text back and is encoded without special tokens; the other parts
are encoded as usual.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

_MARKS = range(0xF0000, 0xFFFFE)
"""Code points of a private use area, which no template uses."""


class Tokenizer(Protocol):
    """The part of a transformers tokenizer that prompts need."""

    @property
    def chat_template(self) -> Any:
        """The model's chat template, or nothing."""

    @property
    def added_tokens_decoder(self) -> Mapping[int, Any]:
        """The tokens that are matched before a text is split into subwords; ``special`` is true for those that control the model."""

    def apply_chat_template(self, conversation: list[dict[str, str]], **options: Any) -> Any:
        """The conversation as text, or as {"input_ids": ...}."""

    def encode(self, text: str, **options: Any) -> list[int]:
        """Token ids of a text. Special tokens are added at its beginning unless ``add_special_tokens`` is False."""


def specials_in(texts: Sequence[str], tokenizer: Tokenizer) -> tuple[str, ...]:
    """The tokenizer's special tokens that occur in these texts, longest first."""
    known = {str(token.content) for token in tokenizer.added_tokens_decoder.values() if token.special}
    return tuple(sorted((token for token in known if any(token in text for text in texts)), key=lambda token: (-len(token), token)))


def encode_as_text(texts: Sequence[str], render: Callable[[Sequence[str]], str], tokenizer: Tokenizer, *, begins: bool) -> tuple[int, ...]:
    """Token ids of ``render(texts)``, with special tokens in the texts as plain text. ``begins``: add special tokens at the beginning."""
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
