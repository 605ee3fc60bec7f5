"""What values a setting may have, said in its annotation: ``Annotated[int, at_least(1)]``."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from sttrl.errors import UsageError


@dataclass(frozen=True)
class Rule:
    """Which values are allowed, and what to say of another one. A setting that is None is not checked."""

    allows: Callable[[Any], bool]
    remedy: str


def at_least(lowest: int, otherwise: str = "") -> Rule:
    """Counts from ``lowest`` on; ``otherwise`` goes on with the remedy."""
    return Rule(lambda value: value >= lowest, f"Use {lowest} or more{otherwise}.")


OPTIONAL_COUNT = at_least(1, ", or leave it out")
SHARE = Rule(lambda value: 0 <= value <= 1, "It is a share: from 0, at most 1.")
POSITIVE_SHARE = Rule(lambda value: 0 < value <= 1, "It is a share: above 0, at most 1.")
NOT_NEGATIVE = Rule(lambda value: 0 <= value < math.inf, "Use a finite number, 0 or more.")
ABOVE_ZERO = Rule(lambda value: 0 < value < math.inf, "Use a finite number above 0.")


@dataclass(frozen=True, kw_only=True)
class Group:
    """Settings that belong together. ``methods`` and ``votes`` name what the group belongs to; None: to all."""

    methods: ClassVar[frozenset[str] | None] = None
    votes: ClassVar[frozenset[str] | None] = None

    def __post_init__(self) -> None:
        """Raises `UsageError` for a value that a rule does not allow."""
        for name, rule in rules_of(type(self)):
            value = getattr(self, name)
            if value is not None and not rule.allows(value):
                raise UsageError(f"--{name} is {value}.", rule.remedy)

    def not_default(self) -> dict[str, Any]:
        """The settings that do not have their default."""
        return {field.name: value for field in dataclasses.fields(self) if (value := getattr(self, field.name)) != field.default}


def rules_of(group: type[Group]) -> tuple[tuple[str, Rule], ...]:
    """The rules of a group's settings, by name."""
    hints = typing.get_type_hints(group, include_extras=True)
    return tuple((name, rule) for name, hint in hints.items() for rule in getattr(hint, "__metadata__", ()) if isinstance(rule, Rule))
