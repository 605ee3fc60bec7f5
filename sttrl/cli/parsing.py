"""Parses the arguments of a command, and says in one line what is wrong with them."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro

from sttrl.config.packaged import settings_file
from sttrl.errors import UsageError

BELOW_THE_ERROR = ("Perhaps you meant:", "Got errors:", "Argument helptext:", "For full helptext,")
"""tyro prints an error in a box, with help below it. The help begins with one of these."""

T = TypeVar("T")


def program() -> str:
    """How the program was called, for its usage lines: ``sttrl`` where that is installed, or ``main.py``."""
    return "sttrl" if Path(sys.argv[0]).name == "sttrl" else "main.py"


def parse(kind: type[T], arguments: Sequence[str], command: str = "", **options: Any) -> T:
    """Parse arguments with tyro. Raises `UsageError` with tyro's error on one line."""
    said, prog = io.StringIO(), f"{program()} {command}".strip()
    try:
        with contextlib.redirect_stderr(said):
            parsed: T = tyro.cli(
                kind,
                args=list(arguments),
                prog=prog,
                use_underscores=True,
                config=(tyro.conf.AvoidSubcommands, tyro.conf.OmitArgPrefixes),
                **options,
            )
    except SystemExit as end:
        if not end.code:
            raise
        raise complaint(said.getvalue()) from None
    return parsed


def complaint(box: str) -> UsageError:
    """tyro's error box as one line: the error, then the flag that was probably meant, or how to write the flag."""
    rows = [row for line in box.splitlines() if (row := line.strip("│╭╮╰╯─ ")).strip("-")][1:]
    start = next((number for number, row in enumerate(rows) if row.startswith(BELOW_THE_ERROR)), len(rows))
    flags = [row.split(" (")[0] for row in rows[start:] if row.startswith("--")]
    meant = rows[start : start + 1] == [BELOW_THE_ERROR[0]]
    hint = f"Did you mean {' or '.join(flags)}? " if flags and meant else f"Write {flags[0]}. " if flags else ""
    return UsageError(f"{' '.join(rows[:start]).rstrip('.')}.", f"{hint}See --help.")


def config_file(arguments: Sequence[str]) -> Path | None:
    """The file that ``--config`` names. It is needed before the other flags are parsed."""
    for flag, value in zip(arguments, [*arguments[1:], None], strict=False):
        if flag == "--config" and value is not None:
            return settings_file(value)
        if flag.startswith("--config="):
            return settings_file(flag.removeprefix("--config="))
    return None
