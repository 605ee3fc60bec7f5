"""Which tokens a model keeps when its vocabulary is cut to what a codec needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from sttrl.arc.codecs.base import Codec, SmallCodec
from sttrl.arc.codecs.tokens import GridTokenizer
from sttrl.errors import UsageError

NEW_PAD = "<|pad|>"
"""The padding token where the model has none that is not its end of text."""


class OldTokenizer(GridTokenizer, Protocol):
    """The part of a tokenizer that choosing needs."""

    @property
    def bos_token(self) -> str | None:
        """The begin-of-text token."""

    @property
    def pad_token(self) -> str | None:
        """The token that fills batches."""

    @property
    def unk_token(self) -> str | None:
        """The token for unknown text."""

    @property
    def unk_token_id(self) -> int | None:
        """Its id."""

    def get_vocab(self) -> Any:
        """Ids by token."""


@dataclass(frozen=True, kw_only=True)
class SmallVocabulary:
    """A new vocabulary. The padding token is never the end mark, and also stands for unknown text.

    ``source_V``: the old tokens that a new one comes from. One: it is that token; several: the text is in pieces in the old vocabulary, and
    its embedding is the mean of theirs; none: the old vocabulary has no such text.
    """

    token_V: tuple[str, ...]
    special: tuple[str, ...]
    source_V: tuple[tuple[int, ...], ...]
    begin: str | None
    end: str
    pad: str

    def made_up(self) -> tuple[str, ...]:
        """The texts that are no single token of the old vocabulary."""
        return tuple(token for token, source in zip(self.token_V, self.source_V, strict=True) if len(source) != 1)


def small_vocabulary(name: str, codec: Codec, tokenizer: OldTokenizer) -> SmallVocabulary:
    """What a model keeps for this codec. Raises `UsageError` for a codec whose texts need words of the model's own."""
    if not isinstance(codec, SmallCodec):
        raise UsageError(f"--codec {name}: its texts need the model's own words.", "Take cells or dialogue, or the model as it is.")
    alphabet = codec.alphabet()
    begin = tokenizer.bos_token if tokenizer.bos_token_id in tokenizer.encode("", add_special_tokens=True)[:1] else None
    pad = alphabet.pad or next(
        token for token in (tokenizer.pad_token, tokenizer.unk_token, NEW_PAD) if token not in (None, begin, alphabet.end)
    )
    assert pad is not None and pad != alphabet.end
    special = tuple(dict.fromkeys((*alphabet.special, pad, *([begin] if begin else []))))
    token_V, old = (*alphabet.plain, *special), tokenizer.get_vocab()
    source_V = tuple(_source(token, old, tokenizer) for token in token_V)
    return SmallVocabulary(token_V=token_V, special=special, source_V=source_V, begin=begin, end=alphabet.end, pad=pad)


def _source(text: str, old: Mapping[str, int], tokenizer: OldTokenizer) -> tuple[int, ...]:
    """The token of this text, of this byte, or the tokens it is split into."""
    for spelling in (text, f"<0x{ord(text):02X}>" if len(text) == 1 else text):
        if spelling in old:
            return (int(old[spelling]),)
    return tuple(token for token in tokenizer.encode(text, add_special_tokens=False) if token != tokenizer.unk_token_id)
