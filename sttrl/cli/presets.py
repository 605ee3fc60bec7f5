"""The command ``presets``: the published methods that ``--preset`` knows, with their settings and sources."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sttrl.cli.parsing import parse
from sttrl.config import PRESETS, Preset

WIDTH = 120
TOGETHER = "\0"
"""Stands for a blank at which no line is broken, between a flag and its value."""


@dataclass(frozen=True, kw_only=True)
class PresetsArguments:
    """List the published methods that --preset knows: what each is, its source and its settings."""


def presets_command(arguments: Sequence[str]) -> None:
    """``presets``"""
    parse(PresetsArguments, arguments[1:], command="presets")
    print("\n\n".join("\n".join(lines_of(name, preset)) for name, preset in PRESETS.items()))


def lines_of(name: str, preset: Preset) -> Iterator[str]:
    """What a preset is, where it is from, and the flags that it stands for."""
    yield f"{name}: {preset.what}"
    yield from _indented(f"source: {preset.source}")
    words = {setting: value if isinstance(value, tuple) else (value,) for setting, value in preset.settings.items()}
    flags = [shlex.join((f"--{setting}", *map(str, values))) for setting, values in words.items()]
    yield from (line.replace(TOGETHER, " ") for line in _indented(" ".join(flag.replace(" ", TOGETHER) for flag in flags)))


def _indented(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
