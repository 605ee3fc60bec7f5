"""One split of one or several data sets, with their puzzles brought to the rows of one puzzle table.

The original adds up the sizes of the tables of several data sets and leaves the identifiers as they are, so that puzzles of different data
sets share a row. Here the rows are aligned by name: the same name is the same row, another name is another row.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sttrl.arc.files import shown_id
from sttrl.errors import DataError, UsageError
from sttrl.trm.data.format import BLANK, SEPARATOR, Array, Metadata, Split, read_identifiers, read_split

_SHARED = ("pad_id", "ignore_label_id", "blank_identifier_id", "vocab_size", "seq_len")
_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class Source:
    """One set of one data set. ``rows_of_table``: the row of the puzzle table of each puzzle; ``groups``: the groups that are used."""

    place: str
    arrays: Split
    groups: Array
    rows_of_table: npt.NDArray[np.int32]
    vocab_size: int

    def test_rows(self, max_augmentations: int | None, max_examples: int | None) -> Array:
        """The examples of an evaluation, in order: of each group its first ``1 + max_augmentations`` puzzles, and their first examples."""
        puzzles = _members(self.arrays.group_indices, self.groups, None if max_augmentations is None else max_augmentations + 1)
        return _members(self.arrays.puzzle_indices, puzzles, max_examples)

    def rows_by_group(self) -> list[npt.NDArray[np.int32]]:
        """The rows of the puzzle table of each group that is used."""
        first = self.arrays.group_indices
        return [self.rows_of_table[first[group] : first[group + 1]] for group in self.groups]

    def tokens(self, rows: Array) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Inputs and labels of some examples. Raises DataError for a token outside the vocabulary."""
        found = self.arrays.inputs[rows].astype(np.int32), self.arrays.labels[rows].astype(np.int32)
        for name, values in zip(("inputs", "labels"), found, strict=True):
            if values.size and (values.min() < 0 or values.max() >= self.vocab_size):
                row = int(rows[np.flatnonzero(((values < 0) | (values >= self.vocab_size)).any(axis=1))[0]])
                raise DataError(
                    f"{self.place}: {name}, row {row} (from 0) has a token outside 0 to {self.vocab_size - 1}.",
                    "Correct vocab_size in dataset.json, or build the data set again.",
                )
        return found


def _members(indices: Array, chosen: Array, most: int | None) -> Array:
    """The numbers of the members of the chosen groups, in order, and no more than ``most`` of each. ``indices``: where each begins."""
    first = indices.astype(np.int64)
    sizes = np.diff(first)[chosen]
    if most is not None:
        sizes = np.minimum(sizes, most)
    number_in_group = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    members: Array = np.repeat(first[chosen], sizes) + number_in_group
    return members


@dataclass(frozen=True, kw_only=True)
class Tasks:
    """Which tasks are used. ``only``: these (None: all); ``without``: none of these."""

    only: Collection[str] | None = None
    without: Collection[str] = ()

    @property
    def is_all(self) -> bool:
        """Whether every task is used."""
        return self.only is None and not self.without

    def groups(self, arrays: Split, names: Sequence[str]) -> tuple[Array, set[str]]:
        """The groups that are used, and the names of their tasks. ``names``: the identifiers of the data set."""
        first = arrays.puzzle_identifiers[arrays.group_indices[:-1]]
        tasks = [names[number].partition(SEPARATOR)[0] for number in first]
        used = [name not in self.without and (self.only is None or name in self.only) for name in tasks]
        return np.flatnonzero(used), {name for name, is_used in zip(tasks, used, strict=True) if is_used}


@dataclass(frozen=True, kw_only=True)
class Sources:
    """The sets of all data sets under names of their own, and their metadata as one."""

    metadata: Metadata
    sets: dict[str, Source]


def read_sources(folders: Sequence[Path], split: str, identifiers: Sequence[str] | None, tasks: Tasks) -> Sources:
    """Read one split of several data sets. ``identifiers``: the rows of a table that exists; None: those of the data sets.

    Sets of the second and later data sets get its number: all, all1, all2. Raises DataError for data sets that do not fit together, and
    for tasks that are in none of them.
    """
    if not folders:
        raise UsageError("No data set is named.", "Name one with --data_paths.")
    read = [(Path(folder), *read_split(folder, split)) for folder in folders]
    for folder, metadata, _ in read[1:]:
        _check_alike(read[0][0], read[0][1], folder, metadata)
    rows, size = _rows_of_tables([(folder, metadata) for folder, metadata, _ in read], identifiers)
    sets: dict[str, Source] = {}
    found: set[str] = set()
    for number, (folder, metadata, arrays_of_sets) in enumerate(read):
        for name, arrays in arrays_of_sets.items():
            groups, used = (
                (np.arange(len(arrays.group_indices) - 1), set()) if tasks.is_all else tasks.groups(arrays, read_identifiers(folder))
            )
            found |= used
            sets[name + (str(number) if number else "")] = Source(
                place=str(folder / split),
                arrays=arrays,
                groups=groups,
                rows_of_table=rows[number][arrays.puzzle_identifiers],
                vocab_size=metadata.vocab_size,
            )
        if any((source.rows_of_table < 0).any() for source in sets.values()):
            raise _unknown(folder, rows[number], arrays_of_sets)
    _check_found(tasks, found, split)
    merged = _merged([metadata for _, metadata, _ in read], tuple(sets), size)
    return Sources(metadata=merged if tasks.is_all else _of_tasks(merged, sets), sets=sets)


def _check_found(tasks: Tasks, found: set[str], split: str) -> None:
    """Raise DataError if a task that is asked for is nowhere, or if none is left."""
    missing = sorted(set(tasks.only or ()) - set(tasks.without) - found)
    if missing:
        named = ", ".join(map(shown_id, missing[:_NAMED])) + (", ..." if len(missing) > _NAMED else "")
        raise DataError(f"{len(missing)} of the tasks are not in the {split} split: {named}.", "Name tasks of the data set, without |||.")
    if not tasks.is_all and not found:
        raise DataError(f"No task of the {split} split is left.", "Leave out fewer tasks.")


def _of_tasks(metadata: Metadata, sets: dict[str, Source]) -> Metadata:
    """The metadata with the counts of the groups that are used."""
    puzzles = sum(len(rows) for source in sets.values() for rows in source.rows_by_group())
    examples = sum(len(source.test_rows(None, None)) for source in sets.values())
    return replace(
        metadata,
        total_groups=sum(len(source.groups) for source in sets.values()),
        total_puzzles=puzzles,
        mean_puzzle_examples=examples / puzzles,
    )


def merged_identifiers(folders: Sequence[Path]) -> list[str]:
    """The names of the rows of the puzzle table of several data sets: those of the first, then what each further one adds."""
    merged = read_identifiers(folders[0])
    known = set(merged)
    for folder in folders[1:]:
        new = [name for name in read_identifiers(folder) if name not in known]
        merged += new
        known.update(new)
    return merged


def _rows_of_tables(read: Sequence[tuple[Path, Metadata]], identifiers: Sequence[str] | None) -> tuple[list[npt.NDArray[np.int32]], int]:
    """For each data set the row of the common table of each of its own identifiers, -1 where there is none; and the table's size."""
    if identifiers is None and len(read) == 1:
        size = read[0][1].num_puzzle_identifiers
        return [np.arange(size, dtype=np.int32)], size
    names = merged_identifiers([folder for folder, _ in read]) if identifiers is None else identifiers
    row_of = {name: row for row, name in enumerate(names) if name != BLANK} | {BLANK: read[0][1].blank_identifier_id}
    rows = []
    for folder, metadata in read:
        own = read_identifiers(folder)
        if len(own) != metadata.num_puzzle_identifiers:
            raise DataError(
                f"{folder}/identifiers.json has {len(own)} names, and dataset.json says {metadata.num_puzzle_identifiers}.",
                "Build the data set again.",
            )
        rows.append(np.array([row_of.get(name, -1) for name in own], dtype=np.int32))
    return rows, len(names)


def _unknown(folder: Path, rows: npt.NDArray[np.int32], sets: dict[str, Split]) -> DataError:
    names = read_identifiers(folder)
    used = sorted({int(number) for arrays in sets.values() for number in arrays.puzzle_identifiers if rows[number] < 0})
    shown = ", ".join(names[number] for number in used[:_NAMED])
    return DataError(
        f"{folder}: {len(used)} of its puzzles have no row in the puzzle table ({shown}{', ...' if len(used) > _NAMED else ''}).",
        "Evaluate puzzles whose demonstrations are in the training data: name the same data set in data_paths.",
    )


def _check_alike(first_folder: Path, first: Metadata, folder: Path, metadata: Metadata) -> None:
    for key in _SHARED:
        one, other = getattr(first, key), getattr(metadata, key)
        if one != other:
            raise DataError(
                f"{first_folder} has {key} {one}, and {folder} has {other}.", "Data sets that are used together must agree in it."
            )


def _merged(all_metadata: Sequence[Metadata], sets: tuple[str, ...], size: int) -> Metadata:
    puzzles = sum(metadata.total_puzzles for metadata in all_metadata)
    examples = sum(metadata.mean_puzzle_examples * metadata.total_puzzles for metadata in all_metadata)
    return replace(
        all_metadata[0],
        num_puzzle_identifiers=size,
        total_groups=sum(metadata.total_groups for metadata in all_metadata),
        mean_puzzle_examples=all_metadata[0].mean_puzzle_examples if len(all_metadata) == 1 else examples / max(puzzles, 1),
        total_puzzles=puzzles,
        sets=sets,
    )
