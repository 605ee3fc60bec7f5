"""Where the reasoning steps of a response end: after every blank line, as in szu-tera/SCOPE (arXiv 2512.15146)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

BREAK = "\n\n"


def reasoning_steps(text_T: Sequence[str]) -> tuple[int, ...]:
    """The number of each token's step, ``_T``, counted from 0. ``text_T``: the text of each token.

    A step ends with a token that has a blank line in it, or that completes one which the token before it began. The authors' code looks
    for one token only; the second rule is for tokenizers that write a blank line as two tokens (derived).
    """
    step, before, number_T = 0, "", []
    for text in text_T:
        number_T.append(step)
        ends = BREAK in text or (before.endswith("\n") and text.startswith("\n"))
        step, before = step + ends, "" if ends else text
    return tuple(number_T)


def steps_of(token_GT: Sequence[Sequence[int]], decode: Callable[[list[list[int]]], list[str]]) -> list[tuple[int, ...]]:
    """`reasoning_steps` of each response, ``_GT``. ``decode``: the texts of sequences of tokens; it is asked once for each token."""
    tokens = sorted({token for token_T in token_GT for token in token_T})
    texts = decode([[token] for token in tokens]) if tokens else []  # a tokenizer takes an empty batch for one empty sequence
    text_of = dict(zip(tokens, texts, strict=True))
    return [reasoning_steps([text_of[token] for token in token_T]) for token_T in token_GT]
