"""Small data sets that tests write."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sttrl.trm.data.format import BLANK, Metadata, Split, write_dataset


def made(folder: Path, groups: Sequence[Sequence[int]], names: Sequence[str] | None = None, first: int = 1, vocabulary: int = 90) -> Path:
    """A data set with one set. ``groups``: the examples of each of the puzzles of each group. The cells of example n hold the token n."""
    sizes = [size for group in groups for size in group]
    tokens = np.arange(first, first + sum(sizes), dtype=np.uint8)[:, None].repeat(3, axis=1)
    arrays = Split(
        inputs=tokens,
        labels=tokens.copy(),
        puzzle_identifiers=np.arange(1, len(sizes) + 1, dtype=np.int32),
        puzzle_indices=np.cumsum([0, *sizes]).astype(np.int32),
        group_indices=np.cumsum([0, *map(len, groups)]).astype(np.int32),
    )
    metadata = Metadata(
        pad_id=0, ignore_label_id=0, blank_identifier_id=0, vocab_size=vocabulary, seq_len=3, num_puzzle_identifiers=len(sizes) + 1,
        total_groups=len(groups), mean_puzzle_examples=sum(sizes) / len(sizes), total_puzzles=len(sizes), sets=("all",),
    )  # fmt: skip
    names = [f"{folder.name}{number}" for number in range(len(sizes))] if names is None else names
    write_dataset(folder, {split: (metadata, {"all": arrays}) for split in ("train", "test")}, [BLANK, *names])
    return folder


def files(folder: Path) -> dict[str, bytes]:
    """What is in a folder, by path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
