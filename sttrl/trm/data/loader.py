"""Batches of a data set: endless and shuffled for training, in order for evaluation.

The order is the original's. One iteration over a set goes through its groups ``epochs_per_iteration`` times, each time in a new order; of
each group it takes one variant, and of this variant all examples, in a new order; what does not fit into the batch is dropped, and so is
the last incomplete batch. Groups and variants follow ``Philox(seed + iteration)`` with iterations numbered from 1, as in the original. The
original draws the order of examples from numpy's global state, which nothing seeds; here each batch has a generator of its own, so that
training goes on from any position without repeating the draws before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sttrl.errors import DataError, UsageError
from sttrl.trm.data.format import Array
from sttrl.trm.data.sources import Source, read_sources

Batch = dict[str, npt.NDArray[np.int32]]
"""``inputs`` (b, S), ``labels`` (b, S; ignored ones are -100), ``puzzle_identifiers`` (b,)."""

IGNORED_LABEL = -100
"""The label of a cell that is not scored."""


@dataclass(frozen=True, kw_only=True)
class Position:
    """Where training stands in the data: after ``batch`` batches of the present iteration, which used ``group`` entries of its order.

    ``iteration``: finished iterations over a set. `dataclasses.asdict` gives JSON; ``Position(**values)`` reads it.
    """

    iteration: int = 0
    group: int = 0
    batch: int = 0


class Batches:
    """Batches of one split of one or several data sets.

    Rank r of ``ranks`` gets the r-th part of every global batch. ``max_examples_per_puzzle``: at most so many examples of a variant go into
    a training batch, and the first so many into an evaluation. ``max_augmentations``: evaluation keeps each group's first puzzle, which is the
    one without augmentation, and so many of its variants. ``identifiers``: the names of the rows of a puzzle table that exists already;
    None: the table of these data sets. ``examples``: draws the order of examples in place of the generators of the batches; positions
    cannot be resumed then. It is for comparisons with the original.

    Raises DataError for data sets that cannot be read together, UsageError for a batch that ``ranks`` does not divide.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        split: str,
        *,
        seed: int,
        global_batch_size: int,
        epochs_per_iteration: int = 1,
        rank: int = 0,
        ranks: int = 1,
        max_augmentations: int | None = None,
        max_examples_per_puzzle: int | None = None,
        identifiers: Sequence[str] | None = None,
        examples: np.random.RandomState | None = None,
    ) -> None:
        if global_batch_size < 1 or global_batch_size % ranks:
            raise UsageError(f"global_batch_size is {global_batch_size}, and {ranks} processes share it.", f"Use a multiple of {ranks}.")
        if epochs_per_iteration < 1:
            raise UsageError(f"epochs_per_iteration is {epochs_per_iteration}.", "Use 1 or more.")
        sources = read_sources(folders, split, identifiers)
        self.metadata = sources.metadata
        self._sources = sources.sets
        self._split, self._seed, self._epochs = split, seed, epochs_per_iteration
        self._global_batch_size, self._rank, self._batch_size = global_batch_size, rank, global_batch_size // ranks
        self._max_augmentations, self._max_examples = max_augmentations, max_examples_per_puzzle
        self._examples = examples

    def train(self, start: Position = Position()) -> Iterator[tuple[Position, Batch]]:  # noqa: B008 (it is frozen)
        """Training batches without end, each with the position after it: started there, training goes on with the very next batch.

        Raises DataError if no iteration fills a batch.
        """
        position, barren = start, 0
        while barren < len(self._sources):
            first = position
            for position, batch in self._iteration(first):
                yield position, batch
            barren = barren + 1 if position == first and not first.batch else 0
            position = Position(iteration=position.iteration + 1)
        size, epochs = self._global_batch_size, self._epochs
        raise DataError(
            f"The {self._split} split fills no batch of {size} examples in {epochs} {'epoch' if epochs == 1 else 'epochs'}.",
            "Use a smaller global_batch_size, or more epochs between evaluations.",
        )

    def test(self) -> Iterator[tuple[str, Batch, int]]:
        """Every example once, in order: (set, this rank's part of a batch, examples in the whole batch).

        Incomplete parts are filled with padding: pad tokens, ignored labels, the blank puzzle.
        """
        for name, source in self._sources.items():
            rows = source.test_rows(self._max_augmentations, self._max_examples)
            puzzles = np.searchsorted(source.arrays.puzzle_indices, rows, side="right") - 1
            for start in range(0, len(rows), self._global_batch_size):
                end = min(start + self._global_batch_size, len(rows))
                part = self._part(start, end)
                yield name, self._collated(source, rows[part], puzzles[part]), end - start

    def task_of_identifier(self) -> npt.NDArray[np.int32]:
        """The group of each row of the puzzle table, groups numbered over all sets; -1 for rows without one."""
        tasks = np.full(self.metadata.num_puzzle_identifiers, -1, dtype=np.int32)
        number = 0
        for source in self._sources.values():
            sizes = np.diff(source.arrays.group_indices)
            tasks[source.rows_of_table] = np.repeat(np.arange(number, number + len(sizes), dtype=np.int32), sizes)
            number += len(sizes)
        tasks[self.metadata.blank_identifier_id] = -1
        return tasks

    def _iteration(self, start: Position) -> Iterator[tuple[Position, Batch]]:
        """The rest of an iteration over one set."""
        source = list(self._sources.values())[start.iteration % len(self._sources)]
        order = self._order(source, start.iteration + 1)
        position = start
        while position.group < len(order):
            rows, puzzles, used = self._packed(source, order, position)
            if len(rows) < self._global_batch_size:
                return
            position = Position(iteration=position.iteration, group=used, batch=position.batch + 1)
            part = self._part(0, len(rows))
            yield position, self._collated(source, rows[part], puzzles[part])

    def _order(self, source: Source, iteration: int) -> Array:
        """The variants of an iteration, in order: drawn at once, which gives the draws that the original makes one by one."""
        draws = np.random.Generator(np.random.Philox(seed=self._seed + iteration))
        first = source.arrays.group_indices
        groups = np.concatenate([draws.permutation(len(first) - 1) for _ in range(self._epochs)])
        variants: Array = draws.integers(first[groups], first[groups + 1])
        return variants.astype(np.int32)

    def _packed(self, source: Source, order: Array, position: Position) -> tuple[Array, Array, int]:
        """The next global batch: its examples, their puzzles, and how many entries of the order are used up after it."""
        draws = self._examples or _generator(self._seed, position)
        first = source.arrays.puzzle_indices
        rows: list[Array] = []
        puzzles: list[int] = []
        wanted, used = self._global_batch_size, position.group
        while used < len(order) and wanted:
            puzzle = int(order[used])
            start, size = int(first[puzzle]), int(first[puzzle + 1] - first[puzzle])
            taken = min(size, wanted, size if self._max_examples is None else self._max_examples)
            rows.append(start + draws.permutation(size)[:taken])
            puzzles += [puzzle] * taken
            wanted -= taken
            used += 1
        return np.concatenate(rows), np.asarray(puzzles), used

    def _part(self, start: int, end: int) -> slice:
        """This rank's part of the global batch of examples ``start`` to ``end``."""
        first = min(start + self._rank * self._batch_size, end)
        return slice(first, min(first + self._batch_size, end))

    def _collated(self, source: Source, rows: Array, puzzles: Array) -> Batch:
        inputs, labels = source.tokens(rows)
        if self.metadata.ignore_label_id is not None:
            labels[labels == self.metadata.ignore_label_id] = IGNORED_LABEL
        missing = self._batch_size - len(rows)
        batch = {"inputs": inputs, "labels": labels, "puzzle_identifiers": source.rows_of_table[puzzles]}
        if not missing:
            return batch
        fill = {"inputs": self.metadata.pad_id, "labels": IGNORED_LABEL, "puzzle_identifiers": self.metadata.blank_identifier_id}
        return {
            name: np.concatenate([values, np.full((missing, *values.shape[1:]), fill[name], dtype=np.int32)])
            for name, values in batch.items()
        }


def _generator(seed: int, position: Position) -> np.random.Generator:
    """The draws of the batch that follows a position."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, position.iteration, position.batch))))
