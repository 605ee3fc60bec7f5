"""The shape of a normal form: a number, a ratio or time, words, a numeral in a base, a named value, members, or a formula.

Finding the shape needs no algebra. `equivalence` compares two shapes by exact rules.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from typing import Final

LONG_DIGITS: Final = 12
"""A decimal with at least this many significant digits may stand for a number that no finite decimal equals, such as 1/3."""

_DECIMAL: Final = r"(?:\d+(?:\.\d+)?|\.\d+)"
_SCIENTIFIC: Final = re.compile(
    rf"(-?)(?:({_DECIMAL})(?:[eE]([-+]?\d{{1,3}}))?|(?:({_DECIMAL})(?:\\times|\\cdot|\*) ?)?10\^(?:\{{([-+]?\d{{1,3}})\}}|(-?\d)))",
    re.ASCII,
)
_FRACTION: Final = re.compile(rf"(-?)(?:(\d+)\\frac\{{(\d+)\}}|\\frac\{{(-?{_DECIMAL})\}})\{{(-?{_DECIMAL})\}}", re.ASCII)
_QUOTIENT: Final = re.compile(rf"(-?)(?:(\d+) )?()({_DECIMAL})/({_DECIMAL})", re.ASCII)
_RATIO: Final = re.compile(rf"{_DECIMAL}(?::{_DECIMAL})+", re.ASCII)
_TO: Final = re.compile(r"(?<=\d)(?: ?\\text\{ ?to ?\} ?| ?to ?)(?=\d)")
_HALF_DAY: Final = re.compile(r"(.*?\d)\s*(?:\\text\{)?\s*([ap])\.?\s*m\.?\s*\}?", re.IGNORECASE)
_CLOCK: Final = re.compile(r"(?:[01]?\d|2[0-4])(?::[0-5]\d){1,2}", re.ASCII)
_CERTAIN_CLOCK: Final = re.compile(r".*:0\d|.*:.*:.*")
_WORDS: Final = re.compile(r"[A-Za-z][A-Za-z' .-]{2,}|[A-Z][a-z]")
_SHORT_WORDS: Final = frozenset(["no", "on", "of", "or", "so", "to", "do", "go", "if", "is", "my", "up", "us", "we", "he", "oh", "ok"])
_IN_BASE: Final = re.compile(r"(\w+)_\{?(\d+)\}?", re.ASCII)
_SCRIPT: Final = r"(?:_(?:\w|\{[^{}]*\}))?"
_ARGUMENT: Final = r"(?:[A-Za-z]|-?\d+)"
_NAMED: Final = re.compile(
    rf"(?P<base>\([A-Za-z](?:,[A-Za-z])+\)|[A-Z]{{2,4}}|\\[a-z]+\s?[A-Z]{{1,3}}|\\(?!sqrt)[a-z]+\{{[^{{}}]*\}}|[A-Za-z]|\\[A-Za-z]+)"
    rf"(?P<script>{_SCRIPT})(?P<primes>'*)(?P<arguments>\({_ARGUMENT}(?:,{_ARGUMENT})*\))?(?:=|\\in(?![A-Za-z]) ?)(?P<value>[^=<>]+)",
    re.ASCII,
)
_NO_VALUE: Final = re.compile(r"\\(?:[lg]eq?|ne|neq|lt|gt|approx|equiv|mid)(?![A-Za-z])")
_SEVERAL: Final = re.compile(r"\\(?:pm|mp|l?dots|cdots)(?![A-Za-z])")
_NOT_SINGLE: Final = re.compile(
    r"[,;<>=]|\\(?:pm|mp|l?dots|cdots|cup|cap|in|[lg]eq?|ne|neq|lt|gt|text|mid|setminus|mathbb|begin|emptyset|varnothing|approx|equiv|vee|wedge)"
    r"(?![A-Za-z])|\\\{|(?<![\\A-Za-z])(?:and|or)(?![A-Za-z])"
)
_MATRIX: Final = re.compile(r"\\begin\{([pb]?matrix)\}(.*?)(?:\\\\)?\\end\{\1\}", re.DOTALL)
_RELATION: Final = re.compile(r"[=<>]|\\(?:[lg]eq?|neq?|lt|gt|in)(?![A-Za-z])")
_NOT_ASKED: Final = re.compile(r"[\d^]|^-|\\(?:sqrt|log|ln)(?![A-Za-z])|^\|[a-z]\|$")
_INDEX: Final = re.compile(r"_(?:\w|\{[^{}]*\})")
VARIABLE: Final = re.compile(r"(?<![\\A-Za-z])[a-df-hj-zA-Z]|\\(?:alpha|beta|gamma|theta|phi|lambda|mu|sigma|omega)")
"""A letter that stands for no known number."""
_TOKEN: Final = re.compile(r"\\begin|\\end|\\[lr]angle|\\.|[{}()\[\],;:]", re.DOTALL)
_OPENING: Final = frozenset(("{", r"\{", "(", "[", r"\begin", r"\langle"))
_CLOSING: Final = frozenset(("}", r"\}", ")", "]", r"\end", r"\rangle"))

_TERM: Final = r"(?:\d+|\d*[a-cf-hj-z](?:\^(?:\d(?!\d)|\{\d\d\}))?)"
_POLYNOMIAL: Final = re.compile(rf"-?{_TERM}(?:[+-]{_TERM})+", re.ASCII | re.IGNORECASE)
_PARTS: Final = re.compile(r"([+-]?)(\d*)([a-z]?)(?:\^\{?(\d+)\}?)?", re.ASCII | re.IGNORECASE)
_PRODUCT: Final = r"(?=\d|\\sqrt)(\d*)(?:\\sqrt\{(\d+)\})?"
_SURD: Final = re.compile(rf"(-?)(?:{_PRODUCT}|\\frac\{{(-?){_PRODUCT}\}}\{{{_PRODUCT}\}})", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Number:
    """A rational number; ``long`` when it is a decimal of at least `LONG_DIGITS` significant digits."""

    value: Fraction
    long: bool = False


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """Numbers with colons between them: a ratio or a time of day. ``half``: "a" for a.m., "p" for p.m."""

    members: tuple[Fraction, ...]
    may_be_time: bool
    must_be_time: bool
    half: str = ""


@dataclass(frozen=True, kw_only=True)
class Words:
    """Words, in lower case. Algebra would read them as products of variables."""

    text: str


@dataclass(frozen=True, kw_only=True)
class InBase:
    """A numeral with its base as an index, or a symbol with an index."""

    digits: str
    base: str


@dataclass(frozen=True, kw_only=True)
class Settled:
    """A polynomial in one letter, or a root. Two of the same ``kind`` are equal exactly if their ``value`` is equal."""

    kind: str
    value: object


@dataclass(frozen=True, kw_only=True)
class Named:
    """A value with a name: ``x=3``, ``f'(x)=2x``, ``x\\in[0,1]``."""

    base: str
    script: str
    primes: int
    arguments: str
    value: str


@dataclass(frozen=True, kw_only=True)
class Members:
    """Several values. ``brackets``: empty for a list without brackets, ``{}`` for a set, else as written.

    ``names``: one name that all members have (indices do not count), or a different name for each member.
    """

    brackets: str
    members: tuple[str, ...]
    names: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Formula:
    """Anything else. ``single``: certainly one value. ``relation``: an equation or inequality. ``colon``: a ratio of formulas.

    ``equation``: the left side is more than a name (it has numbers, a sign or a root), so that the right side alone is a different
    answer, as 4 for ``x^2=4``. ``letters``: the whole form in lower case if it consists of letters, else "".
    """

    single: bool
    relation: bool
    equation: bool
    colon: bool
    letters: str


Shape = Number | Ratio | Words | InBase | Settled | Named | Members | Formula


@lru_cache(4096)
def shape(form: str) -> Shape:
    """The shape of a normal form without percent signs."""
    inside = _in_round_brackets(form)
    if inside is not None and len(inside) == 1:
        return shape(inside[0])
    return _number(form) or _ratio(form) or _word(form) or _settled(form) or _named(form) or _members(form) or _formula(form)


@lru_cache(4096)
def is_plain(form: str) -> bool:
    """Whether exact rules compare the form quickly: a number, ratio, polynomial or root, alone, with a name or as members."""
    found = shape(form)
    if isinstance(found, Named):
        return is_plain(found.value)
    if isinstance(found, Members):
        return all(is_plain(member) for member in found.members)
    return isinstance(found, Number | Ratio | Settled)


def without_name(form: str) -> tuple[str, str]:
    """The name (with its "=") and the value of a form; the name is empty if there is none."""
    match = None if _NO_VALUE.search(form) else _NAMED.fullmatch(form)
    return (form[: match.start("value")], match["value"]) if match else ("", form)


def _number(form: str) -> Number | None:
    match = _FRACTION.fullmatch(form) or _QUOTIENT.fullmatch(form)
    if match:
        sign, whole, above, top, bottom = match.groups()
        below = Fraction(bottom)
        if not below or (whole and below < 0):
            return None
        value = Fraction(above or top) / below + int(whole or 0)
        return Number(value=-value if sign else value)
    match = _SCIENTIFIC.fullmatch(form)
    if not match:
        return None
    sign, decimal, exponent, factor, power, digit = match.groups()
    mantissa = decimal or factor or "1"
    value = Fraction(mantissa) * Fraction(10) ** int(exponent or power or digit or 0)
    return Number(value=-value if sign else value, long=len(mantissa.replace(".", "").lstrip("0")) >= LONG_DIGITS)


def _ratio(form: str) -> Ratio | None:
    halved = _HALF_DAY.fullmatch(form)
    text, half = (halved[1], halved[2].lower()) if halved else (_TO.sub(":", form), "")
    if not _RATIO.fullmatch(text):
        return None
    clock = text == (halved[1] if halved else form) and _CLOCK.fullmatch(text) is not None
    certain = clock and (bool(half) or _CERTAIN_CLOCK.fullmatch(text) is not None)
    return Ratio(members=tuple(map(Fraction, text.split(":"))), may_be_time=clock, must_be_time=certain, half=half)


def _word(form: str) -> Words | InBase | None:
    if _WORDS.fullmatch(form) or form.casefold() in _SHORT_WORDS:
        return Words(text=form.casefold())
    match = _IN_BASE.fullmatch(form)
    return InBase(digits=match[1], base=match[2]) if match else None


def _settled(form: str) -> Settled | None:
    return _polynomial(form) or _surd(form)


def _polynomial(form: str) -> Settled | None:
    """A sum of terms in one letter with integer coefficients: the letter and the coefficients of its powers.

    ``e`` and ``i`` are numbers and ``d`` is a differential. Case does not matter, as in math-verify.
    """
    if not _POLYNOMIAL.fullmatch(form):
        return None
    letters: set[str] = set()
    coefficients: Counter[int] = Counter()
    for sign, digits, letter, power in _PARTS.findall(form):
        if digits or letter:
            coefficients[int(power or 1) if letter else 0] += int(sign + (digits or "1"))
            letters.add(letter.lower())
    letters.discard("")
    if len(letters) != 1 or not any(value for power, value in coefficients.items() if power):
        return None
    return Settled(kind="polynomial", value=(letters, +coefficients, -coefficients))


def _surd(form: str) -> Settled | None:
    """An integer times a square root of an integer, or a fraction of two of these: its sign and its square."""
    match = _SURD.fullmatch(form) if "sqrt" in form else None
    if not match:
        return None
    sign, factor, inside, sign_above, above, inside_above, below, inside_below = match.groups(default="")
    top, bottom = _square(factor or above, inside or inside_above), _square(below, inside_below)
    return Settled(kind="surd", value=(sign == sign_above, Fraction(top, bottom))) if top and bottom else None


def _square(factor: str, inside: str) -> int:
    return int(factor or 1) ** 2 * int(inside or 1)


def _named(form: str) -> Named | None:
    match = _NAMED.fullmatch(form)
    if not match or _NO_VALUE.search(form):
        return None
    base = re.sub(r"\\(?:text|mathrm|operatorname)\{([^{}]*)\}", r"\1", match["base"])
    script, arguments = match["script"].strip("_{}"), (match["arguments"] or "").strip("()")
    return Named(base=base.casefold(), script=script, primes=len(match["primes"]), arguments=arguments, value=match["value"])


def _members(form: str) -> Members | None:
    if _SEVERAL.search(form):
        return None
    brackets, members = "", _split(form, ",;")
    if len(members) == 1:
        brackets, members = _matrix(form) or _enclosed(form)
    if not members or not all(members) or (len(members) == 1 and brackets != "{}"):
        return None
    named = [found for found in map(shape, members) if isinstance(found, Named)]
    if len(named) < len(members):
        return Members(brackets=brackets, members=members)
    names = dict.fromkeys(found.base for found in named)
    values = tuple(found.value for found in named)
    if len(names) > 1:
        names = dict.fromkeys(found.base + found.script for found in named)
        return Members(brackets=brackets, members=values, names=tuple(names)) if len(names) == len(values) else None
    return Members(brackets=brackets, members=values, names=tuple(names))


def _matrix(form: str) -> tuple[str, tuple[str, ...]] | None:
    """The size of a matrix, and its cells row by row; None for a matrix of matrices."""
    match = _MATRIX.fullmatch(form)
    if not match or r"\begin" in match[2]:
        return None
    rows = [row.split("&") for row in match[2].split(r"\\")]
    return f"{len(rows)}x{len(rows[0])}", tuple(cell.strip() for row in rows for cell in row)


def _enclosed(form: str) -> tuple[str, tuple[str, ...]]:
    """The brackets around the whole form, and the members between them; both are empty if there are none."""
    for opening, closing in ((r"\{", r"\}"), ("(", ")"), ("(", "]"), ("[", ")"), ("[", "]")):
        if form.startswith(opening) and form.endswith(closing) and _closes_at_end(form):
            inside = _split(form[len(opening) : -len(closing)], ",;")
            return (opening + closing).replace("\\", ""), inside
    return "", ()


def _in_round_brackets(form: str) -> tuple[str, ...] | None:
    return _split(form[1:-1], ",;") if form.startswith("(") and form.endswith(")") and len(form) > 2 and _closes_at_end(form) else None


def _closes_at_end(form: str) -> bool:
    """Whether the bracket at the start of the form is closed at its end."""
    depth = 0
    for token in _TOKEN.finditer(form):
        depth += (token[0] in _OPENING) - (token[0] in _CLOSING)
        if depth == 0:
            return token.end() == len(form)
    return False


def _split(form: str, separators: str) -> tuple[str, ...]:
    """The parts between the separators that are outside of brackets."""
    cuts, depth = [-1], 0
    for token in _TOKEN.finditer(form):
        depth += (token[0] in _OPENING) - (token[0] in _CLOSING)
        if depth == 0 and token[0] in separators:
            cuts.append(token.start())
    return tuple(form[a + 1 : b].strip().removeprefix("+") for a, b in pairwise([*cuts, len(form)]))


def _formula(form: str) -> Formula:
    left = _INDEX.sub("", form.partition("=")[0]) if "=" in form else ""
    return Formula(
        single=_NOT_SINGLE.search(form) is None,
        relation=_RELATION.search(form) is not None,
        equation=VARIABLE.search(left) is not None and _NOT_ASKED.search(left) is not None,
        colon=len(_split(form, ":")) > 1,
        letters=form.casefold() if form.isascii() and form.isalpha() else "",
    )
