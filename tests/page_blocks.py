"""The code blocks of the pages in docs/, as tests follow them."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"
BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
OWN_FILE = re.compile(r"# (?P<file>\w+\.\w+), in a folder of your own")
"""What the first line of a block says that is a file outside the project."""


def blocks(page: str, language: str) -> Iterator[str]:
    """The blocks of a language on a page, in order."""
    for indent, found, text in BLOCK.findall((DOCS / f"{page}.md").read_text(encoding="utf-8")):
        if found == language:
            yield textwrap.dedent(indent + text.removeprefix(indent))


def own_files(page: str) -> dict[str, str]:
    """The files of a page that are outside the project, by name."""
    found = {}
    for language in ("python", "toml"):
        for block in blocks(page, language):
            if (place := OWN_FILE.match(block)) is not None:
                found[place["file"]] = block
    return found


def commands(page: str, program: str) -> list[list[str]]:
    """The arguments of the commands of a page that call ``program``."""
    lines = [line for block in blocks(page, "bash") for line in block.splitlines()]
    return [shlex.split(line.removeprefix(f"{program} ")) for line in lines if line.startswith(f"{program} ")]
