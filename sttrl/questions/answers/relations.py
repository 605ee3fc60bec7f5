r"""Equations, sets and inequalities as answers: ``6 = 1+2+3`` is 6, ``\{x \mid x>3\}`` is ``x>3``, "or" joins ranges."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from sttrl.questions.answers.numerals import read_number
from sttrl.questions.answers.shapes import Number, shape, without_name

_EULER: Final = re.compile(r"(?<![A-Za-z\\])e(?![A-Za-z])")
_ROUNDED: Final = re.compile(r"\\(?:approx|simeq)(?![A-Za-z])")
_EQUAL: Final = re.compile(r"\\(?:approx|equiv|simeq|cong|coloneqq)(?![A-Za-z])")
_SPLIT: Final = re.compile(r"\\[{}]|[{}()\[\]=,;]|\\(?:in|le|ge|leq|geq|leqslant|geqslant|ne|neq|lt|gt|to|mid)(?![A-Za-z])|[<>:]")
_CONSTANT_COMMAND: Final = re.compile(
    r"\\(?:[dtc]?frac|sqrt|pi|cdot|times|div|pm|mp|binom|log|ln|sin|cos|tan|arcsin|arccos|arctan|lfloor|rfloor|lceil|rceil|infty|circ|ldots|dots)"
    r"(?![A-Za-z])"
)
_PLAIN: Final = re.compile(r"[-+]?(?:[\d,]*\.?\d+|\d*\s*\\[dtc]?frac\s*(?:\{\d+\}\s*\{\d+\}|\d\s*\d)|\d+\s*/\s*\d+)", re.ASCII)
_EMPTY: Final = re.compile(r"\\(?:varnothing|O)(?![A-Za-z])|\\\{\s*\\\}|(?:the\s+)?empty\s+set", re.IGNORECASE)
_BUILDER: Final = re.compile(
    r"\\\{\s*(?P<name>[A-Za-z])\s*(?:\\in\s*(?:\\mathbb\s*)?\{?R\}?)?\s*(?:\\mid(?![A-Za-z])|\\vert(?![A-Za-z])|[|:])\s*(?P<condition>.+)\\\}"
)
_UNEQUAL: Final = re.compile(r"\\neq?(?![A-Za-z])")
_MINUS: Final = re.compile(
    r"\\smallsetminus(?![A-Za-z])\s*|(?<=[})])\s*\\backslash(?![A-Za-z])\s*|(?<=\\mathbb\{[A-Z]\})\s*[-\\]\s*(?=\\\{)"
)
_ALL_REALS: Final = re.compile(r"(?:all\s+)?real\s+numbers?|all\s+reals?|\(\s*-\s*\\infty\s*,\s*\+?\s*\\infty\s*\)", re.IGNORECASE)
_LOGICAL: Final = re.compile(r"\s*\\(?:lor|land|vee|wedge)(?![A-Za-z])\s*")
_OUTWARD: Final = re.compile(r"([\[\]])([^\[\](){}]+[,;][^\[\](){}]+)([\[\]])")
_REAL: Final = re.compile(r"(?P<name>[a-z])\s*\\in\s*\\mathbb\s*\{?R\}?\s*,\s*(?=(?P=name)\s*(?:[<>]|\\))")
_RANGES: Final = re.compile(r"([a-z])\s*\\in(?![A-Za-z])\s*([(\[].+[)\]])\s*,\s*\1\s*\\in(?![A-Za-z])\s*([(\[].+[)\]])")
_INTERVAL: Final = r"[(\[][^()\[\],]+,[^()\[\],]+[)\]]"
_INTERVALS: Final = re.compile(rf"{_INTERVAL}(?:\s*,\s*{_INTERVAL})+")
_BETWEEN_INTERVALS: Final = re.compile(r"(?<=[)\]])\s*,\s*(?=[(\[])")
_COMPARISON: Final = re.compile(r"\\(?P<or>[lg])eq?(?:slant)?(?![A-Za-z])|(?P<strict><|>|\\[lg]t(?![A-Za-z]))")


def read_set(text: str) -> str:
    r"""Give sets one spelling: the empty set; a set defined by an inequality becomes the inequality; ``x<2, x>4`` a union of ranges."""
    text = _MINUS.sub(r"\\setminus ", _EMPTY.sub(lambda _: r"\emptyset", text))
    if _ALL_REALS.fullmatch(text):
        return r"\mathbb{R}"
    text = _RANGES.sub(r"\1\\in \2\\cup \3", _REAL.sub("", _OUTWARD.sub(_rounded, text)))
    builder = _BUILDER.fullmatch(text)
    if builder and (_COMPARISON.search(builder["condition"]) or _UNEQUAL.search(builder["condition"])):
        text = builder["condition"].strip()
    if _INTERVALS.fullmatch(text) and re.search(r"\\infty|[\[\]]", text):
        return _BETWEEN_INTERVALS.sub(r"\\cup ", text)
    return _union(text) or (_LOGICAL.sub(", ", text) if _COMPARISON.search(text) or "=" in text else text)


def _rounded(interval: re.Match[str]) -> str:
    """``]0,1[`` as ``(0,1)``."""
    opening, inside, closing = interval.groups()
    return f"{'(' if opening == ']' else '['}{inside}{')' if closing == '[' else ']'}"


def read_equation(text: str, *, value_only: bool = False) -> str:
    r"""An equation as ``name=value``, or as its value if no side is a name.

    ``6 = 1+2+3`` and ``= 6`` become ``6``; ``5 = x`` becomes ``x=5``; ``x = 2\cdot 3 = 6`` becomes ``x=6``.
    ``value_only``: remove the name too. An equation between two expressions with variables is not changed.
    """
    sides = _sides(_EQUAL.sub("=", text if value_only else _exact(text)))
    if sides is None:
        return text
    values = [side for side in sides if is_constant(side)]
    if value_only:
        return values[-1] if values else sides[-1]
    if len(values) == len(sides):
        plain = [side for side in values if _PLAIN.fullmatch(side)]
        return (plain or values)[-1]
    names = [side for side in sides if _is_name(side)]
    if len(sides) == 1 or not names or (len(sides) > 2 and not values):
        return "=".join(sides)
    rest = list(sides)
    rest.remove(names[0])
    return f"{names[0]}={values[-1] if values else rest[-1]}"


def _exact(text: str) -> str:
    r"""The text without a rounded value after an exact one: ``2\sqrt5 \approx 4.47`` becomes ``2\sqrt5``; ``x \approx 4.47`` stays."""
    rounding = _ROUNDED.search(text)
    before = text[: rounding.start()].strip() if rounding else ""
    return before if before and is_constant(_EULER.sub("1", before.rpartition("=")[2].strip())) else text


def _sides(text: str) -> list[str] | None:
    """The parts between the equals signs outside of brackets; None for another relation or a list of equations."""
    sides, start, depth, lists = [], 0, 0, 0
    for token in _SPLIT.finditer(text):
        mark = token[0][-1]
        if mark in "{([":
            depth += 1
        elif mark in "})]":
            depth -= 1
        elif depth <= 0 and mark in ",;":
            lists += 1
        elif depth <= 0 and mark != "=":
            return None
        elif depth <= 0:
            if lists:
                return None
            sides.append(text[start : token.start()].strip())
            start = token.end()
    sides.append(text[start:].strip())
    sides = sides[1:] if len(sides) > 1 and not sides[0] else sides
    return sides if all(sides) else None


def is_constant(side: str) -> bool:
    """Whether a side is a number, written only with digits, operators and functions of numbers."""
    rest = _CONSTANT_COMMAND.sub("", side)
    return not re.search(r"[A-Za-z,\\]", rest.replace("\\%", "%")) and re.search(r"\d|\\pi", side) is not None


def _is_name(side: str) -> bool:
    return bool(without_name(f"{''.join(side.split())}=0")[0])


def _union(text: str) -> str | None:
    """``x<2, x>4`` as a union of ranges; None for anything else."""
    parts = re.split(r",\s*|\s*\\(?:lor|vee|land|wedge)(?![A-Za-z])\s*", text)
    if len(parts) < 2:
        return None
    ranges = [_range(part.strip()) for part in parts]
    names = {name for name, _ in filter(None, ranges)}
    found = [written for _, written in filter(None, ranges)]
    if len(found) < len(parts) or len(names) != 1:
        return None
    either, both = (re.search(rf"\\(?:{words})(?![A-Za-z])", text) for words in ("lor|vee", "land|wedge"))
    return (None if either else _overlap(found, certain=both is not None)) or r"\cup ".join(found)


def _overlap(ranges: list[str], *, certain: bool) -> str | None:
    r"""The intersection of ``(1,\infty)`` and ``(-\infty,3)``. None unless ``certain`` or the bounds are numbers in ascending order."""
    above, below = ([r for r in ranges if end in r] for end in (r",\infty)", r"(-\infty,"))
    if len(ranges) != 2 or len(above) != 1 or len(below) != 1 or above == below:
        return None
    low, high = above[0].removesuffix(r",\infty)"), below[0].removeprefix(r"(-\infty,")
    if certain:
        return f"{low},{high}"
    bounds = [shape(read_number("".join(b.split()))) for b in (low[1:], high[:-1])]
    numbers = [b.value for b in bounds if isinstance(b, Number)]
    return f"{low},{high}" if len(numbers) == 2 and numbers[0] <= numbers[1] else None


def _range(text: str) -> tuple[str, str] | None:
    """The variable of an inequality and its range; None for anything else."""
    signs = list(_COMPARISON.finditer(text))
    operands = [text[a:b].strip() for a, b in _gaps(signs, len(text))]
    places = [i for i, operand in enumerate(operands) if re.fullmatch(r"[A-Za-z]", operand)]
    if len(signs) not in (1, 2) or len(places) != 1 or not all(operands) or (len(signs) == 2 and places != [1]):
        return None
    low, high = (r"(", r"-\infty"), (r")", r"\infty")
    for i, sign in enumerate(signs):
        less = "l" in sign[0] or sign[0] == "<"
        strict = sign["strict"] is not None
        bound = operands[i + 1] if places[0] == i else operands[i]
        if less == (places[0] == i):
            high = (")" if strict else "]"), bound
        else:
            low = ("(" if strict else "["), bound
    return operands[places[0]], f"{low[0]}{low[1]},{high[1]}{high[0]}"


def _gaps(signs: list[re.Match[str]], end: int) -> Iterator[tuple[int, int]]:
    starts = [0, *(sign.end() for sign in signs)]
    ends = [*(sign.start() for sign in signs), end]
    return zip(starts, ends, strict=True)
