"""Checks before a data set is built that the disk and the memory are large enough for it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from sttrl.errors import DataError

MEMORY_FILE = Path("/proc/meminfo")
_SPARE = 0.95
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def check_room(folder: Path, *, disk_bytes: int, memory_bytes: int, remedy: str) -> None:
    """Raise DataError, with ``remedy`` as its hint, if a data set of that size does not fit on the disk, or its building in memory."""
    free = _free_disk(folder)
    if disk_bytes > free * _SPARE:
        raise DataError(f"The data set takes up to {size_text(disk_bytes)}, and {folder} has {size_text(free)} free.", remedy)
    memory = available_memory()
    if memory is not None and memory_bytes > memory * _SPARE:
        raise DataError(f"Building needs up to {size_text(memory_bytes)} of memory, and {size_text(memory)} are free.", remedy)


def available_memory() -> int | None:
    """The bytes of memory that are free or can be freed; None where the system does not say."""
    try:
        for line in MEMORY_FILE.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None


def size_text(size: float) -> str:
    """A number of bytes in words: 1.4 GiB."""
    for unit in _UNITS[:-1]:
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == _UNITS[0] else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} {_UNITS[-1]}"


def _free_disk(folder: Path) -> int:
    folder = folder.resolve()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
