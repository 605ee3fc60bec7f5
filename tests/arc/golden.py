"""The golden data: inputs and outputs of published systems, in the folder STTRL_GOLDEN or beside the repository."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(os.environ.get("STTRL_GOLDEN") or Path(__file__).resolve().parents[2].parent / "shared" / "golden")


def cases(family: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(whole file, case) for every case of every file of a family; the module is skipped where there are no golden data."""
    if not FOLDER.is_dir():
        pytest.skip(f"no golden data in {FOLDER}", allow_module_level=True)
    files = sorted(path for path in FOLDER.rglob("*.json") if path.stem == family or path.stem.startswith((f"{family}_", f"{family}-")))
    found = [(file, case) for path in files for file in [json.loads(path.read_text())] for case in file.get("cases", [])]
    if not found:
        pytest.fail(f"no case of the family {family} in {FOLDER}", pytrace=False)
    return found
