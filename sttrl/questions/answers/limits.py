"""Limits on the text of an answer. They reject answers that are too expensive to compare before any worker process reads them.

The labels of AIME, AMC, MATH-500 and GSM8K are far below all limits.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

_NESTING_TOKEN: Final = re.compile(r"\\[{}]|[{}()\[\]]|\\begin|\\end")
_DIGITS: Final = re.compile(r"\d+")
_EXPONENT: Final = re.compile(r"(?:\^|\*\*)\s*[{(]?\s*[-+]?\s*(\d+)")
_TOWER_TOKEN: Final = re.compile(r"\\[A-Za-z]+|\\.|\*\*|\d+|\S")
_FACTORIAL: Final = re.compile(r"(\d+|[)}\]])(?:\s*!(?!=)|!=)")
_REPEATED_FACTORIAL: Final = re.compile(r"!\s*!")
_VARIABLE: Final = re.compile(r"(?<![\\A-Za-z])[A-Za-z]")
_OPERATOR: Final = re.compile(r"[-+*/^_=<>,&!|]|\\[A-Za-z]+|\\\\")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits. ``text_chars`` limits a whole response, the others one answer.

    ``answer_chars``: characters. ``nesting``: depth of brackets. ``number_digits``: digits of one number. ``exponent``: a literal
    exponent (without variables: the product of all exponents). ``tower``: height of a power tower (without variables one less).
    ``factorial``: argument of a factorial. ``operators``: number of operators.
    """

    text_chars: int = 1_000_000
    answer_chars: int = 400
    nesting: int = 16
    number_digits: int = 60
    exponent: int = 9_999
    tower: int = 2
    factorial: int = 1_000
    operators: int = 120


def exceeded(answer: str, limits: Limits) -> str | None:
    """The name of the first limit that an answer exceeds, or None. Takes time linear in the answer's length."""
    if len(answer) > limits.answer_chars:
        return "answer_chars"
    if nesting(answer) > limits.nesting:
        return "nesting"
    if any(len(n) > limits.number_digits for n in _DIGITS.findall(answer)):
        return "number_digits"
    if len(_OPERATOR.findall(answer)) > limits.operators:
        return "operators"
    return _exceeded_power(answer, limits)


def nesting(answer: str) -> int:
    """Greatest depth of brackets and environments, whether or not they match."""
    depth = deepest = 0
    for token in _NESTING_TOKEN.findall(answer):
        depth += 1 if token[-1] in "{([" or token == r"\begin" else -1
        deepest = max(deepest, depth)
    return deepest


def tower_height(answer: str) -> int:
    """Greatest number of exponents stacked on each other: 0 for ``x``, 1 for ``x^2``, 2 for ``2^{3^4}`` and ``2^3^4``."""
    height = tallest = ground = 0
    groups: list[tuple[int, int]] = []
    previous = ""
    for token in _TOWER_TOKEN.findall(answer):
        if token in ("^", "**"):
            height += 1
            tallest = max(tallest, height)
        elif token in ("}", ")", "]"):
            ground, height = groups.pop() if groups else (0, 0)
        else:
            if previous not in ("^", "**"):
                height = ground
            if token in ("{", "(", "["):
                groups.append((ground, height))
                ground = height
        previous = token
    return tallest


def _exceeded_power(answer: str, limits: Limits) -> str | None:
    has_variable = _VARIABLE.search(answer) is not None
    exponents = [int(e) for e in _EXPONENT.findall(answer)]
    if any(e > limits.exponent for e in exponents) or (not has_variable and math.prod(filter(None, exponents)) > limits.exponent):
        return "exponent"
    if tower_height(answer) > limits.tower - (not has_variable):
        return "tower"
    arguments = _FACTORIAL.findall(answer)
    if _REPEATED_FACTORIAL.search(answer) or any(a.isdigit() and int(a) > limits.factorial for a in arguments):
        return "factorial"
    grouped = any(not a.isdigit() for a in arguments)
    if grouped and not has_variable and (len(arguments) > 1 or "^" in answer or _largest(answer) > limits.factorial):
        return "factorial"
    return None


def _largest(answer: str) -> int:
    return max((int(n) for n in _DIGITS.findall(answer)), default=0)
