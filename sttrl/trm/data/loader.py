"""Batches of a data set: endless and shuffled for training (see `sttrl.trm.data.orders`), in order for evaluation."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sttrl.errors import DataError, UsageError
from sttrl.trm.data.format import Array
from sttrl.trm.data.noise import GridNoise
from sttrl.trm.data.orders import ORDERS, OrderName, Plan, Position
from sttrl.trm.data.sources import Source, Tasks, read_sources

Batch = dict[str, npt.NDArray[np.int32]]
"""``inputs`` (b, S), ``labels`` (b, S; ignored ones are -100), ``puzzle_identifiers`` (b,)."""

IGNORED_LABEL = -100
"""The label of a cell without a loss, which is not scored either."""


class Batches:
    """Batches of one split of one or several data sets.

    Rank r of ``ranks`` gets the r-th part of every global batch. ``max_examples_per_puzzle``: at most so many examples of a variant go into
    a training batch, and the first so many into an evaluation. ``max_augmentations``: evaluation keeps each group's first puzzle, the one
    without augmentation, and so many of its variants. ``identifiers``: the names of the rows of a puzzle table that exists already;
    None: the table of these data sets. ``only_tasks``, ``without_tasks``: names of tasks that alone are used, or that are left out; their
    variants go with them. ``noise``: added to training inputs. ``order``, ``examples``: see `sttrl.trm.data.orders`; with ``examples`` no
    position can be resumed.

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
        only_tasks: Collection[str] | None = None,
        without_tasks: Collection[str] = (),
        noise: GridNoise = GridNoise(),  # noqa: B008 (it is frozen)
        order: OrderName = "original",
        examples: np.random.RandomState | None = None,
    ) -> None:
        if global_batch_size < 1 or global_batch_size % ranks:
            raise UsageError(f"global_batch_size is {global_batch_size}, and {ranks} processes share it.", f"Use a multiple of {ranks}.")
        if epochs_per_iteration < 1:
            raise UsageError(f"epochs_per_iteration is {epochs_per_iteration}.", "Use 1 or more.")
        sources = read_sources(folders, split, identifiers, Tasks(only=only_tasks, without=without_tasks))
        self.metadata = sources.metadata
        self._sources = sources.sets
        self._order = ORDERS[order]
        self._plan = Plan(
            sets=[source.arrays for source in sources.sets.values()],
            groups=[source.groups for source in sources.sets.values()],
            seed=seed,
            batch_size=global_batch_size,
            epochs=epochs_per_iteration,
            max_examples=max_examples_per_puzzle,
            examples=examples,
        )
        self._noise = noise
        self._split, self._max_augmentations = split, max_augmentations
        self._rank, self._batch_size = rank, global_batch_size // ranks

    def train(self, start: Position = Position()) -> Iterator[tuple[Position, Batch]]:  # noqa: B008 (it is frozen)
        """Training batches without end, each with the position after it: started there, training goes on with the very next batch.

        Raises DataError if no iteration fills a batch.
        """
        position, names = start, list(self._sources)
        while True:
            first = position
            for packed in self._order(self._plan, first):
                position, source = packed.position, self._sources[names[packed.set_number]]
                part = self._part(0, len(packed.rows_B))
                batch = self._collated(source, packed.rows_B[part], packed.puzzles_B[part])
                seed = (self._plan.seed, position.iteration, position.batch, 1)
                self._noise.add(batch["inputs"], self.metadata.vocab_size, seed, part.start)
                yield position, batch
            if position == first and not first.batch:
                break
            position = Position(iteration=position.iteration + 1)
        size, epochs = self._plan.batch_size, self._plan.epochs
        raise DataError(
            f"The {self._split} split fills no batch of {size} examples in {epochs} {'epoch' if epochs == 1 else 'epochs'}.",
            "Use a smaller global_batch_size, or more epochs between evaluations.",
        )

    def test(self) -> Iterator[tuple[str, Batch, int]]:
        """Every example once, in order: (set, this rank's part of a batch, examples in the whole batch).

        Incomplete parts are filled with padding: pad tokens, ignored labels, the blank puzzle.
        """
        for name, source in self._sources.items():
            rows = source.test_rows(self._max_augmentations, self._plan.max_examples)
            puzzles = np.searchsorted(source.arrays.puzzle_indices, rows, side="right") - 1
            for start in range(0, len(rows), self._plan.batch_size):
                end = min(start + self._plan.batch_size, len(rows))
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

    def shuffled_identities(self, seed: int) -> npt.NDArray[np.int32]:
        """For each row of the puzzle table a row of another task of this split, drawn at random. Rows of no puzzle of the split stay.

        A model that is given these rows sees each puzzle with the embedding of another task. What it still solves, it solves without
        the puzzle's own embedding.
        """
        draws = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, 1))))
        shuffled = np.arange(self.metadata.num_puzzle_identifiers, dtype=np.int32)
        members = [rows for source in self._sources.values() for rows in source.rows_by_group()]
        cycle = draws.permutation(len(members))
        for one, other in zip(cycle, np.roll(cycle, 1), strict=True):
            shuffled[members[one]] = np.resize(members[other], len(members[one]))
        shuffled[self.metadata.blank_identifier_id] = self.metadata.blank_identifier_id
        return shuffled

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
