"""Settings from YAML: read, names checked, and values converted to the types of the settings."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sttrl.config import CHOICES, RunConfig, default_settings, field_names, type_of
from sttrl.config.packaged import where_to_find
from sttrl.errors import UsageError, error_text


class FileSettings(RunConfig):
    """Settings of a file, which tyro takes as defaults. The checks between groups are made after the flags are added."""

    def __post_init__(self) -> None:
        """Check nothing."""


def read_yaml(file: Path) -> dict[str, Any]:
    """Settings of a YAML file that are not null, each with a value of its type. Raises `UsageError`."""
    where = f"--config {file}"
    settings = typed(known_settings(read_mapping(file, where), where), where)
    return {name: value for name, value in settings.items() if value is not None}


def typed(settings: Mapping[str, object], where: str) -> dict[str, Any]:
    """Settings with values of their types; null stays None. Raises `UsageError`, which begins with ``where``."""
    return {name: None if value is None else _typed(name, value, where) for name, value in settings.items()}


def _typed(name: str, value: object, where: str) -> Any:
    from pydantic import TypeAdapter, ValidationError

    default, problem = default_settings()[name], f"{where}: {name} cannot be {value!r}."
    if isinstance(value, bool) != isinstance(default, bool):
        raise UsageError(problem, f"An example is {name}: {yaml_text(default)}; see --help.")
    if name == "chat_template_kwargs" and isinstance(value, dict):
        value = json.dumps(value)
    # Values are converted to text first: a name may look like a number or a date, and YAML reads 1e-3 as text.
    parts = [part if isinstance(part, bool | dict | list) else str(part) for part in (value if isinstance(value, list) else [value])]
    try:
        adapter = TypeAdapter[Any](type_of(name))
        found = adapter.validate_python(parts if isinstance(value, list) or isinstance(default, tuple) else parts[0])
    except ValidationError as error:
        raise UsageError(problem, f"{error.errors()[0]['msg']}; see --help.") from error
    choice = next((choice for choice in CHOICES if choice.setting == name), None)
    if choice is not None and (remedy := choice.remedy(found)) is not None:
        raise UsageError(problem, remedy)
    return found


def read_mapping(file: Path, where: str) -> dict[Any, Any]:
    """The mapping in a YAML file; empty for an empty file. Raises `UsageError`, whose message begins with ``where``."""
    import yaml

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(f"{where} cannot be read: {error}.", where_to_find(file)) from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{where} cannot be read: {error}.", "Give a YAML file in UTF-8.") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{where} is not YAML: {error_text(error)}.", "Write one `name: value` a line.") from error
    if not isinstance(content, dict):
        raise UsageError(f"{where} holds no settings.", "Write one `name: value` a line.")
    return content


def known_settings(settings: Mapping[Any, Any], where: str) -> dict[str, Any]:
    """The settings, with underscores instead of dashes in their names. Raises `UsageError` for an unknown name."""
    named = {str(name).replace("-", "_"): value for name, value in settings.items()}
    for name in named:
        if name not in field_names():
            raise UsageError(f"{where}: there is no setting {name!r}.", nearest(name, field_names()) or "See --help.")
    return named


def nearest(name: str, known: tuple[str, ...]) -> str:
    """A question that suggests the nearest known name; empty if none is near."""
    near = difflib.get_close_matches(name, known, 1)
    return f"Did you mean {near[0]!r}?" if near else ""


def yaml_text(default: object) -> str:
    """A default value in YAML."""
    return str(default).lower() if isinstance(default, bool) else str(default)
