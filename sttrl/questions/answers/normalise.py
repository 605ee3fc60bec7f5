"""The normal form of an answer: two answers with the same normal form are equal.

Each step rewrites the text a little. The steps are repeated in order until nothing changes, so the normal form of a normal form is
itself. `equivalence` decides what needs mathematics (1/2 = 0.5, 2(k+1) = 2k+2).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Final

from sttrl.questions.answers.choice import letters_in
from sttrl.questions.answers.dressing import undress, without_bold, without_preface
from sttrl.questions.answers.notation import UNREADABLE, spell
from sttrl.questions.answers.numerals import read_ellipsis, read_magnitude, read_number, read_repeating, without_thousands
from sttrl.questions.answers.relations import read_equation, read_set
from sttrl.questions.answers.shapes import without_name
from sttrl.questions.answers.words import changes_value, read_words, without_units
from sttrl.types import AnswerKind

_PASSES: Final = 32
_COMPARISON: Final = re.compile(r"\\([lg])eq(?:slant|q)(?![A-Za-z])")
_CUP: Final = re.compile(r"\\bigcup(?![A-Za-z_])|(?<=[)\]}])\s*U\s*(?=[(\[]|\\\{)")
_ANGLED: Final = (re.compile(r"\\langle(?![A-Za-z])\s*"), re.compile(r"\s*\\rangle(?![A-Za-z])"))
_DOTLESS: Final = re.compile(r"\\([ij])math(?![A-Za-z])")
_BASED: Final = re.compile(r"\((\w+)\)(?=_\{?\w+\}?$)", re.ASCII)
_FACTORS: Final = re.compile(r"(?<![\w\\}])([a-z]) (?=[a-z](?![A-Za-z]))", re.ASCII)
_COLON: Final = re.compile(r"(?:\\mathbin\s*)?\{:\}|\\text\s*\{:\}|\\colon(?![A-Za-z])\s*")
_POINT: Final = re.compile(r"(?<=\d)\{\.\}(?=\d)", re.ASCII)
_NOT_EQUAL: Final = re.compile(r"(?<![\d)])!=")
_BLACKBOARD: Final = re.compile(r"\\mathbb\s*([A-Z])")
_DOTS: Final = re.compile(r"\\(?:dots|cdots|dotsc|dotsb)(?![A-Za-z])|\.\.\.")
_FUNCTION: Final = r"(?:arcsin|arccos|arctan|sinh?|cosh?|tanh?|sec|csc|cot|ln|log|exp)"
_BARE_FUNCTION: Final = re.compile(
    rf"\\operatorname\s*\{{({_FUNCTION})\}}|(?<![\\A-Za-z])({_FUNCTION})(?=\s*[(\\^_]|\s(?:[a-z](?![A-Za-z])|\d))"
)
_BARE_ABS: Final = re.compile(r"(?<![\\A-Za-z])abs\s*\(([^()|]*)\)")
_STARRED_POWER: Final = re.compile(r"(?<=[\w)])\*\*(?=[\w({-])")
_FRACTION_COMMAND: Final = re.compile(r"\\(?:[dtcs]|nice)(frac|binom)(?![A-Za-z])")
_CHOOSE: Final = re.compile(r"\{\s*([^{}\\]+?)\s*\\choose(?![A-Za-z])\s*([^{}\\]+?)\s*\}")
_BARE: Final = r"([0-9A-Za-z]|\\(?:pi|theta|alpha|beta|gamma|phi|lambda|mu|sigma|omega|infty)(?![A-Za-z]))"
_FRACTION_BARE: Final = re.compile(rf"\\(frac|binom)\s*{_BARE}(?=\s*[0-9A-Za-z{{\\])")
_FRACTION_TAIL: Final = re.compile(rf"(\\(?:frac|binom)\s*\{{[^{{}}]*\}})\s*{_BARE}")
_FRACTION_OF_ROOT: Final = re.compile(r"(\\frac\s*\{[^{}]*\})\s*(\\sqrt\s*\{[^{}]*\})")
_ROOT_OVER: Final = re.compile(r"\\frac\s*(\\sqrt\s*\{[^{}]*\})(?=\s*[0-9A-Za-z{\\])")
_TIGHT_FRACTION: Final = re.compile(r"(\\sqrt|\^)\s*(\\frac\s*\{[^{}]*\}\s*\{[^{}]*\})")
_SIGNED_EXPONENT: Final = re.compile(r"\^\s*([-+]\d+)", re.ASCII)
_BARE_COMMAND: Final = re.compile(
    r"(?<![\\A-Za-z])(?:(sqrt)(?=\s*[({])|sqrt\s?(\d+)|(frac)(?=\s*\{)|(pi|theta|infinity|infty)(?![A-Za-z]))"
)
_SQRT_BARE: Final = re.compile(rf"(\\sqrt(?:\[\w\])?)\s*{_BARE}")
_SQRT_ROUND: Final = re.compile(r"(\\sqrt(?:\[\d\])?)\s*\(([^()]*)\)")
_ROOT_OF_NEGATIVE: Final = re.compile(r"\\sqrt\s*\{\s*-\s*(\d{1,15})\s*\}", re.ASCII)
_SCRIPT: Final = re.compile(r"([\^_])\s*\{\s*(\w)\s*\}(?!\w)")
_SPACE: Final = re.compile(r"(?<![A-Za-z0-9])(?<!\d,)\s+|(?<=\d,)\s+(?!\d{3}(?!\d))|\s+(?![A-Za-z0-9])|(?<=\d)\s+(?=[A-Za-z])", re.ASCII)
_LIST_SPACE: Final = re.compile(r"(?<=\d,)\s+", re.ASCII)
_BRACE: Final = re.compile(r"\\.|[{}]")
_LETTER: Final = re.compile(r"\(([A-Z])\)")
_NUMBER_IN_WORDS: Final = re.compile(
    r"(?:[^\d\\{}=:+*/^-]*[=:] ?)?(?P<number>[-+]?\\?\$?(?:\d[\d,]*(?:\.\d+)?|\.\d+)%?)(?:\s|(?=[A-Za-z]{2}))(?P<words>[A-Za-z .,/]+)",
    re.ASCII,
)


def normalise(raw: str, kind: AnswerKind = "math") -> str | None:
    r"""The normal form of an answer, or None if nothing readable is left or braces do not match.

    ``025`` and ``142.0`` become ``25`` and ``142``; ``1,000`` becomes ``1000``; ``\dfrac12`` and ``1/2`` become ``\frac{1}{2}``;
    ``x = 025`` becomes ``x=25``. Units, currency and formatting are removed; for the kind "number" also names and percent signs.
    """
    if kind == "choice":
        letters = letters_in(spell(raw))
        return next(iter(letters)) if len(letters) == 1 else None
    steps, form = _STEPS_OF[kind], raw
    for _ in range(_PASSES):
        before = form
        for step in steps:
            form = step(form)
        if form == before:
            return _named(form, kind) if _is_complete(form) else None
    return None


def _named(form: str, kind: AnswerKind) -> str | None:
    """The form with the value after "x =" in normal form. For the kind "number" the name is removed."""
    name, rest = without_name(form)
    if not name:
        return form
    value = normalise(rest, kind)
    return value if value is None or kind == "number" else name + value


def _spellings(text: str) -> str:
    text = spell(text).replace("{,}", ",").replace(r"\!", "").replace(r"\lbrace", r"\{").replace(r"\rbrace", r"\}")
    text = _STARRED_POWER.sub("^", without_bold(text))
    text = _CUP.sub(r"\\cup ", _COMPARISON.sub(r"\\\1e ", _ANGLED[1].sub(")", _ANGLED[0].sub("(", text))))
    text = _POINT.sub(".", _COLON.sub(":", text)).replace("<=", r"\le ").replace(">=", r"\ge ")
    return read_ellipsis(_NOT_EQUAL.sub(r"\\ne ", text))


def _commands(text: str) -> str:
    text = _DOTLESS.sub(r"\1", text)
    text = _BARE_ABS.sub(r"|\1|", _BARE_FUNCTION.sub(r"\\\1\2", _BARE_COMMAND.sub(_as_command, text)))
    text = _DOTS.sub(r"\\ldots ", _BLACKBOARD.sub(r"\\mathbb{\1}", text))
    text = _CHOOSE.sub(r"\\binom{\1}{\2}", _FRACTION_COMMAND.sub(r"\\\1", text))
    text = _SQRT_ROUND.sub(r"\1{\2}", _SQRT_BARE.sub(r"\1{\2}", text))
    text = _FRACTION_TAIL.sub(r"\1{\2}", _FRACTION_BARE.sub(r"\\\1{\2}", _ROOT_OVER.sub(r"\\frac{\1}", text)))
    text = _TIGHT_FRACTION.sub(r"\1{\2}", _FRACTION_OF_ROOT.sub(r"\1{\2}", text))
    text = _SIGNED_EXPONENT.sub(r"^{\1}", text)
    return _SCRIPT.sub(r"\1\2", _ROOT_OF_NEGATIVE.sub(_imaginary, text))


def _as_command(word: re.Match[str]) -> str:
    root, radicand, fraction, constant = word.groups()
    if radicand:
        return f"\\sqrt{{{radicand}}}"
    return f"\\{root or fraction}" if root or fraction else "\\infty " if constant.startswith("inf") else f"\\{constant} "


def _imaginary(root: re.Match[str]) -> str:
    whole = math.isqrt(int(root[1]))
    if whole**2 != int(root[1]):
        return f"\\sqrt{{{root[1]}}}i"
    return "i" if whole == 1 else f"{whole}i"


def _space(text: str) -> str:
    """Remove spaces that mean nothing. In ``3, 200`` without brackets the space stays: it is a list of two, but ``3,200`` is one number."""
    text = " ".join(text.split())
    if any(bracket in text for bracket in ("(", "[", r"\{")):
        text = _LIST_SPACE.sub("", text)
    return _SPACE.sub("", _FACTORS.sub(r"\1", text))


def _wrappers(text: str) -> str:
    """Remove braces, or parentheses around a letter, if they enclose the whole answer: {5} is 5, (B) is B, and (101)_2 is 101_2."""
    text = _BASED.sub(r"\1", text) if text.startswith("(") else text
    letter = _LETTER.fullmatch(text)
    if letter:
        return letter[1]
    return text[1:-1] if text.startswith("{") and _closing(text) == len(text) - 1 else text


def _closing(text: str) -> int:
    """Index of the brace that closes the one at index 0, or -1."""
    depth = 0
    for match in _BRACE.finditer(text):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth == 0:
            return match.start()
    return -1


def _number_in_words(text: str) -> str:
    """For answers of the kind "number": "72 dollars per week" becomes 72; "3 million" is not changed."""
    match = _NUMBER_IN_WORDS.fullmatch(text)
    if not match or changes_value(match["words"]):
        return text
    return match["number"]


def _is_complete(form: str) -> bool:
    """Whether the form contains a letter or digit, nothing unreadable, and only matched braces."""
    depth = 0
    for match in _BRACE.finditer(form):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth < 0:
            return False
    return depth == 0 and UNREADABLE not in form and any(c.isalnum() for c in form)


def _value_of_equation(text: str) -> str:
    return read_equation(text, value_only=True)


def _without_any_word(text: str) -> str:
    return without_units(text, any_word=True).removesuffix("%")


_Steps = tuple[Callable[[str], str], ...]
_FIRST: Final[_Steps] = (_spellings, undress, without_preface, read_words, read_magnitude)
_LAST: Final[_Steps] = (_commands, read_repeating, without_thousands, _space, read_number, _wrappers)
_STEPS_OF: Final[dict[AnswerKind, _Steps]] = {
    "math": (*_FIRST, without_units, read_set, read_equation, *_LAST),
    "number": (*_FIRST, _without_any_word, read_set, _value_of_equation, *_LAST, _number_in_words),
}
