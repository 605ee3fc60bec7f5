"""Finds a data set and reads it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sttrl.config.data import DATA_SET
from sttrl.config.extensions import run_by
from sttrl.data.columns import find_columns
from sttrl.data.files import read_file
from sttrl.data.hub import parse_hub_source, read_hub
from sttrl.data.layouts import flattened
from sttrl.data.registry import DATASETS, SUFFIXES, HubSource, NamedDataset, custom_dataset, own_dataset, unknown_dataset
from sttrl.data.rows import RawRow, parse_rows
from sttrl.data.table import OnBadRow, Row, Table
from sttrl.errors import DataError, UsageError
from sttrl.types import AnswerKind

DATA_VARIABLE = "STTRL_DATA"
"""Environment variable that names the folder to search after --data_dir."""


@dataclass(frozen=True, kw_only=True)
class SourceSpec:
    """What to read. ``dataset``: a name, a file or ``hf:org/name[@revision][:config][:split]``. The other fields are flags.

    ``revision``: the commit on the hub that a run began with; it replaces the one in the name.
    """

    dataset: str
    data_dir: Path | None = None
    question_column: tuple[str, ...] = ()
    answer_column: str | None = None
    id_column: str | None = None
    answer_kind: AnswerKind | None = None
    on_bad_row: OnBadRow = "stop"
    revision: str | None = None


@dataclass(frozen=True, kw_only=True)
class _Found:
    dataset: NamedDataset
    source: str
    rows: list[RawRow]
    revision: str | None = None


def read_table(source: SourceSpec) -> Table:
    """Find a data set and read it.

    Raises DataError if it is not found or cannot be read, DataRowError for a bad row unless bad rows are skipped, and
    UsageError for a named column that does not exist.
    """
    found = _find(source)
    file = _short(found.source)
    if not found.rows:
        raise DataError(f"{found.source} holds no rows.", "Give a file with at least one question.")
    raw_rows = [replace(raw, value=flattened(raw.value)) if isinstance(raw.value, dict) else raw for raw in found.rows]
    columns = find_columns(
        [raw.value for raw in raw_rows],
        file=file,
        question_column=source.question_column,
        answer_column=source.answer_column,
        id_column=source.id_column,
    )
    rows, skipped = parse_rows(raw_rows, columns, file=file, name=found.dataset.name, on_bad_row=source.on_bad_row)
    if not rows:
        first = skipped[0]
        reason = f"the first, row {first.row}, because field {first.field!r} {first.reason}"
        raise DataError(f"All {len(skipped)} rows of {found.source} are bad: {reason}.", "Is this the right file and column?")
    dataset = _kind(found.dataset, source.answer_kind, rows)
    return Table(dataset=dataset, source=found.source, columns=columns, rows=rows, skipped=skipped, revision=found.revision)


def _kind(dataset: NamedDataset, asked: AnswerKind | None, rows: Sequence[Row]) -> NamedDataset:
    """The data set with the kind of answers that the user chose. Otherwise an unnamed data set has choices if most rows have options."""
    if asked is not None:
        return replace(dataset, kind=asked)
    if not dataset.own and dataset.name not in DATASETS and 2 * sum(row.options is not None for row in rows) > len(rows):
        return custom_dataset(dataset.name, "choice")
    return dataset


def _find(source: SourceSpec) -> _Found:
    name = source.dataset
    if name in DATASETS:
        return _find_named(DATASETS[name], source.data_dir, source.revision)
    if (own := own_dataset(name)) is not None:
        try:
            with run_by(DATA_SET, name, "make its rows"):
                return _find_named(own, source.data_dir, source.revision)
        except UsageError as error:
            raise DataError(error.message, error.hint) from error
    if name.startswith("hf:"):
        return _find_on_hub(_at(parse_hub_source(name), source.revision), source.answer_kind)
    path = Path(name).expanduser()
    if path.name.lower().endswith(SUFFIXES) and path.is_file():
        stem = _stem(path)
        return _Found(dataset=DATASETS.get(stem) or custom_dataset(stem, source.answer_kind), source=str(path), rows=read_file(path))
    if path.is_file():
        raise DataError(f"{name} is no kind of file that can be read.", f"Its name should end in {', '.join(SUFFIXES)}.")
    raise unknown_dataset(name)


def _find_named(dataset: NamedDataset, data_dir: Path | None, revision: str | None) -> _Found:
    if dataset.generate is not None:
        rows = [RawRow(row=number, value=row) for number, row in enumerate(dataset.generate(), start=1)]
        return _Found(dataset=dataset, source="generated", rows=rows)
    folders = data_folders(data_dir)
    for folder in folders:
        for path in (folder / file_name for file_name in dataset.file_names):
            if path.is_file():
                return _Found(dataset=dataset, source=str(path), rows=read_file(path))
    looked = f"It is not in {' or '.join(map(str, folders))} either. " if folders else ""
    remedy = f"{looked}Put {dataset.file_names[0]} into a folder and give it with --data_dir or {DATA_VARIABLE}."
    if dataset.hub is None:
        raise DataError(f"{dataset.name} is on no hub, and in no folder that was named.", remedy)
    hub = _at(dataset.hub, revision)
    rows, commit = read_hub(hub, remedy)
    return _Found(dataset=dataset, source=_hub_name(hub), rows=rows, revision=commit)


def _at(hub: HubSource, revision: str | None) -> HubSource:
    return replace(hub, revision=revision or hub.revision)


def data_folders(data_dir: Path | None) -> list[Path]:
    """The folders in which named data sets are looked for, in this order. Raises DataError if one of them is not a folder."""
    variable = os.environ.get(DATA_VARIABLE)
    named = [("--data_dir", data_dir), (DATA_VARIABLE, Path(variable) if variable else None)]
    folders = [(label, folder.expanduser()) for label, folder in named if folder is not None]
    for label, folder in folders:
        if not folder.is_dir():
            raise DataError(f"{label} {folder} is not a folder.", "Correct it, or leave it out to use the hub.")
    return [folder for _, folder in folders]


def _find_on_hub(hub: HubSource, kind: AnswerKind | None) -> _Found:
    known = next((entry for entry in DATASETS.values() if entry.hub is not None and entry.hub.repo == hub.repo), None)
    dataset = replace(known, rows=None) if known is not None else custom_dataset(hub.repo.split("/")[1], kind)
    convert = known.hub.convert if known is not None and known.hub is not None else None
    rows, commit = read_hub(replace(hub, convert=convert), "Save its rows as a .jsonl file and give that to --dataset.")
    return _Found(dataset=dataset, source=_hub_name(hub), rows=rows, revision=commit)


def _hub_name(hub: HubSource) -> str:
    revision = f"@{hub.revision}" if hub.revision else ""
    parts = [part for part in (hub.config, hub.split) if part]
    return ":".join([f"hf:{hub.repo}{revision}", *parts])


def _stem(path: Path) -> str:
    suffix = max((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), key=len)
    return path.name[: -len(suffix)] or "data"


def _short(source: str) -> str:
    return source if source.startswith("hf:") else Path(source).name
