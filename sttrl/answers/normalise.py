"""The exact normal form: two answers with the same normal form are equal without any mathematics.

Each step is one small rewriting of the text; they are applied in order until nothing changes, so a normal form is its own
normal form. What needs algebra (1/2 = 0.5, 2(k+1) = 2k+2) is left to `equivalence`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Final

from sttrl.answers.choice import letters_in
from sttrl.answers.notation import FONTS, SPELLINGS, UNITS, UNREADABLE
from sttrl.answers.shapes import without_name
from sttrl.types import AnswerKind

_PASSES: Final = 32
_THIN_THOUSANDS: Final = re.compile(r"(?<=\d)(?<!\\)\\,(?=\d{3}(?!\d))", re.ASCII)
_SPACING: Final = re.compile(r"(?<!\\)\\(?:[,;:> \n]|q?quad(?![A-Za-z])|displaystyle(?![A-Za-z])|limits(?![A-Za-z]))|~")
_SIZES: Final = re.compile(r"\\(?:left|right|[bB]ig{1,2}[lr]?)(?![A-Za-z])\s*\.?")
_DOLLARS: Final = re.compile(r"\\?\$|(?<!\\)\\[()\]]|(?<!\\)\\\[")
_BOX: Final = re.compile(r"\\(?:boxed|fbox)\s*(?=\{)")
_WHOLE_TEXT: Final = re.compile(r"\\text\s*\{([^{}]*)\}")
_TEXT_UNIT: Final = re.compile(r"(?<=[\d})A-Za-z])\s*\\text\s*\{([^{}]*)\}\s*(?:\^\{?\d\}?)?$", re.ASCII)
_PLAIN_UNIT: Final = re.compile(r"(?<=[\d})%])\s+([A-Za-z][A-Za-z ./]+?)(?:\^\{?\d\}?)?$", re.ASCII)
_CONJUNCTION: Final = re.compile(r",?\s*\\text\s*\{\s*,?\s*(?:and|or)\s*\}\s*|(?:,|(?<=[\d)}\]]))\s+(?:and|or)\s+")
_DEGREE: Final = re.compile(r"\^\s*\{?\s*\\(?:circ|degree)\s*\}?(?![A-Za-z])|\\degree(?![A-Za-z])")
_PERCENT: Final = re.compile(r"\s*(?:\\?%|\s*\\text\s*\{\s*(?:percent|%|\\%)\s*\}|(?<=\d)\s*percent(?![A-Za-z]))")
_FRACTION_COMMAND: Final = re.compile(r"\\[dtc]frac(?![A-Za-z])")
_FRACTION_BARE: Final = re.compile(r"\\frac\s*([0-9A-Za-z])(?=\s*[0-9A-Za-z{\\])")
_FRACTION_TAIL: Final = re.compile(r"(\\frac\s*\{[^{}]*\})\s*([0-9A-Za-z])")
_SQRT_BARE: Final = re.compile(r"\\sqrt\s*([0-9A-Za-z])")
_SCRIPT: Final = re.compile(r"([\^_])\s*\{\s*(\w)\s*\}(?!\w)")
_SPACE: Final = re.compile(r"(?<![A-Za-z0-9])(?<!\d,)\s+|(?<=\d,)\s+(?!\d{3}(?!\d))|\s+(?![A-Za-z0-9])|(?<=\d)\s+(?=[A-Za-z])", re.ASCII)
_THOUSANDS: Final = re.compile(r"(?<![\d,.])[1-9]\d{0,2}(?:,\d{3})+(?!\d|,\d)", re.ASCII)
_SPACED_THOUSANDS: Final = re.compile(r"-?[1-9]\d{0,2}(?: \d{3})+(?:\.\d+)?%?", re.ASCII)
_BRACKET: Final = re.compile(r"[(\[]|\\\{")
_NUMBER: Final = re.compile(r"([-+]?)(\d*)(?:\.(\d*))?(%?)", re.ASCII)
_SCIENTIFIC: Final = re.compile(r"[-+]?\d+(?:\.\d+)?[eE][-+]?\d{1,2}", re.ASCII)
_INTEGER_RATIO: Final = re.compile(r"([-+]?)(?:(\d+) )?0*(\d+)/0*(\d+)(%?)", re.ASCII)
_BRACE: Final = re.compile(r"\\.|[{}]")
_LETTER: Final = re.compile(r"\(([A-Z])\)")
_NUMBER_IN_WORDS: Final = re.compile(
    r"(?:[A-Za-z ]*[=:] ?)?(?P<number>[-+]?\\?\$?(?:\d[\d,]*(?:\.\d+)?|\.\d+)%?)"
    r"(?:\s*\\text\s*\{|\s|(?=[A-Za-z]{2}))(?P<words>[A-Za-z .,/]+)\}?",
    re.ASCII,
)
_SCALES: Final = re.compile(r"\b(?:hundred|thousand|[mbtr]+illion|percent|dozen|and|or|over|to)\b", re.IGNORECASE)


def normalise(raw: str, kind: AnswerKind = "math") -> str | None:
    r"""The normal form of a raw answer, or None where nothing readable is left or braces do not balance.

    ``025`` and ``142.0`` become ``25`` and ``142``; ``1,000`` becomes ``1000``; ``x = 025`` becomes ``x=25``; ``\dfrac12`` and
    ``1/2`` become ``\frac{1}{2}``; units, currency and dressing go. For the kind "number" names and percent signs go too. Idempotent.
    """
    if kind == "choice":
        letters = letters_in(raw)
        return next(iter(letters)) if len(letters) == 1 else None
    form = raw
    for _ in range(_PASSES):
        before = form
        for step in _STEPS:
            form = step(form)
        if kind == "number":
            form = _number_in_words(form).removesuffix("%")
        if form == before:
            return _named(form, kind) if _is_complete(form) else None
    return None


def _named(form: str, kind: AnswerKind) -> str | None:
    """The value after "x =" in normal form; the name stays, except before a number that is asked for."""
    name, rest = without_name(form)
    if not name:
        return form
    value = normalise(rest, kind)
    return value if value is None or kind == "number" else name + value


def _spellings(text: str) -> str:
    text = text.translate(SPELLINGS).replace("{,}", ",").replace(r"{\,}", r"\,").replace(r"\!", "")
    return text.replace(r"\lbrace", r"\{").replace(r"\rbrace", r"\}")


def _dressing(text: str) -> str:
    text = _SPACING.sub(" ", _THIN_THOUSANDS.sub("", text))
    text = _BOX.sub("", _DOLLARS.sub("", _SIZES.sub("", text)))
    return text.strip(" \n\r*`").rstrip(".,;: \n\r")


def _text(text: str) -> str:
    """Words: the whole answer is unwrapped, "and" is a comma, and a unit after a value goes."""
    text = FONTS.sub(r"\\text", text)
    whole = _WHOLE_TEXT.fullmatch(text)
    if whole:
        return whole[1].strip()
    return _TEXT_UNIT.sub(_without_unit, _CONJUNCTION.sub(", ", text))


def _without_unit(match: re.Match[str]) -> str:
    word = match[1].strip(" .").casefold().replace(" ", "")
    return "" if word in UNITS or not word else match[0]


def _units(text: str) -> str:
    text = _PERCENT.sub("%", _DEGREE.sub("", text))
    return _PLAIN_UNIT.sub(_without_unit, text)


def _commands(text: str) -> str:
    text = _FRACTION_COMMAND.sub(r"\\frac", text)
    text = _FRACTION_TAIL.sub(r"\1{\2}", _FRACTION_BARE.sub(r"\\frac{\1}", text))
    text = _SQRT_BARE.sub(r"\\sqrt{\1}", text)
    return _SCRIPT.sub(r"\1\2", text)


def _space(text: str) -> str:
    return _SPACE.sub("", " ".join(text.split()))


def _thousands(text: str) -> str:
    """Commas or spaces in groups of three go, unless a bracket or a space makes a list: (1,200) and 1, 200 have two members."""
    if _SPACED_THOUSANDS.fullmatch(text):
        return text.replace(" ", "")
    return text if _BRACKET.search(text) else _THOUSANDS.sub(lambda m: m[0].replace(",", ""), text)


def _number(text: str) -> str:
    if _SCIENTIFIC.fullmatch(text):
        text = format(Decimal(text), "f")
    ratio = _INTEGER_RATIO.fullmatch(text)
    if ratio:
        sign, whole, top, bottom, percent = ratio.groups()
        return f"{sign.replace('+', '')}{whole or ''}\\frac{{{top}}}{{{bottom}}}{percent}"
    match = _NUMBER.fullmatch(text)
    if not match or not (match[2] or match[3]):
        return text.removeprefix("+")
    sign, integer, decimals, percent = match.groups()
    value = integer.lstrip("0") or "0"
    decimals = (decimals or "").rstrip("0")
    value = f"{value}.{decimals}" if decimals else value
    return f"{'-' if sign == '-' and value != '0' else ''}{value}{percent}"


def _wrappers(text: str) -> str:
    """Braces or letter parentheses around the whole answer go: {5} is 5 and (B) is B."""
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
    """For answers that are numbers: "72 dollars per week" is 72, but "3 million" stays as it is."""
    match = _NUMBER_IN_WORDS.fullmatch(text)
    if not match or _SCALES.search(match["words"]):
        return text
    return match["number"]


def _is_complete(form: str) -> bool:
    """Something is left to compare, nothing of it is unreadable, and every brace has its partner."""
    depth = 0
    for match in _BRACE.finditer(form):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth < 0:
            return False
    return depth == 0 and UNREADABLE not in form and any(c.isalnum() for c in form)


_STEPS: Final[tuple[Callable[[str], str], ...]] = (
    _spellings, _dressing, _text, _units, _commands, _thousands, _space, _number, _wrappers,
)  # fmt: skip
