"""Tables of notation: characters with a LaTeX spelling, fonts, and units that carry no value."""

from __future__ import annotations

import re
from typing import Final

_CHARACTERS: Final[dict[str, str]] = {
    "−": "-", "–": "-", "‐": "-", "‑": "-", "﹣": "-", "－": "-", "＋": "+", "＝": "=", "％": "%", "，": ",", "．": ".",
    "（": "(", "）": ")", "／": "/", "＄": "$", "×": r"\times ", "÷": r"\div ", "·": r"\cdot ", "⋅": r"\cdot ", "±": r"\pm ",
    "∞": r"\infty ", "π": r"\pi ", "θ": r"\theta ", "√": r"\sqrt ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ",
    "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "°": r"^\circ ", "½": r"\frac{1}{2}", "¼": r"\frac{1}{4}",
    "¾": r"\frac{3}{4}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}", "²": "^2", "³": "^3",
}  # fmt: skip
_BLANKS: Final = "\u00a0\u2002\u2003\u2007\u3000\t\x0b\x0c"
_THIN_SPACES: Final = "\u2009\u202f"
_INVISIBLE: Final = "\u00ad\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff"
_CONTROL: Final = "".join(chr(i) for i in (*range(9), *range(14, 32), 127))

UNREADABLE: Final = "\ufffd"
"""Stands where a character means nothing, so that a 4, a NUL and a 2 do not read as 42."""

SPELLINGS: Final[dict[int, str]] = (
    {ord(k): v for k, v in _CHARACTERS.items()}
    | {ord(c): " " for c in _BLANKS}
    | {ord(c): r"\," for c in _THIN_SPACES}
    | {ord(c): "" for c in _INVISIBLE}
    | dict.fromkeys((*map(ord, _CONTROL), *range(0xD800, 0xE000)), UNREADABLE)
    | {ord("０") + digit: str(digit) for digit in range(10)}
)
"""For `str.translate`: one spelling per character; control characters and lone surrogates become `UNREADABLE`."""

FONTS: Final = re.compile(r"\\(?:mathrm|mathbf|mathsf|mathit|textbf|textrm|textit|textsf|texttt|mbox|hbox|emph)(?![A-Za-z])\s*(?=\{)")
"""Commands that change only how a word looks; all are read as ``\\text``."""

_UNIT_WORDS: Final = """
    degree degrees deg radian radians
    cent cents dollar dollars usd euro euros pound pounds
    unit units square squareunits cubicunits sq squnits
    mm cm m km meter meters metre metres centimeter centimeters kilometer kilometers mile miles inch inches in foot feet ft yard yards
    squaremeters squarefeet squareinches squarecentimeters cubicmeters cubicfeet cubicinches cubiccentimeters
    mm2 cm2 m2 km2
    second seconds sec s minute minutes min hour hours hr hrs day days week weeks month months year years
    gram grams g kg kilogram kilograms ounce ounces oz lb lbs liter liters litre litres ml gallon gallons cup cups
    mph km/h kph m/s milesperhour
    people students apples ways points times integers solutions
"""
UNITS: Final[frozenset[str]] = frozenset(_UNIT_WORDS.split())
"""Words after a number that are dropped, spaces removed and in lower case. Scale words (million) are not units."""
