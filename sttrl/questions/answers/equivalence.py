"""Decides when two normal forms are equal, and divides the forms of a group into classes.

Exact rules compare numbers, ratios, words, named values and members; ``ask`` compares two formulas.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import product
from typing import Final

from sttrl.questions.answers.shapes import VARIABLE, Formula, InBase, Members, Named, Number, Ratio, Settled, Shape, Words, shape

_LOOSE_DIGITS: Final = re.compile(r"(?<!_)\d \d", re.ASCII)
_RELATIVE_ERROR: Final = Fraction(1, 10**12)

Ask = Callable[[str, str], bool]
"""Decides by algebra whether two forms are equal."""


class _Undecided(Exception):
    """Exact rules cannot decide."""


def decide(a: str, b: str) -> bool | None:
    """Whether two normal forms are equal by exact rules; None if these cannot decide.

    Two forms for which this is False are never in one class, even if algebra, which rounds, would accept them as equal.
    """
    try:
        return compare(a, b, _undecided)
    except _Undecided:
        return None


def compare(a: str, b: str, ask: Ask) -> bool:
    """Whether two normal forms are equal, by exact rules; ``ask`` decides about formulas that these cannot decide."""
    if a == b:
        return True
    one, other = shape(a), shape(b)
    if isinstance(one, Named) or isinstance(other, Named):
        return _compare_named(a, b, ask)
    if isinstance(one, Members) or isinstance(other, Members):
        return _compare_members(a, b, ask)
    if "%" in a + b:
        return a.count("%") == b.count("%") and compare(a.replace("%", ""), b.replace("%", ""), ask)
    verdict = _compare_shapes(one, other)
    if verdict is None:
        verdict = False if _LOOSE_DIGITS.search(a) or _LOOSE_DIGITS.search(b) else ask(a, b)
    return verdict


def classes(forms: Sequence[str], same: Ask, apart: Ask) -> list[int]:
    """The class of each form, numbered by first appearance. The partition does not depend on the order of the forms.

    Classes are joined pair by pair, because equality within rounding is not transitive. Two forms that are ``apart`` are never joined: a
    form that is equal to both joins the first of them, ordered by length and alphabet. A pair in the same class is not compared.
    """
    members = [[i] for i in range(len(forms))]
    order = sorted(range(len(forms)), key=lambda i: (len(forms[i]), forms[i]))
    for place, i in enumerate(order):
        for j in order[:place]:
            joined, joining = members[j], members[i]
            if joined is joining or any(apart(forms[u], forms[v]) for u, v in product(joined, joining)):
                continue
            if same(forms[j], forms[i]):
                joined += joining
                for k in joining:
                    members[k] = joined
    numbers: dict[int, int] = {}
    return [numbers.setdefault(id(group), len(numbers)) for group in members]


def _undecided(a: str, b: str) -> bool:
    raise _Undecided


def _compare_shapes(a: Shape, b: Shape) -> bool | None:
    """The verdict on two single values; None if only algebra can decide."""
    match a, b:
        case (Number(), Number()):
            return _equal_numbers(a, b)
        case (Ratio(), Ratio()):
            return _equal_ratios(a, b)
        case (Ratio(), _) | (_, Ratio()):
            return None if _has_colon(a) or _has_colon(b) else False
        case (Words(), Words()) | (InBase(), InBase()):
            return a == b
        case (Words(text=word), Formula(letters=letters)) | (Formula(letters=letters), Words(text=word)) if letters:
            return word == letters
        case (Words(), Number()) | (Number(), Words()):
            return False
        case (Settled(), Settled()) if a.kind == b.kind:
            return a.value == b.value
    if _has_colon(a) != _has_colon(b):
        return False
    both_relations = _is_relation(a) and _is_relation(b)
    return None if both_relations or _is_equation(a) == _is_equation(b) else False


def _is_equation(one: Shape) -> bool:
    return isinstance(one, Formula) and one.equation


def _is_relation(one: Shape) -> bool:
    return isinstance(one, Formula) and one.relation


def _has_colon(one: Shape) -> bool:
    return isinstance(one, Formula) and one.colon


def _equal_numbers(a: Number, b: Number) -> bool:
    """Whether two numbers are equal. A long decimal also equals the fraction that it approximates, if no decimal equals the fraction."""
    if a.value == b.value:
        return True
    return any(
        decimal.long and not _has_decimal(other.value) and abs(decimal.value - other.value) <= _RELATIVE_ERROR * abs(other.value)
        for decimal, other in ((a, b), (b, a))
    )


def _has_decimal(value: Fraction) -> bool:
    """Whether a finite decimal equals the value."""
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return rest == 1


def _equal_ratios(a: Ratio, b: Ratio) -> bool:
    """Two times are equal if they are the same time of day, two ratios if they are proportional. A certain time equals only a time."""
    if a.must_be_time or b.must_be_time or (a.may_be_time and b.may_be_time):
        return a.may_be_time and b.may_be_time and _equal_times(a, b)
    if len(a.members) != len(b.members) or not any(a.members) or not any(b.members):
        return a.members == b.members
    return all(x * b.members[0] == y * a.members[0] for x, y in zip(a.members, b.members, strict=True))


def _equal_times(a: Ratio, b: Ratio) -> bool:
    """Whether two times are equal. A time without a.m. or p.m. equals the same time with either of them."""
    if bool(a.half) == bool(b.half):
        return _of_the_day(a) == _of_the_day(b)
    return a.members == b.members or _of_the_day(a) == _of_the_day(b)


def _of_the_day(time: Ratio) -> tuple[Fraction, ...]:
    hour, *rest = time.members
    if time.half:
        hour = hour % 12 + (12 if time.half == "p" else 0)
    return hour, *rest


def _compare_named(a: str, b: str, ask: Ask) -> bool:
    """Names are compared only if both forms have one: x=3 equals 3 but not y=3."""
    one, other = shape(a), shape(b)
    if isinstance(one, Named) and isinstance(other, Named):
        return _compare_two_named(one, other, lambda: ask(a, b), ask)
    named, rest = (one, other) if isinstance(one, Named) else (other, one)
    assert isinstance(named, Named)
    if isinstance(rest, Formula) and rest.relation:
        return ask(a, b)
    return compare(named.value, b if named is one else a, ask)


def _compare_two_named(a: Named, b: Named, ask_whole: Callable[[], bool], ask: Ask) -> bool:
    if a.primes != b.primes:
        return False
    same_name = a.base == b.base and _agree(a.script, b.script) and _agree(a.arguments, b.arguments)
    function_and_letter = bool(a.arguments) != bool(b.arguments) and not (a.script or b.script)
    if same_name or function_and_letter:
        return compare(a.value, b.value, ask)
    return ask_whole() if VARIABLE.search(a.value) and VARIABLE.search(b.value) else False


def _agree(a: str, b: str) -> bool:
    return a == b or not a or not b


def _compare_members(a: str, b: str, ask: Ask) -> bool:
    one, other = shape(a), shape(b)
    if not (isinstance(one, Members) and isinstance(other, Members)):
        several, text, rest = (one, b, other) if isinstance(one, Members) else (other, a, one)
        assert isinstance(several, Members)
        distinct = _distinct(several)
        if len(distinct) == 1 and distinct[0] != r"\emptyset":
            return compare(distinct[0], text, ask)
        return ask(a, b) if isinstance(rest, Formula) and not rest.single else False
    for alone, text, rest in ((one, b, other), (other, a, one)):
        if alone.brackets == "{}" != rest.brackets and len(alone.members) == 1:
            return compare(alone.members[0], text, ask)
    if one.names and other.names and set(one.names) != set(other.names):
        return False
    if len(one.names) > 1 and len(other.names) > 1:
        values = dict(zip(other.names, other.members, strict=True))
        return _in_order(one.members, [values[name] for name in one.names], ask)
    return _compare_brackets(one, other, ask)


def _compare_brackets(a: Members, b: Members, ask: Ask) -> bool:
    """Sets and lists without brackets have no order; only sets ignore repetitions; such a list equals a tuple in the same order."""
    kinds = {a.brackets, b.brackets}
    if len(a.names) > 1 or len(b.names) > 1:
        return _in_order(a.members, b.members, ask)
    if kinds == {"{}"}:
        return _in_any_order(_distinct(a), _distinct(b), ask)
    if kinds <= {"", "{}"}:
        return _in_any_order(a.members, b.members, ask)
    lists = kinds <= {"()", "[]", ""} and len(a.members) > 2
    return (len(kinds) == 1 or kinds == {"", "()"} or lists) and _in_order(a.members, b.members, ask)


def _distinct(several: Members) -> tuple[str, ...]:
    """The members of a set without repetitions; all members of anything else."""
    if several.brackets != "{}":
        return several.members
    kept: list[str] = []
    for member in several.members:
        if not any(decide(member, earlier) for earlier in kept):
            kept.append(member)
    return tuple(kept)


def _in_order(a: Sequence[str], b: Sequence[str], ask: Ask) -> bool:
    if len(a) != len(b):
        return False
    verdicts = [decide(x, y) for x, y in zip(a, b, strict=True)]
    if False in verdicts:
        return False
    return all(verdict or compare(x, y, ask) for verdict, x, y in zip(verdicts, a, b, strict=True))


def _in_any_order(a: Sequence[str], b: Sequence[str], ask: Ask) -> bool:
    """Whether the members can be matched in pairs of equal ones: first by exact rules, then the remaining ones by ``ask``."""
    if len(a) != len(b):
        return False
    left = list(b)
    open_members = []
    for member in a:
        partner = next((other for other in left if decide(member, other)), None)
        if partner is None:
            open_members.append(member)
        else:
            left.remove(partner)
    apart = {(x, y) for x, y in product(open_members, left) if decide(x, y) is False}
    if any(all((x, y) in apart for y in left) for x in open_members) or any(all((x, y) in apart for x in open_members) for y in left):
        return False
    for member in open_members:
        partner = next((other for other in left if compare(member, other, ask)), None)
        if partner is None:
            return False
        left.remove(partner)
    return True
