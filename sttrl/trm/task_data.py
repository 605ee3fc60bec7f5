"""A data set for the recursive model from ARC tasks wherever they are: Kaggle's file, one task's file, a folder, or a data set's name."""

from __future__ import annotations

import json
from pathlib import Path

from sttrl.arc.hub import find_or_fetch
from sttrl.ledger.files import make_folder, write_text
from sttrl.trm.data.arc import build_subsets
from sttrl.trm.data.arc_tasks import subset_of
from sttrl.trm.data.arguments import BuildArc
from sttrl.trm.opened import Say


def built_tasks(data: str, folder: Path, num_aug: int, say: Say) -> Path:
    """Build the data set of ARC tasks in a folder, unless it is there. Solutions are used for scores only, where there are some.

    Raises DataError for tasks that are not found or have faults.
    """
    marker, built = folder / "built_from.json", folder / "set"
    wanted = {"data": data, "num_aug": num_aug}
    if marker.is_file() and json.loads(marker.read_text(encoding="utf-8")) == wanted:
        return built
    make_folder(folder)
    subset = subset_of(find_or_fetch(data, None))
    build_subsets(BuildArc(input_file_prefix="", output_dir=built, subsets=(subset.name,), num_aug=num_aug), [subset])
    say(f"{built}: {len(subset.tasks)} {'task' if len(subset.tasks) == 1 else 'tasks'} with up to {num_aug} variants each")
    write_text(marker, json.dumps(wanted) + "\n")
    return built
