"""The golden data of the tiny recursive model, in the folder STTRL_GOLDEN or beside the repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("STTRL_GOLDEN") or Path(__file__).resolve().parents[2].parent / "shared" / "golden") / "trm"


def golden(*parts: str) -> Path:
    """A file or folder of the golden data; the module that asks is skipped where it is absent."""
    path = FOLDER.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"no golden data at {path}", allow_module_level=True)
    return path
