"""Settings from a command line: the project's flags (``--lr 1e-4``) and Hydra's form (``lr=1e-4``, ``+run_name=x``)."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from sttrl.config.packaged import settings_file
from sttrl.errors import UsageError

HYDRA: Final = re.compile(r"(?:\+{0,2})([A-Za-z_][\w.]*)=(.*)", re.DOTALL)
"""A setting in Hydra's form. Whether it is added (+) or changed makes no difference here."""
FORMS: Final = "Write key=value or --key value; python main.py trm train --help lists the keys."
CONFIG_FLAGS: Final = ("--config", "--config-name", "--config_name", "-cn")
"""How a file of settings is given; the last three are Hydra's."""


class Override(NamedTuple):
    """A setting of a command line. ``values`` has several texts where a flag was followed by several, none where it stood alone."""

    name: str
    values: tuple[str, ...]
    text: str


def read_overrides(arguments: Sequence[str], switches: Collection[str] = ()) -> list[Override]:
    """The settings of a command line, in order. ``switches`` are the settings that can stand alone, and be turned off by ``--no_NAME``.

    Raises UsageError for an argument in neither form.
    """
    found: list[Override] = []
    place = 0
    while place < len(arguments):
        argument = arguments[place]
        place += 1
        if argument.startswith("--") and len(argument) > 2:
            values, place = _values(arguments, place)
            found.append(_flag(argument, values, switches))
        elif match := HYDRA.fullmatch(argument):
            found.append(Override(name=match[1], values=(match[2],), text=argument))
        else:
            raise UsageError(f"{argument!r} is no setting.", FORMS)
    return found


def take_config(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """The file of settings that a command line names, and the other arguments. Raises UsageError where the flag has no value."""
    name, others = None, []
    waiting: str | None = None
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if waiting is not None:
            name, waiting = argument, None
        elif flag in CONFIG_FLAGS and equals:
            name = value
        elif flag in CONFIG_FLAGS:
            waiting = flag
        else:
            others.append(argument)
    if waiting is not None:
        raise UsageError(f"{waiting} has no value.", "Give a YAML file, such as configs/trm/arc1.yaml.")
    return name, others


def find_config(name: str, folder: Path) -> Path:
    """The file of settings of a name: a path, or a configuration of ``folder`` by its name with or without ``.yaml``.

    The fork's names are known too: ``cfg_kaggle_lora`` is ``trelis_kaggle_lora``. Raises UsageError where there is none.
    """
    ours = f"trelis_{name.removeprefix('cfg_')}" if name.startswith("cfg_") else name
    tried = [settings_file(name), folder / name, folder / f"{name}.yaml", folder / f"{ours.removesuffix('.yaml')}.yaml"]
    found = next((path for path in tried if path.is_file()), None)
    if found is None:
        known = ", ".join(sorted(path.stem for path in folder.glob("*.yaml"))) or "none here"
        raise UsageError(f"There is no file of settings {name}.", f"Give a YAML file, or one of configs/trm: {known}.")
    return found


def _values(arguments: Sequence[str], place: int) -> tuple[tuple[str, ...], int]:
    """The arguments from ``place`` on that are values of the flag before them, and where they end."""
    end = place
    while end < len(arguments) and not (arguments[end].startswith("--") or HYDRA.fullmatch(arguments[end])):
        end += 1
    return tuple(arguments[place:end]), end


def _flag(argument: str, values: tuple[str, ...], switches: Collection[str]) -> Override:
    name, equals, value = argument[2:].partition("=")
    name = name.replace("-", "_")
    given = ((value,) if equals else ()) + values
    text = " ".join((argument, *values))
    off = name.removeprefix("no_")
    if off != name and off in switches and name not in switches and not given:
        return Override(name=off, values=("false",), text=text)
    if not given and name in switches:
        return Override(name=name, values=("true",), text=text)
    return Override(name=name, values=given, text=text)
