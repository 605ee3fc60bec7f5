"""Golden data of the ARC systems: every case of every file of a family."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest


def folder() -> Path:
    """STTRL_GOLDEN, or ../shared/golden beside the repository."""
    chosen = os.environ.get("STTRL_GOLDEN")
    return (Path(chosen) if chosen else Path(__file__).resolve().parents[3] / "shared" / "golden") / "arc"


def cases(family: str) -> list[tuple[dict, dict]]:
    """(whole file, case) for each case; skips the module where there are no golden data, and fails where the family has no case."""
    if not folder().is_dir():
        pytest.skip(f"no golden data: {folder()} is no folder", allow_module_level=True)
    files = [json.loads(file.read_text()) for file in sorted(folder().glob("*.json")) if _belongs(file.stem, family)]
    found = [(whole, case) for whole in files for case in whole["cases"]]
    if not found:
        pytest.fail(f"{folder()} has no case of {family}", pytrace=False)
    return found


def _belongs(name: str, family: str) -> bool:
    return name == family or name.startswith((f"{family}_", f"{family}-"))
