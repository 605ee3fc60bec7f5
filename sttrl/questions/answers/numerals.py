"""Gives numbers one form: decimals, repeating decimals, powers of ten, words such as million, thousands separators, fractions."""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction
from typing import Final

_LARGEST_POWER: Final = 50
_MAGNITUDES: Final[dict[str, int]] = {
    "hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "lakh": 10**5,
    "crore": 10**7, "万": 10**4, "萬": 10**4, "億": 10**8, "亿": 10**8, "만": 10**4, "억": 10**8,
}  # fmt: skip
_MAGNITUDE_WORD: Final = "(?:hundred|thousand|million|billion|trillion|lakh|crore)s?(?![A-Za-z])|[万萬億亿만억]"
MAGNITUDE: Final = rf"(?:(?:{_MAGNITUDE_WORD})(?:\s+(?:{_MAGNITUDE_WORD}))*)"
"""A pattern for words such as million, which multiply the number before them."""

_OF_MAGNITUDE: Final = re.compile(
    rf"(?P<sign>[-+]?)\s*(?P<number>(?:\d[\d,]{{0,80}}(?:\.\d{{1,60}})?|\.\d{{1,60}})|(?P<whole>\d{{0,60}})\s*\\[dtc]?frac\s*\{{(?P<top>\d{{1,60}})\}}\s*\{{(?P<bottom>0*[1-9]\d{{0,60}})\}})"
    rf"\s*(?P<text>\\text\s*\{{)?\s*(?P<words>{MAGNITUDE})",
    re.ASCII | re.IGNORECASE,
)
_REPEATING: Final = re.compile(
    r"(?<![\d.])(?P<whole>\d{0,60})\.(?P<before>\d{0,60})"
    r"(?:\\(?:overline|bar|dot)\s*(?:\{(?P<barred>\d{1,60})\}|(?P<one>\d))|\((?P<round>\d{1,60})\))(?P<more>(?:\d{0,60}\\dot\s*(?:\{\d\}|\d))*)",
    re.ASCII,
)
_BARRED_GROUP: Final = re.compile(r"\.\{(?P<bar>\\overline\s*\{)(?P<period>\d+\})\}|(?P<over>\\overline\s*\{)\.(?P<digits>\d+\})", re.ASCII)
_ELLIPSIS: Final = re.compile(
    r"(?<![\d.,])(?P<whole>\d{0,20})\.(?P<before>\d{0,20}?)(?:(?P<one>\d)(?P=one){2,20}|(?P<many>\d{2,6}?)(?P=many){1,10})"
    r"\s*(?:\.\.\.|…|\\(?:l|c)?dots(?![A-Za-z]))",
    re.ASCII,
)
_DIGITS: Final = re.compile(r"\d+", re.ASCII)
_POWER_OF_TEN: Final = re.compile(
    r"([-+]?(?:\d+(?:\.\d*)?|\.\d+))\s*(?:\\times|\\cdot|\*|x)\s*10\s*\^\s*(?:\{\s*([-+]?\d{1,2})\s*\}|([-+]?\d{1,2}))", re.ASCII
)
_SCIENTIFIC: Final = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)[eE][-+]?\d{1,2}", re.ASCII)
_INTEGER_RATIO: Final = re.compile(r"([-+]?)(?:(\d+) )?0*(\d+)/0*(\d+)(%?)", re.ASCII)
_NUMBER: Final = re.compile(r"([-+]?)(\d*)(?:\.(\d*))?(%?)", re.ASCII)
_THOUSANDS: Final = re.compile(r"(?<![\d,.])[1-9]\d{0,2}(?:,\d{3})+(?!\d|,\d)", re.ASCII)
_SPACED_THOUSANDS: Final = re.compile(r"-?[1-9]\d{0,2}(?: \d{3})+(?:\.\d+)?%?", re.ASCII)
_INDIAN: Final = re.compile(r"-?[1-9]\d?(?=(?:,\d+)*,0)(?:,\d{2})+,\d{3}(?:\.\d+)?", re.ASCII)
_SPACED_MEMBERS: Final = re.compile(r",\s")
_BRACKET: Final = re.compile(r"[(\[]|\\\{")


def read_magnitude(text: str) -> str:
    r"""Multiply out words such as million: ``1.5\text{ million}`` becomes 1500000."""
    match = _OF_MAGNITUDE.match(text)
    if not match:
        return text
    value = _written_number(match)
    for word in re.findall(_MAGNITUDE_WORD, match["words"], re.IGNORECASE):
        value *= _MAGNITUDES[word.casefold().removesuffix("s")]
    sign = match["sign"].replace("+", "")
    return sign + _written(value) + ("\\text{" if match["text"] else "") + text[match.end() :]


def read_repeating(text: str) -> str:
    r"""Replace a repeating decimal by its fraction: ``0.1\overline{6}``, ``0.1(6)`` and ``0.1\dot{6}`` become 1/6."""
    return _REPEATING.sub(_fraction, _BARRED_GROUP.sub(r".\g<bar>\g<over>\g<period>\g<digits>", text))


def read_ellipsis(text: str) -> str:
    r"""Put the period of a decimal that ends in dots into brackets: ``0.1666\ldots`` becomes ``0.1(6)``; ``3.14...`` has none and stays."""
    return _ELLIPSIS.sub(lambda m: f"{m['whole']}.{m['before']}({m['one'] or m['many']})", text)


def without_thousands(text: str) -> str:
    """Remove the commas or spaces between groups of three digits. (1,200) and 1, 200 are lists of two members and stay.

    If the members in brackets are separated by a comma and a space, other commas are removed: (1,000, 2) has two members.
    """
    if _SPACED_THOUSANDS.fullmatch(text):
        return text.replace(" ", "")
    if _INDIAN.fullmatch(text):
        return text.replace(",", "")
    tight = _BRACKET.search(text) and not _SPACED_MEMBERS.search(text)
    return text if tight else _THOUSANDS.sub(lambda m: m[0].replace(",", ""), text)


def read_number(text: str) -> str:
    """Remove needless zeros from a decimal, write out a power of ten, write a fraction of integers as ``\\frac``; other text stays."""
    power = _POWER_OF_TEN.fullmatch(text)
    if power and abs(int(power[2] or power[3])) <= _LARGEST_POWER:
        text = format(Decimal(f"{power[1]}e{power[2] or power[3]}"), "f")
    elif _SCIENTIFIC.fullmatch(text):
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


def _written_number(match: re.Match[str]) -> Fraction:
    if match["bottom"]:
        return int(match["whole"] or 0) + Fraction(int(match["top"]), int(match["bottom"]))
    return Fraction(match["number"].replace(",", ""))


def _written(value: Fraction) -> str:
    return str(value.numerator) if value.denominator == 1 else f"\\frac{{{value.numerator}}}{{{value.denominator}}}"


def _fraction(match: re.Match[str]) -> str:
    """The fraction of a repeating decimal. Its period is under the bar, in the brackets, or from the first dot to the last."""
    period = (match["barred"] or match["one"] or match["round"]) + "".join(_DIGITS.findall(match["more"]))
    shift, cycle = 10 ** len(match["before"]), 10 ** len(period) - 1
    value = Fraction(int((match["whole"] or "0") + match["before"])) / shift + Fraction(int(period), cycle * shift)
    return _written(value)
