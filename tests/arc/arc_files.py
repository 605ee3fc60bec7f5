"""Files of ARC tasks that tests write, and the folder of the real ones."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from sttrl.arc.grids import as_grid
from sttrl.arc.sources import ArcData, ArcSpec, inspect_tasks, read_tasks
from sttrl.arc.tasks import Pair

A, B, C = [[1, 2], [3, 4]], [[5]], [[6, 7, 8]]
TRAIN = [{"input": A, "output": B}, {"input": B, "output": C}]
DEMOS = (Pair(input=as_grid(A), output=as_grid(B)), Pair(input=as_grid(B), output=as_grid(C)))


def save(path: Path, value: object) -> Path:
    """Write a JSON file, or text as it is; compressed if its name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = (value if isinstance(value, str) else json.dumps(value)).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def task(*tests: Any, train: Any = None) -> dict[str, Any]:
    return {"train": TRAIN if train is None else train, "test": list(tests)}


def read(path: Path, **options: Any) -> ArcData:
    return read_tasks(ArcSpec(dataset=str(path), **options))


def fault_lines(path: Path) -> list[str]:
    return [str(fault) for fault in inspect_tasks(ArcSpec(dataset=str(path))).faults]


def data_folder() -> Path:
    """The folder of real data sets."""
    named = os.environ.get("STTRL_DATA")
    if named is None:
        pytest.skip("STTRL_DATA does not name a folder of data sets")
    folder = Path(named) / "arc" if (Path(named) / "arc").is_dir() else Path(named)
    if not (folder / "arc-agi_evaluation_challenges.json").is_file():
        pytest.skip("the folder in STTRL_DATA has no ARC data sets")
    return folder


def pairs(count: int) -> list[dict[str, Any]]:
    """Pairs that can be told apart: number n has n in its input and n + 1, of another shape, in its output."""
    return [{"input": [[number]], "output": [[number + 1, number]]} for number in range(count)]
