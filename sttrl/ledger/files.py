"""Atomic writes: a file is written under a temporary name, synced and renamed. An error of the disk becomes a `JournalError`."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sttrl.errors import JournalError, write_fault

LINE_ENDS = {"\x85": "\\u0085", "\u2028": "\\u2028", "\u2029": "\\u2029"}
"""Characters at which some programs end a line although JSON does not; each with its JSON escape."""


def write_text(path: Path, text: str) -> None:
    """Replace a text file atomically. Raises `JournalError`."""
    write_bytes(path, text.encode("utf-8", errors="backslashreplace"))


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file atomically: a reader sees the old content or the new content, never a mixture. Raises `JournalError`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        make_folder(path.parent)
        try:
            # Not tempfile: only the owner could read its files, whatever the umask is.
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync(path.parent)
    except OSError as error:
        raise unwritable(path, error) from error


def replace_file(path: Path, write: Callable[[Path], None]) -> None:
    """Replace a file atomically by one that ``write`` writes under a temporary name. Raises `JournalError` where the disk refuses it.

    Whoever may read the folder may read the file, whatever permissions ``write`` gave it.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        make_folder(path.parent)
        try:
            write(temporary)
            os.chmod(temporary, path.parent.stat().st_mode & 0o666)  # safetensors writes for the owner only
            sync(temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sync(path.parent)
    except Exception as error:
        if (fault := write_fault(error)) is None:
            raise
        raise unwritable(path, fault) from error


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace a JSON file atomically."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def json_line(value: Mapping[str, Any], allow_nan: bool = True) -> str:
    """A value as one line of JSON. Characters that another program could take for the end of a line are escaped."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, allow_nan=allow_nan)
    for character, escape in LINE_ENDS.items():
        text = text.replace(character, escape)
    return text + "\n"


def whole_lines(data: bytes) -> list[bytes]:
    """The complete lines of a JSON-lines file, without their line feeds. An incomplete last line is left out."""
    return data.split(b"\n")[:-1]


def make_folder(folder: Path) -> None:
    """Make a folder and its missing parents, and sync them to disk."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync(folder.parent)


def sync(path: Path) -> None:
    """Sync a file's content, or the list of names in a folder, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def settle_folder(temporary: Path, folder: Path) -> None:
    """Sync a folder that was written under a temporary path, and move it to ``folder``. An older folder there is deleted after that.

    A kill in between leaves the older folder under another name; `recover_folder` brings it back. Files get the permissions that the
    umask allows: those that safetensors writes are readable by their owner only.
    """
    allowed = temporary.stat().st_mode & 0o666
    for place, _, names in os.walk(temporary):
        for name in names:
            os.chmod(os.path.join(place, name), allowed)
            sync(Path(place, name))
        sync(Path(place))
    recover_folder(folder)
    older = _older(folder)
    if folder.is_dir():
        os.replace(folder, older)
    os.replace(temporary, folder)
    sync(folder.parent)
    shutil.rmtree(older, ignore_errors=True)


def recover_folder(folder: Path) -> None:
    """After a kill while ``folder`` was replaced: what was there before, if the new one is not there yet."""
    older = _older(folder)
    if folder.exists():
        shutil.rmtree(older, ignore_errors=True)
    elif older.is_dir():
        os.replace(older, folder)


def _older(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.older")


def unwritable(path: Path, error: OSError) -> JournalError:
    """The error for a disk that is full, read-only or broken."""
    return JournalError(
        f"Cannot write {path}: {error.strerror or error}.", "Make room or choose another --output_dir; what is finished is kept."
    )


def cache_folder() -> Path:
    """Where converted models and what came from the hub are kept: STTRL_CACHE, or the user's cache folder."""
    return Path(os.environ.get("STTRL_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sttrl")
