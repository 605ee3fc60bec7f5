"""Named sets of ARC tasks from the hub. They are kept as Kaggle's files, so that tasks and solutions are read like those of any file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sttrl.arc.datasets import ARC_DATASETS, ArcDataset, find_path
from sttrl.arc.files import Fields
from sttrl.arc.flat import FlatPairs
from sttrl.arc.layouts import CHALLENGES, SOLUTIONS, Entry
from sttrl.arc.parsing import parse_entry
from sttrl.arc.tasks import fingerprint
from sttrl.data.hub import read_hub
from sttrl.data.rows import RawRow
from sttrl.errors import DataError
from sttrl.ledger.files import cache_folder, write_json

COLUMNS = ("id", "example_inputs", "example_outputs", "question_inputs", "question_outputs")
"""The columns of a data set on the hub."""


def find_or_fetch(dataset: str, data_dir: Path | None) -> Path:
    """The file or folder of a data set; a named set that is in no folder comes from the hub. Raises DataError."""
    known = ARC_DATASETS.get(dataset)
    try:
        return find_path(dataset, data_dir)
    except DataError as nowhere:
        if known is None or known.hub is None:
            raise
        return _fetched(known, f"Or: {nowhere.hint}")


def _fetched(known: ArcDataset, remedy: str) -> Path:
    """The challenges file of a data set, from the cache or the hub; its solutions are beside it.

    What the hub holds must be a release whose fingerprint is known: that pins the tasks themselves, whatever the commit is.
    """
    assert known.hub is not None
    releases = [release.fingerprint for release in known.releases if release.fingerprint is not None]
    for release in releases:
        if (kept := _file(known, release, CHALLENGES)).exists():
            return kept
    rows, commit = read_hub(known.hub, remedy)
    columns = _checked(known.hub.repo, rows, remedy)
    challenges = {str(row["id"]): _task(row) for row in columns}
    entries = [Entry(file=known.hub.repo, id=name, value=task) for name, task in sorted(challenges.items())]
    found = fingerprint([task for entry in entries for task in parse_entry(entry, FlatPairs(), need_demos=True)[0]])
    if found not in releases:
        at = f" at {commit}" if commit else ""
        raise DataError(f"{known.hub.repo} on the hub{at} has other tasks than {known.name}.", remedy)
    write_json(_file(known, found, SOLUTIONS), {str(row["id"]): row["question_outputs"] for row in columns})
    write_json(_file(known, found, CHALLENGES), challenges)
    return _file(known, found, CHALLENGES)


def _file(known: ArcDataset, release: str, ending: str) -> Path:
    return cache_folder() / "arc" / f"{known.name}-{release[:12]}{ending}.json"


def _checked(repo: str, rows: Sequence[RawRow], remedy: str) -> list[Mapping[str, Any]]:
    """The rows by column. Raises DataError if one lacks a column."""
    for raw in rows:
        if not isinstance(raw.value, Mapping) or not raw.value.keys() >= set(COLUMNS):
            raise DataError(f"{repo} on the hub, row {raw.row}: it lacks one of the columns {', '.join(COLUMNS)}.", remedy)
    return [raw.value for raw in rows if isinstance(raw.value, Mapping)]


def _task(row: Mapping[str, Any]) -> Fields:
    pairs = zip(row["example_inputs"], row["example_outputs"], strict=True)
    demos = [Fields({"input": given, "output": wanted}) for given, wanted in pairs]
    return Fields({"train": demos, "test": [Fields({"input": query}) for query in row["question_inputs"]]})
