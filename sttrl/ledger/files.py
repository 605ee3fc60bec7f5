"""Files that are never torn: written beside, synced, renamed. What cannot be written is one line with the remedy."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sttrl.errors import JournalError

LINE_ENDS = {"\x85": "\\u0085", "\u2028": "\\u2028", "\u2029": "\\u2029"}
"""Characters that Python and other programs take for the end of a line and JSON does not, each with its escape in JSON."""


def write_text(path: Path, text: str) -> None:
    """Replace a text file at once. Raises `JournalError`."""
    write_bytes(path, text.encode("utf-8", errors="backslashreplace"))


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file at once: a reader sees the old content or the new, never a part. Raises `JournalError`."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        make_folder(path.parent)
        try:
            # Not tempfile: its files are readable by their owner alone, whatever the umask says.
            handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        sync(path.parent)
    except OSError as error:
        raise unwritable(path, error) from error


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace a JSON file at once."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def json_line(value: Mapping[str, Any], allow_nan: bool = True) -> str:
    """A value as one line of JSON, which is one line for every program that reads it."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, allow_nan=allow_nan)
    for character, escape in LINE_ENDS.items():
        text = text.replace(character, escape)
    return text + "\n"


def whole_lines(data: bytes) -> list[bytes]:
    """The lines of a file of JSON lines that end in a line feed, without it; no other character ends a line."""
    return data.split(b"\n")[:-1]


def make_folder(folder: Path) -> None:
    """Make a folder and those above it that are missing, durably."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync(folder.parent)


def sync(path: Path) -> None:
    """Make a file's content, or the names in a folder, durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def settle_folder(beside: Path, folder: Path) -> None:
    """Put a folder that was written beside in its place, durably: its files, its names, and then its own name.

    Files get the permissions that the umask allows: safetensors makes its own readable by their owner alone.
    """
    allowed = beside.stat().st_mode & 0o666
    for place, _, names in os.walk(beside):
        for name in names:
            os.chmod(os.path.join(place, name), allowed)
            sync(Path(place, name))
        sync(Path(place))
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(beside, folder)
    sync(folder.parent)


def unwritable(path: Path, error: OSError) -> JournalError:
    """What to tell a user whose disk is full, read-only or broken."""
    return JournalError(
        f"Cannot write {path}: {error.strerror or error}.", "Make room or choose another --output_dir; what is finished is kept."
    )
