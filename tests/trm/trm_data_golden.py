"""Golden data sets of TinyRecursiveModels, as files of a data set."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

FOLDER = Path(os.environ.get("STTRL_GOLDEN") or Path(__file__).resolve().parents[2].parent / "shared" / "golden") / "trm"


def found(pattern: str) -> list[Path]:
    """The paths of a pattern in the golden data; the module is skipped where there are none of this model."""
    if not FOLDER.is_dir():
        pytest.skip(f"no golden data in {FOLDER}", allow_module_level=True)
    paths = sorted(FOLDER.glob(pattern))
    if not paths:
        pytest.fail(f"nothing is {pattern} in {FOLDER}", pytrace=False)
    return paths


def unpacked(out: Path, folder: Path) -> Path:
    """The files of a golden data set as a builder writes them."""
    for split in ("train", "test"):
        (folder / split).mkdir(parents=True)
        (folder / split / "dataset.json").write_bytes((out / f"{split}__dataset.json").read_bytes())
        for field, values in np.load(out / f"{split}__all.npz").items():
            np.save(folder / split / f"all__{field}.npy", values)
    for name in ("identifiers.json", "test_puzzles.json"):
        if (out / name).is_file():
            (folder / name).write_bytes((out / name).read_bytes())
    return folder


def read(path: Path) -> Any:
    return json.loads(path.read_text())
