"""A data set for the recursive model from ARC tasks wherever they are: Kaggle's file, one task's file, a folder, or a data set's name."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from sttrl.arc.hub import find_or_fetch
from sttrl.errors import UsageError
from sttrl.ledger.files import make_folder, write_text
from sttrl.trm.data.arc import build_subsets
from sttrl.trm.data.arc_tasks import Subset, subset_of
from sttrl.trm.data.arguments import BuildArc
from sttrl.trm.opened import Say


def read_subset(data: str) -> Subset:
    """The tasks of a file, a folder or a named data set. Raises DataError for tasks that are not found or have faults."""
    return subset_of(find_or_fetch(data, None))


def content_hash(subset: Subset) -> str:
    """A sha256 of all tasks, their outputs included."""
    return hashlib.sha256(json.dumps([[task.name, task.source] for task in subset.tasks], sort_keys=True).encode()).hexdigest()


def built_tasks(subset: Subset, folder: Path, num_aug: int, say: Say) -> Path:
    """Build the data set of ARC tasks in a folder, unless it is there. Solutions are used for scores only, where there are some.

    Raises UsageError if the folder has the data set of other tasks.
    """
    marker, built = folder / "built_from.json", folder / "set"
    wanted = {"tasks": content_hash(subset), "num_aug": num_aug}
    if marker.is_file():
        if json.loads(marker.read_text(encoding="utf-8")) != wanted:
            raise UsageError(f"{folder} has the data set of other tasks, or with other variants.", "Choose another --out.")
        return built
    make_folder(folder)
    build_subsets(BuildArc(input_file_prefix="", output_dir=built, subsets=(subset.name,), num_aug=num_aug), [subset])
    say(f"{built}: {len(subset.tasks)} {'task' if len(subset.tasks) == 1 else 'tasks'} with up to {num_aug} variants each")
    write_text(marker, json.dumps(wanted) + "\n")
    return built
