"""Data sets in which each puzzle has one example and none has a row of the puzzle table to itself: Sudoku and mazes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy.typing as npt

from sttrl.ledger.files import make_folder
from sttrl.trm.data.format import Array, Metadata, open_set, save_indices, save_metadata


def write_pairs(
    folder: Path, pairs: Iterator[tuple[Array, Array]], *, groups: int, variants: int, cells: int, vocabulary: int, dtype: npt.DTypeLike
) -> Metadata:
    """Write a split of ``groups`` x ``variants`` pairs of tokens, a group's variants one after the other, and return its metadata.

    ``total_puzzles`` counts the groups, as the original builders do.
    """
    make_folder(folder)
    inputs, labels = open_set(folder, "all", examples=groups * variants, cells=cells, dtype=dtype)
    for number, (given, wanted) in enumerate(pairs):
        inputs[number], labels[number] = given, wanted
    puzzles = groups * variants
    save_indices(folder, "all", puzzle_identifiers=[0] * puzzles, puzzle_sizes=[1] * puzzles, group_sizes=[variants] * groups)
    metadata = Metadata(
        pad_id=0,
        ignore_label_id=0,
        blank_identifier_id=0,
        vocab_size=vocabulary,
        seq_len=cells,
        num_puzzle_identifiers=1,
        total_groups=groups,
        mean_puzzle_examples=1.0,
        total_puzzles=groups,
        sets=("all",),
    )
    save_metadata(folder, metadata)
    return metadata
