"""The files of a data set: those of TinyRecursiveModels, so that a data set built by either is read by the other.

``{split}/dataset.json`` and, for each set, ``{split}/{set}__{field}.npy``; ``identifiers.json`` names the rows of the puzzle table;
``test_puzzles.json`` holds the tasks of the test split, for votes. A group is a puzzle of the source; its puzzles are variants of it; each
puzzle has one or more examples.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sttrl.errors import DataError, error_text
from sttrl.ledger.files import make_folder, settle_folder, unwritable

Array = npt.NDArray[Any]

BLANK = "<blank>"
"""The name of a row of the puzzle table that belongs to no puzzle."""
SEPARATOR = "|||"
"""Stands between the parts of an identifier, the task, its symmetry and its colours: ``task|||t4|||0614732958``."""
METADATA_FILE, IDENTIFIERS_FILE, TEST_PUZZLES_FILE = "dataset.json", "identifiers.json", "test_puzzles.json"
REBUILD = "Build the data set again, or name a folder that a build has written."


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What ``dataset.json`` says of a split. ``others``: keys that only some programs write; they are kept.

    ``ignore_label_id``: labels with this token are not scored (None: all are). ``mean_puzzle_examples``: examples a puzzle, on average.
    """

    pad_id: int
    ignore_label_id: int | None
    blank_identifier_id: int
    vocab_size: int
    seq_len: int
    num_puzzle_identifiers: int
    total_groups: int
    mean_puzzle_examples: float
    total_puzzles: int
    sets: tuple[str, ...]
    others: Mapping[str, object] = field(default_factory=dict)

    @staticmethod
    def read(file: Path) -> Metadata:
        """The metadata of a ``dataset.json``. Raises DataError for a file that is not one."""
        values = _read_json(file)
        if not isinstance(values, dict):
            raise DataError(f"{file} is not a JSON object.", REBUILD)
        known: dict[str, Any] = {}
        for key in _KEYS:
            if key not in values:
                raise DataError(f"{file} has no {key!r}.", REBUILD)
            known[key] = _checked(file, key, values[key])
        return Metadata(**known, others={key: value for key, value in values.items() if key not in known})

    def as_json(self) -> dict[str, object]:
        """The keys and values of ``dataset.json``, in the original's order."""
        known: dict[str, object] = {key: getattr(self, key) for key in _KEYS}
        return known | {"sets": list(self.sets)} | dict(self.others)


_KEYS = tuple(each.name for each in fields(Metadata) if each.name != "others")


@dataclass(frozen=True, kw_only=True)
class Split:
    """The arrays of one set of a split.

    ``inputs``, ``labels``: tokens (examples, cells), memory-mapped where they are read from files. ``puzzle_identifiers``: the row of the
    puzzle table (puzzles,). ``puzzle_indices``: the first example of each puzzle, then the number of examples (puzzles + 1,).
    ``group_indices``: the first puzzle of each group, then the number of puzzles (groups + 1,).
    """

    inputs: Array
    labels: Array
    puzzle_identifiers: Array
    puzzle_indices: Array
    group_indices: Array


FIELDS = tuple(each.name for each in fields(Split))


def read_split(folder: Path, split: str) -> tuple[Metadata, dict[str, Split]]:
    """The metadata and the sets of a split. Raises DataError if files are missing or do not fit together."""
    inner = Path(folder) / split
    if not (inner / METADATA_FILE).is_file():
        there = [name for name in ("train", "test") if (Path(folder) / name / METADATA_FILE).is_file()]
        hint = f"It has the split {' and '.join(there)}." if there else REBUILD
        raise DataError(f"{folder} has no {split} split: there is no {inner / METADATA_FILE}.", hint)
    metadata = Metadata.read(inner / METADATA_FILE)
    return metadata, {name: _read_set(inner, name, metadata) for name in metadata.sets}


def has_split(folder: Path, split: str) -> bool:
    """Whether a data set has a split."""
    return (folder / split / METADATA_FILE).is_file()


def read_identifiers(folder: Path) -> list[str]:
    """The names of the rows of the puzzle table, in the table's order. Raises DataError."""
    file = Path(folder) / IDENTIFIERS_FILE
    names = _read_json(file)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{file} is not a list of names.", REBUILD)
    seen: set[str] = set()
    for name in names:
        if name in seen and name != BLANK:
            raise DataError(f"{file} has the name {name!r} twice.", REBUILD)
        seen.add(name)
    return names


def read_test_puzzles(folder: Path) -> dict[str, Any]:
    """The tasks of the test split, with their solutions where they are known. Raises DataError."""
    file = Path(folder) / TEST_PUZZLES_FILE
    puzzles = _read_json(file)
    if not isinstance(puzzles, dict):
        raise DataError(f"{file} is not a JSON object of tasks.", REBUILD)
    return puzzles


def write_dataset(
    folder: Path,
    splits: Mapping[str, tuple[Metadata, Mapping[str, Split]]],
    identifiers: Sequence[str],
    test_puzzles: Mapping[str, Any] | None = None,
) -> None:
    """Write a whole data set; it appears at once, or not at all. See `new_dataset` for what it may replace."""
    with new_dataset(folder) as temporary:
        for name, (metadata, sets) in splits.items():
            make_folder(temporary / name)
            for set_name, arrays in sets.items():
                for each in FIELDS:
                    np.save(array_file(temporary / name, set_name, each), getattr(arrays, each), allow_pickle=False)
            save_metadata(temporary / name, metadata)
        save_names(temporary, identifiers, test_puzzles)


@contextmanager
def new_dataset(folder: Path) -> Iterator[Path]:
    """A temporary folder that becomes ``folder`` at the end of the block; an error leaves nothing behind.

    An older data set at ``folder`` is replaced. Raises DataError if ``folder`` holds anything else, JournalError if it cannot be written.
    """
    folder = Path(folder).resolve()
    check_replaceable(folder)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        make_folder(folder.parent)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            yield temporary
            settle_folder(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise unwritable(folder, error) from error


def check_replaceable(folder: Path) -> None:
    """Raise DataError if ``folder`` is a file, or holds files that no build has written."""
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file.", "Choose another --output-dir.")
    if not folder.is_dir():
        return
    strange = next((path for path in sorted(folder.iterdir()) if not _is_built(path)), None)
    if strange is not None:
        raise DataError(f"{folder} holds {strange.name}, which is no part of a data set.", "Choose another --output-dir, or empty it.")


def _is_built(path: Path) -> bool:
    if path.is_dir():
        return all(inner.name == METADATA_FILE or inner.name.endswith(".npy") for inner in path.iterdir())
    return path.name in (IDENTIFIERS_FILE, TEST_PUZZLES_FILE)


def array_file(folder: Path, set_name: str, name: str) -> Path:
    """The file of an array of a set, in the folder of its split."""
    return folder / f"{set_name}__{name}.npy"


def open_set(folder: Path, name: str, *, examples: int, cells: int, dtype: npt.DTypeLike) -> tuple[Array, Array]:
    """New files for the inputs and labels of a set, as arrays to fill. Their room on the disk is reserved: raises OSError if it is full."""
    arrays: list[Array] = []
    for each in ("inputs", "labels"):
        file = array_file(folder, name, each)
        arrays.append(np.lib.format.open_memmap(file, mode="w+", dtype=np.dtype(dtype), shape=(examples, cells)))  # type: ignore[no-untyped-call]
        with file.open("r+b") as opened:
            os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)
    return arrays[0], arrays[1]


def save_indices(
    folder: Path, name: str, *, puzzle_identifiers: Sequence[int], puzzle_sizes: Sequence[int] | Array, group_sizes: Sequence[int] | Array
) -> None:
    """Write the other arrays of a set. ``puzzle_sizes``: examples of each puzzle; ``group_sizes``: puzzles of each group."""
    arrays = {
        "puzzle_identifiers": puzzle_identifiers,
        "puzzle_indices": np.concatenate([[0], np.cumsum(puzzle_sizes)]),
        "group_indices": np.concatenate([[0], np.cumsum(group_sizes)]),
    }
    for each, values in arrays.items():
        np.save(array_file(folder, name, each), np.asarray(values, dtype=np.int32), allow_pickle=False)


def save_metadata(folder: Path, metadata: Metadata) -> None:
    """Write the ``dataset.json`` of a split."""
    (folder / METADATA_FILE).write_text(json.dumps(metadata.as_json()))


def save_names(folder: Path, identifiers: Sequence[str], test_puzzles: Mapping[str, Any] | None) -> None:
    """Write ``identifiers.json``, and ``test_puzzles.json`` if the data set has tasks."""
    (folder / IDENTIFIERS_FILE).write_text(json.dumps(list(identifiers)))
    if test_puzzles is not None:
        (folder / TEST_PUZZLES_FILE).write_text(json.dumps(dict(test_puzzles)))


def _read_json(file: Path) -> object:
    try:
        return json.loads(file.read_bytes())
    except FileNotFoundError as error:
        raise DataError(f"There is no file {file}.", REBUILD) from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file} cannot be read: {error_text(error)}.", REBUILD) from error


def _checked(file: Path, key: str, value: object) -> object:
    """A value of ``dataset.json``, or DataError where its type or range is wrong."""
    if key == "sets":
        if isinstance(value, list) and value and all(isinstance(name, str) and name == Path(name).name for name in value):
            return tuple(value)
        raise DataError(f"{file}: 'sets' is {value!r} and should be a list of names.", REBUILD)
    if key == "ignore_label_id" and value is None:
        return None
    kinds = (int, float) if key == "mean_puzzle_examples" else (int,)
    if isinstance(value, bool) or not isinstance(value, kinds) or value < 0 or (value == 0 and key in ("vocab_size", "seq_len")):
        raise DataError(f"{file}: {key!r} is {value!r} and should be a positive number.", REBUILD)
    return float(value) if key == "mean_puzzle_examples" else value


def _read_set(folder: Path, name: str, metadata: Metadata) -> Split:
    arrays = {each: _read_array(array_file(folder, name, each), mapped=each in ("inputs", "labels")) for each in FIELDS}
    split = Split(**arrays)
    problem = _problem(split, metadata)
    if problem is not None:
        raise DataError(f"{folder / name}__*.npy: {problem}.", REBUILD)
    return split


def _read_array(file: Path, *, mapped: bool) -> Array:
    try:
        array: Array = np.load(file, mmap_mode="r" if mapped else None, allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError(f"There is no file {file}.", REBUILD) from error
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{file} cannot be read as an array of numbers: {error_text(error)}.", REBUILD) from error
    if array.dtype.kind not in "iu":
        raise DataError(f"{file} holds {array.dtype} and should hold whole numbers.", REBUILD)
    return array


def _problem(split: Split, metadata: Metadata) -> str | None:
    """How the arrays of a set contradict each other or the metadata; None if they fit."""
    examples = len(split.inputs)
    if not examples:
        return "it has no examples"
    if split.inputs.shape != (examples, metadata.seq_len) or split.labels.shape != split.inputs.shape:
        shapes = f"{split.inputs.shape} and {split.labels.shape}"
        return f"inputs and labels have the shapes {shapes}, and seq_len is {metadata.seq_len}"
    for name, indices, end in (
        ("puzzle_indices", split.puzzle_indices, examples),
        ("group_indices", split.group_indices, len(split.puzzle_identifiers)),
    ):
        if indices.ndim != 1 or len(indices) < 2 or indices[0] != 0 or indices[-1] != end or (np.diff(indices) < 0).any():
            return f"{name} should rise from 0 to {end}"
    if len(split.puzzle_indices) != len(split.puzzle_identifiers) + 1:
        return f"there are {len(split.puzzle_identifiers)} puzzle_identifiers and {len(split.puzzle_indices) - 1} puzzles"
    least, most = int(split.puzzle_identifiers.min()), int(split.puzzle_identifiers.max())
    if least < 0 or most >= metadata.num_puzzle_identifiers:
        number = most if least >= 0 else least
        return f"puzzle_identifiers has {number}, and num_puzzle_identifiers is {metadata.num_puzzle_identifiers}"
    if (np.diff(split.group_indices) == 0).any():
        return "group_indices has a group without puzzles"
    return None
