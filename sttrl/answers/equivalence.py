"""Equivalence classes of normal forms: what exact rules decide, and the union of everything found equal."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

_INTEGER: Final = re.compile(r"-?\d+%?", re.ASCII)
_PLAIN: Final = re.compile(r"-?(?:\d+(?:\.\d+)?|\d*\\frac\{\d+\}\{\d+\})%?", re.ASCII)
_WORDS: Final = re.compile(r"[A-Za-z][A-Za-z' .-]{2,}")
_IN_BASE: Final = re.compile(r"\w+_\{?\d+\}?", re.ASCII)
_LOOSE_DIGITS: Final = re.compile(r"\d \d", re.ASCII)


def is_plain(form: str) -> bool:
    """An integer, a decimal or a fraction of integers: harmless to compare."""
    return _PLAIN.fullmatch(form) is not None


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


def _both(pattern: re.Pattern[str], a: str, b: str) -> bool:
    return pattern.fullmatch(a) is not None and pattern.fullmatch(b) is not None
