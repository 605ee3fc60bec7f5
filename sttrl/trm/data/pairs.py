"""Data sets in which each puzzle has one example: Sudoku, mazes, and the small ones of the project."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

import numpy.typing as npt

from sttrl.ledger.files import make_folder
from sttrl.trm.data.format import Array, Metadata, open_set, save_indices, save_metadata


def write_pairs(
    folder: Path,
    pairs: Iterable[tuple[Array, Array]],
    *,
    groups: int,
    variants: int,
    vocabulary: int,
    dtype: npt.DTypeLike = "uint8",
    identifiers: Sequence[int] | None = None,
    rows: int = 1,
) -> Metadata:
    """Write a split of ``groups`` x ``variants`` pairs of tokens, a group's variants one after the other, and return its metadata.

    ``identifiers``: the row of the puzzle table of each pair, of ``rows``; None: row 0. ``total_puzzles`` counts the groups, as in the
    original.
    """
    make_folder(folder)
    left = iter(pairs)
    first = next(left)
    puzzles, cells = groups * variants, len(first[0])
    inputs, labels = open_set(folder, "all", examples=puzzles, cells=cells, dtype=dtype)
    for number, (given, wanted) in enumerate(chain([first], left)):
        inputs[number], labels[number] = given, wanted
    save_indices(
        folder,
        "all",
        puzzle_identifiers=[0] * puzzles if identifiers is None else identifiers,
        puzzle_sizes=[1] * puzzles,
        group_sizes=[variants] * groups,
    )
    metadata = Metadata(
        pad_id=0,
        ignore_label_id=0,
        blank_identifier_id=0,
        vocab_size=vocabulary,
        seq_len=cells,
        num_puzzle_identifiers=rows,
        total_groups=groups,
        mean_puzzle_examples=1.0,
        total_puzzles=groups,
        sets=("all",),
    )
    save_metadata(folder, metadata)
    return metadata
