"""The short ``--help``: only the settings that most people need, in their groups."""

from __future__ import annotations

import dataclasses
import typing
from typing import Annotated, Any

import tyro

from sttrl.config.rules import Group
from sttrl.config.run_config import MOST_USED, RunConfig


def short_view() -> type[RunConfig]:
    """A `RunConfig` whose help shows only the most used settings. It is for printing help, not for parsing."""
    hints = typing.get_type_hints(RunConfig, include_extras=True)
    groups = {name: _short(hint) for name, hint in hints.items() if isinstance(hint, type) and issubclass(hint, Group)}
    content: dict[str, Any] = {"__annotations__": groups, "__module__": RunConfig.__module__, "__doc__": RunConfig.__doc__}
    content |= {name: group() for name, group in groups.items()}
    return dataclasses.dataclass(frozen=True, kw_only=True)(type("RunConfig", (RunConfig,), content))


def _short(group: type[Group]) -> type[Group]:
    """The group without the help of its less used settings."""
    hints = typing.get_type_hints(group, include_extras=True)
    rare = [field for field in dataclasses.fields(group) if field.name not in MOST_USED]
    content: dict[str, Any] = {field.name: field.default for field in rare}
    content["__annotations__"] = {field.name: Annotated[hints[field.name], tyro.conf.Suppress] for field in rare}
    content |= {"__module__": group.__module__, "__doc__": group.__doc__}
    return dataclasses.dataclass(frozen=True, kw_only=True)(type(group.__name__, (group,), content))
