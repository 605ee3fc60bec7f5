"""Equality by algebra: math-verify in both directions. Imported by the worker only; it may hang or eat memory.

math-verify's own timeouts are off: they are SIGALRM in the main thread, and here the kernel counts CPU time. Only its LaTeX reader is used:
its reader of plain expressions ends in Python's eval.
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
    """What was read, and what tells it apart cheaply: the power sums of its numbers, and whether it is a range of numbers.

    ``is_constant``: one number; ``is_decimal``: with a decimal in it, so that another number may be equal to 12 digits only.
    """

    expressions: list[Any]
    sums: tuple[int, complex, complex, float] | None
    is_range: bool
    is_constant: bool
    is_decimal: bool


class Algebra:
    """Compares normal forms; keeps what it has parsed."""

    def __init__(self) -> None:
        logging.getLogger("math_verify").setLevel(logging.CRITICAL)
        self._parsed: OrderedDict[str, _Parsed] = OrderedDict()

    def warm_up(self) -> None:
        """Fill the grammar's and sympy's own caches, which make the first parse of each construct ten times slower."""
        for a in _WARM_UP:
            for b in _WARM_UP:
                self.equal(a, b)

    def examine(self, form: str) -> None:
        """Parse a form and compare it with 1: a form that cannot stand this is at fault itself, not its neighbours."""
        parsed = self._parse(form)
        if parsed.sums is None:
            verify(parsed.expressions, [Integer(1)], timeout_seconds=None)

    def equal(self, a: str, b: str) -> bool:
        """Whether math-verify accepts one as the other, either way round; forms it cannot read equal nothing."""
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
    """Too far apart to be equal; math-verify alone would round to 6 decimals and so lose small numbers.

    Equal expressions have equal values, and finding values takes a hundredth of the time of simplifying a difference.
    """
    if a.sums is None or b.sums is None:
        other = b if a.is_range else a
        return a.is_range != b.is_range and other.sums is not None and other.sums[0] == 1
    (count_a, first_a, second_a, size_a), (count_b, first_b, second_b, size_b) = a.sums, b.sums
    error = _RELATIVE_ERROR * max(size_a, size_b) + _NEAR_ZERO
    return count_a != count_b or abs(first_a - first_b) > error or abs(second_a - second_b) > error * max(size_a, size_b)


def _with_imaginary_unit(expression: Any) -> Any:
    """The symbol i is the imaginary unit, which math-verify does not know; the index of a sum stays."""
    if not isinstance(expression, Basic):
        return expression
    return expression.subs({s: I for s in expression.free_symbols if isinstance(s, Symbol) and s.name == "i"})


def _power_sums(expression: Any) -> tuple[int, complex, complex, float] | None:
    """Count, sum, sum of squares and sum of sizes of a number, or of the members of a list, finite set or interval.

    Sums, because a set has no order. None where it is anything else or has no finite value.
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
    """The number an expression stands for when each variable has a value that depends on its name only."""
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
