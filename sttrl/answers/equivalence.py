"""Equivalence classes of normal forms: what exact rules decide, and the union of everything found equal."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Final

_INTEGER: Final = re.compile(r"-?\d+%?", re.ASCII)
_PLAIN: Final = re.compile(r"-?(?:\d+(?:\.\d+)?|\d*\\frac\{\d+\}\{\d+\})%?", re.ASCII)
_WORDS: Final = re.compile(r"[A-Za-z][A-Za-z' .-]{2,}")
_IN_BASE: Final = re.compile(r"\w+_\{?\d+\}?", re.ASCII)
_LOOSE_DIGITS: Final = re.compile(r"\d \d", re.ASCII)
_TERM: Final = r"(?:\d+|\d*[a-cf-hj-z](?:\^(?:\d(?!\d)|\{\d\d\}))?)"
_POLYNOMIAL: Final = re.compile(rf"-?{_TERM}(?:[+-]{_TERM})+", re.ASCII | re.IGNORECASE)
_PARTS: Final = re.compile(r"([+-]?)(\d*)([a-z]?)(?:\^\{?(\d+)\}?)?", re.ASCII | re.IGNORECASE)
_PRODUCT: Final = r"(?=\d|\\sqrt)(\d*)(?:\\sqrt\{(\d+)\})?"
_SURD: Final = re.compile(rf"(-?)(?:{_PRODUCT}|\\frac\{{(-?){_PRODUCT}\}}\{{{_PRODUCT}\}})", re.ASCII)
_IN_BRACKETS: Final = re.compile(r"([(\[])(-?\d+(?:,-?\d+)+)([)\]])", re.ASCII)


def is_plain(form: str) -> bool:
    """An integer, a decimal or a fraction of integers, or one of the shapes that have a value of their own: harmless to compare."""
    return _PLAIN.fullmatch(form) is not None or _value(form) is not None


def decide(a: str, b: str) -> bool | None:
    """Whether two normal forms are equal as far as exact rules can tell; None leaves it to algebra.

    Algebra would blur what these keep apart: 10 % and 0.1 and 10, integers, words that are anagrams, one numeral in two bases.
    """
    if a == b:
        return True
    if a.count("%") != b.count("%") or _both(_INTEGER, a, b) or _both(_IN_BASE, a, b):
        return False
    if _both(_WORDS, a, b):
        return a.casefold() == b.casefold()
    value_a, value_b = _value(a), _value(b)
    if value_a and value_b and value_a[0] == value_b[0]:
        return value_a == value_b
    return False if _LOOSE_DIGITS.search(a) or _LOOSE_DIGITS.search(b) else None


def classes(forms: Sequence[str], same: Callable[[str, str], bool]) -> list[int]:
    """Class of each form, numbered by first appearance: the connected components of the graph of equal pairs.

    A verdict need not be transitive (0.333333 = 1/3 within rounding), so pairs are joined, and a pair already joined is not asked.
    """
    parent = list(range(len(forms)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    for i in range(len(forms)):
        for j in range(i):
            if root(i) != root(j) and same(forms[j], forms[i]):
                parent[max(root(i), root(j))] = min(root(i), root(j))
    numbers: dict[int, int] = {}
    return [numbers.setdefault(root(i), len(numbers)) for i in range(len(forms))]


def _value(form: str) -> tuple[str, object] | None:
    """Kind and value of a form whose kind is settled by equal values: a polynomial in one letter, a root, integers in brackets.

    Algebra says the same of two values of one kind, but takes milliseconds to read each.
    """
    return _polynomial(form) or _surd(form) or _in_brackets(form)


def _polynomial(form: str) -> tuple[str, object] | None:
    """A sum of terms in one letter with integer coefficients: the letter and the coefficients of its powers.

    ``e`` and ``i`` are numbers and ``d`` is a differential; a letter's case does not count, as it does not to math-verify.
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
    return "polynomial", (letters, +coefficients, -coefficients)


def _surd(form: str) -> tuple[str, object] | None:
    """An integer times the root of one, or a fraction of two such: its sign and its square."""
    match = _SURD.fullmatch(form) if "sqrt" in form else None
    if not match:
        return None
    sign, factor, inside, sign_above, above, inside_above, below, inside_below = match.groups(default="")
    top, bottom = _square(factor or above, inside or inside_above), _square(below, inside_below)
    return ("surd", (sign == sign_above, Fraction(top, bottom))) if top and bottom else None


def _square(factor: str, inside: str) -> int:
    return int(factor or 1) ** 2 * int(inside or 1)


def _in_brackets(form: str) -> tuple[str, object] | None:
    """A point, or a range with its lower end first: the integers; the brackets belong to the kind."""
    match = _IN_BRACKETS.fullmatch(form)
    if not match:
        return None
    left, inside, right = match.groups()
    integers = tuple(int(n) for n in inside.split(","))
    if (left, right) == ("(", ")"):
        return "()", integers
    return (left + right, integers) if len(integers) == 2 and integers[0] < integers[1] else None


def _both(pattern: re.Pattern[str], a: str, b: str) -> bool:
    return pattern.fullmatch(a) is not None and pattern.fullmatch(b) is not None
