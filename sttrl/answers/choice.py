"""Strict reading of a choice letter A to D: capitals only, never from inside a word, never two that differ."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

_WRAPPER: Final = re.compile(r"\\(?:text|textbf|textrm|mathrm|mathbf|bf|rm|left|right|displaystyle)(?![A-Za-z])|[{}$*`~]|\\[()\[\],;! ]")
_LETTER: Final = re.compile(r"(?:\(([A-D])\)|([A-D])\)?)[.:]?")
_DESCRIBED: Final = re.compile(r"(?:\(([A-D])\)|([A-D])[).:])(?:\s.*)?", re.DOTALL)
_SEVERAL: Final = re.compile(r"\(?([A-D])\)?(?:\s*[,/&;]\s*|\s+)(?:(?:and|or)\s+)?\(?([A-D])\)?(?![A-Za-z0-9'])")
_PHRASE: Final = re.compile(
    r"\banswer\b(?:\s+(?:choice|option))?\s*(?:is|:|would be|must be)[\s:]*(?:(?:option|choice)\s+)?",
    re.IGNORECASE,
)
_STATEMENT_CHARS: Final = 40
_STATED: Final = re.compile(r"\(([A-D])\)|([A-D])(?:\)|(?=[.,;:]|\s*$|\s+(?:because|since|and|or|as)\b|\s*[/&(]))")


def letters_in(content: str) -> frozenset[str]:
    r"""The letters that ``content`` consists of: one for ``B``, ``(B)``, ``\text{B}``, ``B) 10 m``; two for ``A or B``."""
    plain = _WRAPPER.sub("", content).strip()
    several = _SEVERAL.match(plain)
    if several:
        return frozenset(several.groups())
    match = _LETTER.fullmatch(plain) or _DESCRIBED.fullmatch(plain)
    return frozenset(letter for letter in match.groups() if letter) if match else frozenset()


def chosen_letter(text: str, boxes: Sequence[tuple[int, str]], option_count: int | None = None) -> str | None:
    """The letter that a response settles on, or None; with ``option_count`` options, a later letter is no answer."""
    letter = _settled(text, boxes)
    return letter if letter is None or option_count is None or ord(letter) - ord("A") < option_count else None


def _settled(text: str, boxes: Sequence[tuple[int, str]]) -> str | None:
    """The one letter a response settles on, or None.

    Read from the line of the last box with a letter to the end; without one, from the last line that says "answer is"; without
    that, from a last line that is a letter alone. Two different letters there are no answer; earlier lines do not count.
    ``boxes``: start and content of every box in ``text``.
    """
    boxed = [(start, letters) for start, content in boxes if (letters := letters_in(content))]
    if boxed:
        line = text.rfind("\n", 0, boxed[-1][0]) + 1
        return _only(frozenset().union(*(letters for start, letters in boxed if start >= line), _stated(text[line:])))
    for line_text in reversed(_WRAPPER.sub("", text).split("\n")):
        stated = _stated(line_text)
        if stated:
            return _only(stated)
    return _only(_stated(text)) or _lone(text)


def _stated(text: str) -> frozenset[str]:
    """The letters of every "answer is B" in ``text``."""
    letters: frozenset[str] = frozenset()
    plain = _WRAPPER.sub("", text)
    for phrase in _PHRASE.finditer(plain):
        statement = plain[phrase.end() : phrase.end() + _STATEMENT_CHARS].partition("\n")[0]
        match = _STATED.match(statement)
        if match:
            several = _SEVERAL.match(statement)
            letters |= frozenset(several.groups() if several else (match[1] or match[2],))
    return letters


def _lone(text: str) -> str | None:
    last_line = _WRAPPER.sub("", text).rstrip().rpartition("\n")[2].strip()
    match = _LETTER.fullmatch(last_line)
    return (match[1] or match[2]) if match else None


def _only(letters: frozenset[str]) -> str | None:
    return next(iter(letters)) if len(letters) == 1 else None
