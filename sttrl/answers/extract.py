"""Find the raw answer in a response: the last balanced box, then "answer is ...", then (numbers only) the last number."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Final

from sttrl.answers.choice import chosen_letter
from sttrl.answers.notation import SPELLINGS
from sttrl.types import Answer, AnswerKind, FinishReason

_BOX_TOKEN: Final = re.compile(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
_PHRASE: Final = re.compile(r"\banswer\b(?:[^\n.:=]{0,60}?\bis\b|[\s*]*[:=])[\s:*]*", re.IGNORECASE)
_STATEMENT_END: Final = re.compile(r"[.;!?](?=\s|\*|$)|,?\s(?:because|since|which|where|as)\s|\n")
_MATHEMATICAL: Final = re.compile(r"[\d\\=+^]|^[A-Za-z]$")
_WORD: Final = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_DELIMITERS: Final = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))
_PHRASES_READ: Final = 16
_WORDS_ALLOWED: Final = 4

_FRACTION: Final = r"\\[dtc]?frac\s*(?:\{[^{}]*\}\s*\{[^{}]*\}|\d\s*\d)|(?:\d{1,9}\s)?\d+\s?/\s?\d+"
_DECIMAL: Final = r"(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{1,3}(?!\w))?"
NUMBER: Final = re.compile(rf"(?<![\w.^{{}}\\])[-+]?\s?\\?\$?(?:{_FRACTION}|{_DECIMAL})(?:\s?\\?%|\spercent\b)?", re.ASCII)
"""A number in running text, with its sign, currency mark and percent sign; a fraction is one number, never its denominator."""


def extract(text: str, kind: AnswerKind, finish: FinishReason, option_count: int | None = None) -> Answer:
    """The raw answer of a response, as written there (for ``choice``: the letter), or the reason why there is none.

    Nothing is extracted from a text cut at the token limit (``finish == "length"``). ``option_count``: how many options a
    choice question has, lettered from A; a later letter is no answer.
    """
    if finish == "length":
        return Answer(text=None, invalid="cut")
    text = text.translate(SPELLINGS)
    raw = chosen_letter(text, boxes(text), option_count) if kind == "choice" else _raw(text, kind)
    return Answer(text=None, invalid="unparsable") if raw is None else Answer(text=raw)


def boxes(text: str) -> list[tuple[int, str]]:
    r"""Start and content of every balanced ``\boxed{...}`` or ``\fbox{...}``, in the order in which they close."""
    found: list[tuple[int, str]] = []
    open_braces: list[tuple[int, int] | None] = []
    for token in _BOX_TOKEN.finditer(text):
        mark = token[0]
        if mark == "{":
            open_braces.append(None)
        elif mark == "}":
            box = open_braces.pop() if open_braces else None
            if box is not None:
                found.append((box[0], text[box[1] : token.start()]))
        elif mark.endswith("{") and len(mark) > 2:
            open_braces.append((token.start(), token.end()))
    return found


def _raw(text: str, kind: AnswerKind) -> str | None:
    for _, content in reversed(boxes(text)):
        if content.strip():
            return content.strip()
    for statement in _statements(text):
        answer = _stated_number(statement) if kind == "number" else _stated_mathematics(statement)
        if answer is not None:
            return answer
    return _last_number(text) if kind == "number" else None


def _statements(text: str) -> Iterator[str]:
    """What follows each "answer is", from the last one back, up to the end of its formula or sentence."""
    ends = [phrase.end() for phrase in _PHRASE.finditer(text)]
    for end in islice(reversed(ends), _PHRASES_READ):
        for opening, closing in _DELIMITERS:
            if text.startswith(opening, end):
                stop = text.find(closing, end + len(opening))
                break
        else:
            match = _STATEMENT_END.search(text, end)
            stop, opening = (match.start() if match else len(text)), ""
        if stop > end:
            yield text[end + len(opening) : stop].strip(" *")


def _stated_mathematics(statement: str) -> str | None:
    """The statement itself, unless it reads as prose: a sentence must not become a vote."""
    prose = len(_WORD.findall(statement[:2000])) > _WORDS_ALLOWED
    return statement if not prose and _MATHEMATICAL.search(statement) else None


def _stated_number(statement: str) -> str | None:
    number = NUMBER.search(statement.rpartition("=")[2])
    return number[0].strip() if number else None


def _last_number(text: str) -> str | None:
    latest = deque(NUMBER.finditer(text), maxlen=1)
    return latest[0][0].strip() if latest else None
