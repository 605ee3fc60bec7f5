"""Files of an export: written under a temporary name and then renamed, so that each is complete or as it was before."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sttrl.errors import UsageError, error_text
from sttrl.ledger.files import make_folder


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A context whose value is a temporary path; at its end the file there becomes ``path``. Raises `UsageError` if that is impossible."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        make_folder(path.parent)
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(f"Cannot write {path}: {error.strerror or error_text(error)}.", "Make room, or give another --out.") from error
