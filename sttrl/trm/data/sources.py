"""One split of one or several data sets, with their puzzles brought to the rows of one puzzle table.

The original adds up the sizes of the tables of several data sets and leaves the identifiers as they are, so that puzzles of different data
sets share a row. Here the rows are aligned by name: the same name is the same row, another name is another row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sttrl.errors import DataError, UsageError
from sttrl.trm.data.format import BLANK, Array, Metadata, Split, read_identifiers, read_split

_SHARED = ("pad_id", "ignore_label_id", "blank_identifier_id", "vocab_size", "seq_len")
_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class Source:
    """One set of one data set. ``rows_of_table``: the row of the puzzle table of each puzzle."""

    place: str
    arrays: Split
    rows_of_table: npt.NDArray[np.int32]
    vocab_size: int

    def test_rows(self, max_augmentations: int | None, max_examples: int | None) -> Array:
        """The examples of an evaluation, in order: of each group its first ``1 + max_augmentations`` puzzles, and their first examples."""
        puzzles = np.arange(len(self.rows_of_table))
        first = self.arrays.group_indices.astype(np.int64)
        if max_augmentations is not None:
            number_in_group = puzzles - np.repeat(first[:-1], np.diff(first))
            puzzles = puzzles[number_in_group <= max_augmentations]
        start = self.arrays.puzzle_indices.astype(np.int64)
        sizes = np.diff(start)[puzzles]
        if max_examples is not None:
            sizes = np.minimum(sizes, max_examples)
        number_in_puzzle = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        rows: Array = np.repeat(start[puzzles], sizes) + number_in_puzzle
        return rows

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


@dataclass(frozen=True, kw_only=True)
class Sources:
    """The sets of all data sets under names of their own, and their metadata as one."""

    metadata: Metadata
    sets: dict[str, Source]


def read_sources(folders: Sequence[Path], split: str, identifiers: Sequence[str] | None) -> Sources:
    """Read one split of several data sets. ``identifiers``: the rows of a table that exists; None: those of the data sets.

    Sets of the second and later data sets get its number: all, all1, all2. Raises DataError for data sets that do not fit together.
    """
    if not folders:
        raise UsageError("No data set is named.", "Name one with --data_paths.")
    read = [(Path(folder), *read_split(folder, split)) for folder in folders]
    for folder, metadata, _ in read[1:]:
        _check_alike(read[0][0], read[0][1], folder, metadata)
    rows, size = _rows_of_tables([(folder, metadata) for folder, metadata, _ in read], identifiers)
    sets: dict[str, Source] = {}
    for number, (folder, metadata, arrays_of_sets) in enumerate(read):
        for name, arrays in arrays_of_sets.items():
            sets[name + (str(number) if number else "")] = Source(
                place=str(folder / split),
                arrays=arrays,
                rows_of_table=rows[number][arrays.puzzle_identifiers],
                vocab_size=metadata.vocab_size,
            )
        if any((source.rows_of_table < 0).any() for source in sets.values()):
            raise _unknown(folder, rows[number], arrays_of_sets)
    return Sources(metadata=_merged([metadata for _, metadata, _ in read], tuple(sets), size), sets=sets)


def without_puzzles(source: Source, rows: npt.NDArray[np.int32]) -> Source:
    """A set without the groups that have a puzzle of these rows of the table. What is left is copied into memory."""
    arrays = source.arrays
    groups, puzzles = arrays.group_indices.astype(np.int64), arrays.puzzle_indices.astype(np.int64)
    hit = np.isin(source.rows_of_table, rows)
    kept_groups = ~np.logical_or.reduceat(hit, groups[:-1]) if len(groups) > 1 else np.zeros(0, dtype=bool)
    kept = np.repeat(kept_groups, np.diff(groups))
    examples = np.repeat(kept, np.diff(puzzles))
    left = Split(
        inputs=np.asarray(arrays.inputs)[examples],
        labels=np.asarray(arrays.labels)[examples],
        puzzle_identifiers=arrays.puzzle_identifiers[kept],
        puzzle_indices=np.concatenate([[0], np.cumsum(np.diff(puzzles)[kept])]).astype(np.int32),
        group_indices=np.concatenate([[0], np.cumsum(np.diff(groups)[kept_groups])]).astype(np.int32),
    )
    return replace(source, arrays=left, rows_of_table=source.rows_of_table[kept])


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
