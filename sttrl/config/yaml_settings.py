"""Settings from YAML: read, checked for names, and written as flags, so that there is one parser for values."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sttrl.config import RunConfig, field_names, fields_of
from sttrl.errors import UsageError


def flags_of(file: Path) -> list[str]:
    """The settings of a YAML file as flags, so that a wrong type is an error there and on the command line alike."""
    return flags_from(read_yaml(file), f"--config {file}")


def flags_from(settings: Mapping[str, object], where: str) -> list[str]:
    """Settings as flags. Raises `UsageError`, which begins with ``where``, for a value whose shape no flag has."""
    defaults, flags = {field.name: field.default for _, field in fields_of(RunConfig)}, list[str]()
    for name, value in settings.items():
        default = defaults[name]
        if name == "chat_template_kwargs" and isinstance(value, dict):
            value = json.dumps(value)
        is_list = isinstance(value, list | tuple)
        if isinstance(value, dict) or isinstance(value, bool) != isinstance(default, bool) or (is_list and not isinstance(default, tuple)):
            raise UsageError(f"{where}: {name} cannot be {value!r}.", f"An example is {name}: {yaml_text(default)}; see --help.")
        if isinstance(value, bool):
            flags.append(f"--{name}" if value else f"--no_{name}")
        elif isinstance(value, list | tuple):
            flags += [f"--{name}", *map(str, value)]
        else:
            flags.append(f"--{name}={value}")
    return flags


def read_yaml(file: Path) -> dict[str, Any]:
    """Settings of a YAML file that are not null; an unknown name is answered by the nearest known one."""
    settings = known_settings(read_mapping(file, f"--config {file}"), f"--config {file}")
    return {name: value for name, value in settings.items() if value is not None}


def read_mapping(file: Path, where: str) -> dict[Any, Any]:
    """The mapping that a YAML file holds; an empty file holds an empty one. Raises `UsageError`, which begins with ``where``."""
    import yaml

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{where} cannot be read: {error}.", "Give an existing YAML file.") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{where} is not YAML: {' '.join(str(error).split())}.", "Write one `name: value` a line.") from error
    if not isinstance(content, dict):
        raise UsageError(f"{where} holds no settings.", "Write one `name: value` a line.")
    return content


def known_settings(settings: Mapping[Any, Any], where: str) -> dict[str, Any]:
    """The settings with underscores for dashes. Raises `UsageError` for a name that is no setting."""
    named = {str(name).replace("-", "_"): value for name, value in settings.items()}
    for name in named:
        if name not in field_names():
            raise UsageError(f"{where}: there is no setting {name!r}.", nearest(name, field_names()) or "See --help.")
    return named


def nearest(name: str, known: tuple[str, ...]) -> str:
    """What was probably meant, as a question; empty where nothing is near."""
    near = difflib.get_close_matches(name, known, 1)
    return f"Did you mean {near[0]!r}?" if near else ""


def yaml_text(default: object) -> str:
    """A default as YAML has it."""
    return str(default).lower() if isinstance(default, bool) else str(default)
