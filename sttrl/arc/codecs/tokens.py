"""From a written puzzle to tokens, with the spans in tokens."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sttrl.arc.codecs.base import Span, Written
from sttrl.arc.codecs.drafts import shifted
from sttrl.data.tokens import Tokenizer


class GridTokenizer(Tokenizer, Protocol):
    """The part of a fast transformers tokenizer that codecs need."""

    @property
    def eos_token(self) -> str | None:
        """The end-of-text token."""

    @property
    def bos_token(self) -> str | None:
        """The begin-of-text token."""

    @property
    def bos_token_id(self) -> int | None:
        """The begin-of-text token."""

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> Any:
        """The text of ids."""

    def __call__(self, text: str, **options: Any) -> Any:
        """With ``return_offsets_mapping``: ids and the characters of each."""


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A puzzle as tokens. The spans count tokens."""

    token_T: tuple[int, ...]
    spans: tuple[Span, ...]


def encode(tokenizer: GridTokenizer, written: Written) -> Encoded:
    """Tokens of a text, after the begin-of-text token if the tokenizer adds one and the text does not have it.

    Special tokens in the text become their ids. The tokens before the answer are those of the prompt alone: where the tokenizer would
    treat the two differently together, they are encoded apart. A token belongs to the span that holds its last character.
    """
    start = next((span.start for span in written.spans if span.kind == "answer"), None)
    token_T, ends = _tokens(tokenizer, written.text)
    if start is not None:
        prompt_T, prompt_ends = _tokens(tokenizer, written.text[:start])
        if token_T[: len(prompt_T)] != prompt_T or ends[: len(prompt_ends)] != prompt_ends:
            answer_T, answer_ends = _tokens(tokenizer, written.text[start:])
            token_T, ends = prompt_T + answer_T, prompt_ends + [start + end for end in answer_ends]
    begin_T = _begin(tokenizer, token_T)
    spans = (shifted(_in_tokens(span, ends), len(begin_T)) for span in written.spans)
    return Encoded(token_T=(*begin_T, *token_T), spans=tuple(spans))


def _tokens(tokenizer: GridTokenizer, text: str) -> tuple[list[int], list[int]]:
    """Ids, and for each the place in the text where it ends."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    return list(encoded["input_ids"]), [int(end) for _, end in encoded["offset_mapping"]]


def _begin(tokenizer: GridTokenizer, token_T: Sequence[int]) -> tuple[int, ...]:
    begin = tokenizer.bos_token_id
    if begin is None or token_T[:1] == [begin] or begin not in tokenizer.encode("", add_special_tokens=True)[:1]:
        return ()
    return (begin,)


def _in_tokens(span: Span, ends: Sequence[int]) -> Span:
    return Span(kind=span.kind, start=bisect_right(ends, span.start), end=bisect_right(ends, span.end), demo=span.demo)
