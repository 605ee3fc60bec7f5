"""The formats that files are written in. To add one, write a function and add a line to `FORMATS`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from sttrl.export.inspect_log import write_inspect
from sttrl.export.tables import write_csv, write_parquet
from sttrl.library.loaded_run import LoadedRun

Write = Callable[[LoadedRun, Path], tuple[Path, ...]]
"""(run, folder) -> the files that were written."""

FORMATS: Final[dict[str, Write]] = {
    "inspect": write_inspect,
    "csv": write_csv,
    "parquet": write_parquet,
}
"""The functions by the name of the format. The hub is no format: `sttrl.export.hub`."""
