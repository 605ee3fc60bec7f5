"""The settings of a run by their flat names, as the command line and files have them: their types, their values as JSON, others' code."""

from __future__ import annotations

import functools
import typing
from pathlib import Path
from typing import Any

from sttrl.config.arc import CODEC, SELECTION
from sttrl.config.data import DATA_SET
from sttrl.config.extensions import Choice, code_of
from sttrl.config.method import METHOD
from sttrl.config.reinforcement import ESTIMATOR, REWARD
from sttrl.config.rules import Group
from sttrl.config.run_config import GROUP_OF, RunConfig
from sttrl.config.vote import VOTE

CHOICES: tuple[Choice, ...] = (DATA_SET, METHOD, VOTE, REWARD, ESTIMATOR, CODEC, SELECTION)
"""The settings that may name code of others."""


@functools.cache
def type_of(name: str) -> Any:
    """The type of a setting, by its flat name."""
    group = getattr(RunConfig, GROUP_OF[name]) if GROUP_OF[name] else RunConfig
    return typing.get_type_hints(type(group) if isinstance(group, Group) else group)[name]


def codes(config: RunConfig) -> dict[str, str]:
    """The code of others that a run depends on, as `code_of` has it, by the settings that name it."""
    found = {choice.setting: code_of(choice, config.setting(choice.setting)) for choice in CHOICES}
    return {name: code for name, code in found.items() if code is not None}


def to_plain(config: RunConfig) -> dict[str, Any]:
    """The configuration as JSON values, flat."""
    values = {name: config.setting(name) for name in GROUP_OF}
    return {
        name: str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
    }
