"""What a method of one's own says of itself to the configuration: its defaults, the settings that it reads, and settings of its own.

All are attributes of its class, and all may be missing. ``defaults``: a `MethodDefaults`. ``reads``: names of groups of `RunConfig`
that only some methods read, such as ``vote`` and ``reinforcement``. ``Settings``: a dataclass of its own settings.
"""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sttrl.config.defaults import METHOD_DEFAULTS, MethodDefaults
from sttrl.config.extensions import Part, check_fits, imported, place_of
from sttrl.config.method import METHOD, MethodSettings
from sttrl.errors import UsageError, error_text

PAGE = "how_to_add_a_method.md"
DELTA = Part("delta", ("problem", "questions"))
EACH = (DELTA, Part("adapt", ("problem", "policy"), awaited=True))
AT_ONCE = (DELTA, Part("plan", ("problems",)), Part("step", ("index", "problems", "policy"), awaited=True))
"""The functions of `sttrl.methods.Method` and of `sttrl.methods.DatasetMethod`, and how the runner calls them."""
S = TypeVar("S")


@dataclass(frozen=True, kw_only=True)
class OwnMethod:
    """A method that is not one of ours. ``at_once``: it trains one policy on all problems."""

    defaults: MethodDefaults
    reads: frozenset[str]
    at_once: bool


def method_class(name: str) -> type:
    """The class that the name of a method of one's own names. Raises `UsageError` if it is no method."""
    kind = imported(METHOD, name)
    if not isinstance(kind, type):
        raise UsageError(f"--adaptation_method {name} does not fit: {place_of(kind)} is no class.", f"docs/{PAGE} shows one.")
    check_fits(METHOD, name, kind, [Part("", ("tools",))], PAGE)
    check_fits(METHOD, name, kind, AT_ONCE if is_at_once(kind) else EACH, PAGE)
    return kind


def is_at_once(kind: type) -> bool:
    """Whether a method trains one policy on all problems."""
    return hasattr(kind, "plan") or hasattr(kind, "step")


def own_method(chosen: MethodSettings, groups: Sequence[str]) -> OwnMethod | None:
    """What the chosen method says of itself; None for one of ours. ``groups``: the names that ``reads`` may have.

    Raises `UsageError` if it cannot be imported or says something wrong, and for settings that it does not have.
    """
    if METHOD.reference(chosen.adaptation_method) is None:
        if chosen.method_settings:
            raise UsageError(
                f"--method_settings {' '.join(chosen.method_settings)} does nothing with --adaptation_method {chosen.adaptation_method}.",
                "It is for a method of your own: leave it out.",
            )
        return None
    kind = method_class(chosen.adaptation_method)
    said = f"--adaptation_method {chosen.adaptation_method} does not fit: {place_of(kind)}"
    defaults, reads = getattr(kind, "defaults", METHOD_DEFAULTS["sttrl"]), getattr(kind, "reads", ())
    if not isinstance(defaults, MethodDefaults):
        raise UsageError(f"{said} has `defaults` that are {type(defaults).__name__}.", f"They are a MethodDefaults; docs/{PAGE} shows one.")
    if isinstance(reads, str) or not set(reads) <= set(groups):
        raise UsageError(f"{said} has `reads` that are {reads!r}.", f"They are a set of {', '.join(groups)}.")
    if hasattr(kind, "Settings"):
        settings_of(kind.Settings, chosen.method_settings)
    elif chosen.method_settings:
        raise UsageError(f"--method_settings {chosen.method_settings[0]}: {place_of(kind)} has no Settings.", "Leave it out.")
    return OwnMethod(defaults=defaults, reads=frozenset(reads), at_once=is_at_once(kind))


def settings_of(kind: type[S], given: Sequence[str]) -> S:
    """The settings of a method of one's own, from texts ``name=value``. ``kind``: a dataclass.

    A value is read as the type of its field says; a list or a mapping is written as JSON. Raises `UsageError`.
    """
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        raise UsageError(f"The Settings of a method are no dataclass: {place_of(kind)}.", f"docs/{PAGE} shows one.")
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or name not in fields:
            near = difflib.get_close_matches(name, fields, 1)
            meant = f"Did you mean {near[0]}? " if near else ""
            raise UsageError(f"--method_settings {text}: there is no setting {name!r}.", f"{meant}There are {', '.join(fields) or 'none'}.")
        values[name] = _read(value, hints[name], text)
    required = dataclasses.MISSING
    missing = [n for n, field in fields.items() if n not in values and field.default is required and field.default_factory is required]
    if missing:
        raise UsageError(f"--method_settings lacks {', '.join(missing)}.", f"Give {missing[0]}=VALUE; {place_of(kind)} has no default.")
    try:
        return kind(**values)
    except (ValueError, UsageError) as error:
        raise UsageError(f"--method_settings {' '.join(given)}: {error_text(error)}.", f"See {place_of(kind)}.") from error


def _read(value: str, hint: Any, text: str) -> Any:
    """A text as a value of a type; JSON where the text itself is none."""
    from pydantic import TypeAdapter, ValidationError

    adapter = TypeAdapter[Any](hint)
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        try:
            return adapter.validate_json(value)
        except ValidationError:
            raise UsageError(f"--method_settings {text}: {error.errors()[0]['msg']}.", "Write it as name=value.") from error
