"""The text of each token of a response, from the tokenizer of the run's model, for pages that colour a text by token."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from sttrl.engine.models import local_file

HALF: Final = "\ufffd"
"""What a tokenizer writes for a part of a character."""


class TokenTexts:
    """Splits a response's text into the texts of its tokens. ``file``: a tokenizer.json."""

    def __init__(self, file: Path) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(file))
        self._known: dict[tuple[int, bool], str] = {}

    def __call__(self, token_T: Sequence[int], text: str) -> list[str] | None:
        """The text of each token; together they are ``text``. None if the tokens are not those of the text.

        The text of a character that several tokens share is at the last of them.
        """
        for skip_special in (True, False):
            pieces = [self._alone(token, skip_special) for token in token_T]
            if "".join(pieces) == text:
                return pieces
        for skip_special in (True, False):
            pieces = self._in_context(token_T, skip_special)
            if "".join(pieces) == text:
                return pieces
        return None

    def _alone(self, token: int, skip_special: bool) -> str:
        if (token, skip_special) not in self._known:
            self._known[token, skip_special] = self._tokenizer.decode([token], skip_special_tokens=skip_special)
        return self._known[token, skip_special]

    def _in_context(self, token_T: Sequence[int], skip_special: bool) -> list[str]:
        """What each token adds to the text of the tokens before it: a tokenizer may write a token differently at the beginning."""
        begin, end, pieces = 0, 0, list[str]()
        for place in range(1, len(token_T) + 1):
            before = self._tokenizer.decode(token_T[begin:end], skip_special_tokens=skip_special)
            after = self._tokenizer.decode(token_T[begin:place], skip_special_tokens=skip_special)
            whole = not after.endswith(HALF) or place == len(token_T)
            pieces.append(after[len(before) :] if whole else "")
            if whole:
                begin, end = end, place
        return pieces


def pieces_of(config: Mapping[str, Any]) -> TokenTexts | None:
    """The texts of the tokens of a run's model. ``config``: the content of config.json. Nothing is downloaded or converted.

    None if the tokenizer is not on this machine, or not in the format of the library tokenizers.
    """
    file = local_file(str(config.get("model")), "tokenizer.json", config.get("model_revision"))
    if file is None:
        return None
    try:
        json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return TokenTexts(file)
