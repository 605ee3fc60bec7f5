"""Equality by algebra, with math-verify in both directions. Only the worker process imports it: it may hang or use much memory.

math-verify's own timeouts are off: they use SIGALRM, and here the kernel limits the CPU time. Only its LaTeX parser is used, because its
parser of plain expressions calls Python's eval.
"""

from __future__ import annotations

import logging
import re
import zlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final

from latex2sympy2_extended.latex2sympy2 import NormalizationConfig
from math_verify import LatexExtractionConfig, parse, verify
from sympy import Basic, Expr, FiniteSet, Float, I, Integer, Interval, Rational, Set, Symbol, Tuple, oo

_CACHE_SIZE: Final = 1024
_RELATIVE_ERROR: Final = 1e-12
_NEAR_ZERO: Final = 1e-90
_DIGITS: Final = 30
_INFINITY: Final = 123456.75
_LARGEST: Final = 1e100
_FACTOR: Final = re.compile(r"(?<![_^]\d)(?<=[\d)])\((?=(?:\d+(?:\.\d+)?|\\frac\{\d+\}\{\d+\})\))", re.ASCII)
_CAPITAL_I: Final = re.compile(r"(?<![A-Za-z\\{])I(?![A-Za-z_}])")
_WARM_UP: Final = (r"\frac{\sqrt{3}}{2}", "0.5", r"(-1,\frac{1}{2}]", "x^2-3x+1", r"\begin{pmatrix}1\\2\end{pmatrix}", "3,5")
_READER: Final = LatexExtractionConfig(
    boxed_match_priority=-1,
    normalization_config=NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none", equations=False
    ),
)


@dataclass(frozen=True, kw_only=True)
class _Parsed:
    """A parsed form, with some properties that show cheaply that two forms differ.

    ``sums``: see `_power_sums`. ``is_range``: a set that is not finite. ``is_constant``: one number. ``is_decimal``: it contains a
    decimal, which need equal another number only to 12 digits.
    """

    expressions: list[Any]
    sums: tuple[int, complex, complex, float] | None
    is_range: bool
    is_constant: bool
    is_decimal: bool


class Algebra:
    """Compares normal forms, and remembers parsed ones."""

    def __init__(self) -> None:
        logging.getLogger("math_verify").setLevel(logging.CRITICAL)
        self._parsed: OrderedDict[str, _Parsed] = OrderedDict()

    def warm_up(self) -> None:
        """Fill the caches of the grammar and of sympy. Without them the first parse of each construct takes ten times as long."""
        for a in _WARM_UP:
            for b in _WARM_UP:
                self.equal(a, b)

    def examine(self, form: str) -> None:
        """Parse a form and compare it with 1. A form that exceeds the limits here is to blame itself, not the form it is compared with."""
        parsed = self._parse(form)
        if parsed.sums is None:
            verify(parsed.expressions, [Integer(1)], timeout_seconds=None)

    def equal(self, a: str, b: str) -> bool:
        """Whether math-verify says that the forms are equal, in either direction. A form that it cannot parse equals no other."""
        one, other = self._parse(a), self._parse(b)
        if _differ(one, other):
            return False
        if one.is_constant and other.is_constant and (one.is_decimal or other.is_decimal):
            return True
        return bool(
            verify(one.expressions, other.expressions, timeout_seconds=None)
            or verify(other.expressions, one.expressions, timeout_seconds=None)
        )

    def _parse(self, form: str) -> _Parsed:
        if form not in self._parsed:
            text = _CAPITAL_I.sub("I_{0}", _FACTOR.sub(r"\\cdot(", form.replace("%", "")))
            read = parse(f"${text}$", [_READER], fallback_mode="no_fallback", parsing_timeout=None)
            expressions = [_with_imaginary_unit(one) for one in read]
            only = expressions[0] if len(expressions) == 1 else None
            sums, formula = _power_sums(only), only if isinstance(only, Expr) else None
            self._parsed[form] = _Parsed(
                expressions=expressions,
                sums=sums,
                is_range=isinstance(only, Set) and not isinstance(only, FiniteSet),
                is_constant=formula is not None and sums is not None and not formula.free_symbols,
                is_decimal=formula is not None and formula.has(Float),
            )
            if len(self._parsed) > _CACHE_SIZE:
                self._parsed.popitem(last=False)
        self._parsed.move_to_end(form)
        return self._parsed[form]


def _differ(a: _Parsed, b: _Parsed) -> bool:
    """Whether the numerical values of two forms differ. math-verify alone rounds to 6 decimals, so small numbers would all be equal.

    It is also quick: computing values takes a hundredth of the time of simplifying a difference.
    """
    if a.sums is None or b.sums is None:
        other = b if a.is_range else a
        return a.is_range != b.is_range and other.sums is not None and other.sums[0] == 1
    (count_a, first_a, second_a, size_a), (count_b, first_b, second_b, size_b) = a.sums, b.sums
    error = _RELATIVE_ERROR * max(size_a, size_b) + _NEAR_ZERO
    return count_a != count_b or abs(first_a - first_b) > error or abs(second_a - second_b) > error * max(size_a, size_b)


def _with_imaginary_unit(expression: Any) -> Any:
    """The expression with the imaginary unit for the symbol i, which math-verify reads as a variable. The index of a sum stays."""
    if not isinstance(expression, Basic):
        return expression
    return expression.subs({s: I for s in expression.free_symbols if isinstance(s, Symbol) and s.name == "i"})


def _power_sums(expression: Any) -> tuple[int, complex, complex, float] | None:
    """(count, sum, sum of squares, sum of absolute values) of a number, or of the members of a list, finite set or interval.

    Sums do not depend on the order of a set. None for anything else, or if a value is not finite.
    """
    members: tuple[Any, ...] = (expression,)
    if isinstance(expression, Interval):
        members = (expression.start, expression.end)
    elif isinstance(expression, (FiniteSet, Tuple)):
        members = expression.args
    value_M = [_value(member) for member in members]
    numbers = [value for value in value_M if value is not None]
    if len(numbers) < len(value_M) or not numbers:
        return None
    return len(numbers), sum(numbers), sum(v * v for v in numbers), sum(abs(v) for v in numbers)


def _value(expression: Any) -> complex | None:
    """The value of an expression, with a fixed number for each variable that depends only on its name; None if it has none."""
    if not isinstance(expression, Expr) or isinstance(expression, Symbol):
        return None
    if expression in (oo, -oo):
        return _INFINITY if expression == oo else -_INFINITY
    points = {s: 1 + Rational(zlib.crc32(s.name.casefold().encode()), 2**32) for s in expression.free_symbols}
    try:
        value = complex(expression.subs(points).doit().evalf(_DIGITS))
    except (TypeError, ValueError, ArithmeticError, AttributeError, RecursionError, NotImplementedError):
        return None
    return value if abs(value) < _LARGEST else None
