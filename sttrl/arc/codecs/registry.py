"""The codecs by name.

To add one: write a file with a frozen dataclass that has the methods of `Codec`, and add a line to `CODECS`: the name that ``--codec``
takes, and a function from the model's tokenizer to the codec. If every token of its texts is one of a few, give it a method
``alphabet()``; then ``shrink`` can cut a model for it. A codec that lives elsewhere is named as ``package.module:Name``.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Final

from sttrl.arc.codecs.base import Codec
from sttrl.arc.codecs.cells import Cells
from sttrl.arc.codecs.chat import Chat
from sttrl.arc.codecs.colour_words import ColourWords
from sttrl.arc.codecs.dialogue import Dialogue
from sttrl.arc.codecs.layouts import Template, marc_layout
from sttrl.arc.codecs.numpy_text import NumpyText
from sttrl.arc.codecs.tokens import GridTokenizer
from sttrl.config.arc import CODEC
from sttrl.config.extensions import Part, check_fits, imported, installed
from sttrl.errors import UsageError

CODECS: Final[Mapping[str, Callable[[GridTokenizer], Codec]]] = {
    "cells": lambda tokenizer: Cells(end=_end_of_text(tokenizer)),
    "cells_kaggle": lambda tokenizer: Cells(end=_end_of_text(tokenizer), too_many_rows="cut"),
    "cells_16": lambda tokenizer: Cells(begin=_begin_of_text(tokenizer), preprompt="", reply_begin="\nO", end=_end_of_text(tokenizer)),
    "dialogue": lambda _: Dialogue(),
    "numpy": lambda tokenizer: NumpyText(layout=marc_layout(tokenizer)),
    "numpy_plain": lambda tokenizer: NumpyText(layout=marc_layout(tokenizer), footer=""),
    "numpy_diff": lambda tokenizer: NumpyText(layout=marc_layout(tokenizer), difference=True),
    "words": lambda tokenizer: ColourWords(layout=marc_layout(tokenizer)),
    "words_dated": lambda tokenizer: ColourWords(layout=marc_layout(tokenizer), dated=True),
    "chat": lambda tokenizer: Chat(layout=Template.of(tokenizer)),
}

WRITES_AND_READS: Final = (Part("write", ("puzzle",)), Part("read", ("reply", "query")), Part("answer", ("grid", "query")))
"""The functions of a `Codec`, and how they are called."""
PAGE: Final = "how_to_add_to_arc.md"


def check_codec(name: str) -> None:
    """Raises `UsageError` for a name that is neither in `CODECS` nor code of others that fits."""
    if name not in CODECS and CODEC.reference(name) is None:
        near = difflib.get_close_matches(name, CODECS, n=2)
        meant = f"Did you mean {' or '.join(near)}? " if near else ""
        raise UsageError(f"There is no codec {name!r}.", f"{meant}There are {', '.join((*CODECS, *installed(CODEC)))}.")
    maker_of(name)


def maker_of(name: str) -> Callable[[GridTokenizer], Codec]:
    """What makes the codec of this name, or what ``package.module:Name`` names. Raises `UsageError` if it cannot be called so."""
    if name in CODECS:
        return CODECS[name]
    found = imported(CODEC, name)
    check_fits(CODEC, name, found, [Part("", ("tokenizer",))], PAGE)
    maker: Callable[[GridTokenizer], Codec] = found
    return maker


def codec_for(name: str, tokenizer: GridTokenizer) -> Codec:
    """The codec of this name for a model. Raises `UsageError` if there is none, or if it does not fit the tokenizer."""
    check_codec(name)
    if not getattr(tokenizer, "is_fast", True):
        raise UsageError("The model's tokenizer does not say where its tokens are in a text.", "Use a model with a fast tokenizer.")
    codec = maker_of(name)(tokenizer)
    if name not in CODECS:
        check_fits(CODEC, name, codec, WRITES_AND_READS, PAGE)
    return codec


def _begin_of_text(tokenizer: GridTokenizer) -> str:
    """A special token that can begin a text: the model's own, or one that it has for another purpose."""
    end = _end_of_text(tokenizer)
    special = [str(token.content) for _, token in sorted(tokenizer.added_tokens_decoder.items()) if token.special]
    return next((token for token in (tokenizer.bos_token, *special) if token not in (None, end)), None) or ""


def _end_of_text(tokenizer: GridTokenizer) -> str:
    if tokenizer.eos_token is None:
        raise UsageError("The model's tokenizer has no end-of-text token.", "Use another model.")
    return tokenizer.eos_token
