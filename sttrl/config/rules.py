"""Rules for the values of a setting, written in its annotation: ``Annotated[int, at_least(1)]``."""

from __future__ import annotations

import dataclasses
import functools
import math
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from sttrl.config.extensions import Choice
from sttrl.errors import UsageError


@dataclass(frozen=True)
class Rule:
    """Which values are allowed, and the remedy that the error names for another one. None is always allowed."""

    allows: Callable[[Any], bool]
    remedy: str

    def check(self, name: str, value: Any) -> None:
        """Raises `UsageError` for a value of the setting ``name`` that is not allowed."""
        if not self.allows(value):
            raise UsageError(f"--{name} is {value}.", self.remedy)


def at_least(lowest: int, otherwise: str = "") -> Rule:
    """Numbers of at least ``lowest``; ``otherwise`` is added to the remedy."""
    return Rule(lambda value: value >= lowest, f"Use {lowest} or more{otherwise}.")


OPTIONAL_COUNT = at_least(1, ", or leave it out")
FRACTION = Rule(lambda value: 0 <= value <= 1, "Use a number from 0 to 1.")
POSITIVE_FRACTION = Rule(lambda value: 0 < value <= 1, "Use a number above 0, at most 1.")
NOT_NEGATIVE = Rule(lambda value: 0 <= value < math.inf, "Use a finite number, 0 or more.")
ABOVE_ZERO = Rule(lambda value: 0 < value < math.inf, "Use a finite number above 0.")


@dataclass(frozen=True, kw_only=True)
class Group:
    """Settings that belong together.

    ``without``: the methods that do not read them. ``methods``, ``votes`` and ``kinds``: the methods, the votes and the kinds of problem
    that read them; None: all. ``needs``: the settings that are read only where another setting of the run has one of certain values, with
    its name and these values; no values: where it is set at all.
    """

    methods: ClassVar[frozenset[str] | None] = None
    without: ClassVar[frozenset[str]] = frozenset()
    votes: ClassVar[frozenset[str] | None] = None
    kinds: ClassVar[frozenset[str] | None] = None
    needs: ClassVar[Mapping[str, tuple[str, tuple[Any, ...]]]] = {}

    def __post_init__(self) -> None:
        """Raises `UsageError` for a value that a rule does not allow."""
        for name, rule in rules_of(type(self)):  # type: ignore[arg-type] # mypy takes a class for not hashable
            value = getattr(self, name)
            if value is not None:
                rule.check(name, value)

    def not_default(self) -> dict[str, Any]:
        """The settings whose value is not the default."""
        return {field.name: value for field in dataclasses.fields(self) if (value := getattr(self, field.name)) != field.default}


def suits(value: Any, values: tuple[Any, ...]) -> bool:
    """Whether a setting has one of the values that `Group.needs` names, or is set at all if it names none. A list has
    each of its values."""
    if isinstance(value, tuple | list):
        return not set(values).isdisjoint(value) if values else bool(value)
    return value in values if values else value is not None


@functools.cache
def rules_of(group: type[Group]) -> tuple[tuple[str, Rule | Choice], ...]:
    """The rules of a group's settings, by name."""
    hints = typing.get_type_hints(group, include_extras=True)
    metadata = {name: getattr(hint, "__metadata__", ()) for name, hint in hints.items()}
    return tuple((name, rule) for name, rules in metadata.items() for rule in rules if isinstance(rule, Rule | Choice))
