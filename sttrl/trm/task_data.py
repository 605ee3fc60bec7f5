"""A data set for the recursive model from ARC tasks wherever they are: Kaggle's file, one task's file, a folder, or a data set's name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from sttrl.arc.sources import ArcSpec, read_tasks
from sttrl.arc.tasks import Task
from sttrl.ledger.files import make_folder, write_text
from sttrl.trm.data.arguments import BuildArc
from sttrl.trm.data.commands import build
from sttrl.trm.opened import Say

CHALLENGES: Final = "_challenges.json"
SUBSET: Final = "tasks"


def built_tasks(data: str, folder: Path, num_aug: int, say: Say) -> Path:
    """Build the data set of ARC tasks in a folder, unless it is there. Solutions are used for scores only, where a file has them.

    Raises DataError for tasks that are not found or have faults.
    """
    marker = folder / "built_from.json"
    wanted = {"data": data, "num_aug": num_aug}
    if marker.is_file() and json.loads(marker.read_text(encoding="utf-8")) == wanted:
        return folder / "set"
    make_folder(folder)
    prefix, subset = source_of(data, folder)
    wish = BuildArc(input_file_prefix=prefix, output_dir=folder / "set", subsets=(subset,), test_set_name=subset, num_aug=num_aug)
    text = build(wish)
    say(text)
    write_text(marker, json.dumps(wanted) + "\n")
    return folder / "set"


def source_of(data: str, folder: Path) -> tuple[str, str]:
    """The prefix and the subset that name a challenges file; one is written of tasks that are in another form."""
    if data.endswith(CHALLENGES) and Path(data).is_file():
        stem = data.removesuffix(CHALLENGES)
        prefix, _, subset = stem.rpartition("_")
        if prefix:
            return prefix, subset
    found = read_tasks(ArcSpec(dataset=data))
    write_text(folder / f"arc_{SUBSET}{CHALLENGES}", json.dumps({task.id: as_json(task) for task in found.tasks}))
    return str(folder / "arc"), SUBSET


def as_json(task: Task) -> dict[str, Any]:
    """A task as Kaggle's files hold it."""
    return {
        "train": [{"input": pair.input, "output": pair.output} for pair in task.demos],
        "test": [{"input": grid} for grid in task.tests],
    }
