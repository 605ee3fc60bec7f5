"""Builds the data set of ARC tasks: each task with its variants under symmetries and exchanges of colours, on a canvas of 30x30 cells.

The draws are the original's, in its order, so that the same flags give the same files. In two points the original depends on chance, and
this does not: the train split always comes before the test split (there the order follows PYTHONHASHSEED), and a task without pairs for a
split is no group of it (there it is an error).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sttrl.errors import UsageError
from sttrl.ledger.files import make_folder
from sttrl.trm.data.arc_tasks import Grid, SplitName, SplitTask, Subset, read_subsets
from sttrl.trm.data.arguments import BuildArc
from sttrl.trm.data.canvas import CANVAS, SEQUENCE, VOCABULARY, draw
from sttrl.trm.data.format import (
    BLANK,
    SEPARATOR,
    Array,
    Metadata,
    check_replaceable,
    new_dataset,
    open_set,
    save_indices,
    save_metadata,
    save_names,
)
from sttrl.trm.data.moves import MOVES, moved
from sttrl.trm.data.rooms import check_room

TRIES = 5
"""Draws for each variant that is wanted; where too few of them differ, the task has fewer variants."""
_VARIANT_BYTES = 450
"""Memory for a variant while building: its name, its row and its colours, measured and rounded up."""
_SPLITS: tuple[SplitName, ...] = ("train", "test")


@dataclass(frozen=True, kw_only=True)
class Variants:
    """A task's variants, the task itself first. ``symmetries`` (V,); ``colours`` (V, 10): the new colour of each colour."""

    task: SplitTask
    symmetries: npt.NDArray[np.uint8]
    colours: npt.NDArray[np.uint8]

    @property
    def names(self) -> list[str]:
        """The identifiers: ``ID``, then ``ID|||t3|||0179456823`` for each further variant."""
        further = zip(self.symmetries[1:].tolist(), self.colours[1:].tolist(), strict=True)
        return [self.task.name] + [SEPARATOR.join((self.task.name, f"t{move}", "".join(map(str, digits)))) for move, digits in further]


@dataclass(frozen=True, kw_only=True)
class ArcBuilt:
    """What was built.

    ``short``: the tasks with fewer puzzles than asked for, and how many. ``unsolved``: subsets with an output that is not known.
    """

    folder: Path
    splits: dict[str, Metadata]
    short: dict[str, int]
    unsolved: tuple[str, ...]


def build_arc(wish: BuildArc) -> ArcBuilt:
    """Build the data set. Raises DataError for bad files or too little room, UsageError for flags that do not fit together."""
    _check(wish)
    return build_subsets(wish, read_subsets(wish))


def build_subsets(wish: BuildArc, subsets: Sequence[Subset]) -> ArcBuilt:
    """Build a data set of tasks that were read already; the flags that name files and subsets do not matter. Raises as `build_arc`."""
    _check(wish)
    _check_room(wish, [task for subset in subsets for task in subset.tasks])
    draws = np.random.RandomState(wish.seed)
    groups: list[Variants] = []
    for subset in subsets:
        tasks = list(subset.tasks)
        draws.shuffle(tasks)  # type: ignore[arg-type]  # a list is shuffled as any sequence
        groups += [draw_variants(task, wish.num_aug, draws) for task in tasks]
    rows, names = _number(groups, wish.puzzle_identifiers_start)
    splits: dict[str, Metadata] = {}
    with new_dataset(wish.output_dir) as temporary:
        for split in _SPLITS:
            members = [group for group in groups if group.task.pairs.get(split)]
            if members:
                make_folder(temporary / split)
                splits[split] = _write_split(temporary / split, split, members, rows, len(names), wish, draws)
        save_names(temporary, names, {group.task.name: group.task.source for group in groups if group.task.is_test})
    wanted = wish.num_aug + 1
    return ArcBuilt(
        folder=wish.output_dir,
        splits=splits,
        short={group.task.name: len(group.symmetries) for group in groups if len(group.symmetries) < wanted},
        unsolved=tuple(subset.name for subset in subsets if not subset.solved),
    )


def draw_variants(task: SplitTask, count: int, draws: np.random.RandomState) -> Variants:
    """Draw a task's variants. No two show the same pairs, in whatever order."""
    pairs = [pair for examples in task.pairs.values() for pair in examples]
    shown = [_Moved.of(pairs, symmetry) for symmetry in range(len(MOVES))]
    symmetries, colours = [0], [np.arange(10, dtype=np.uint8)]
    seen = {shown[0].digest(colours[0])}
    for _ in range(TRIES * count):
        if len(symmetries) == count + 1:
            break
        symmetry = int(draws.randint(0, len(MOVES)))
        exchange = np.concatenate([[0], draws.permutation(np.arange(1, 10))]).astype(np.uint8)
        digest = shown[symmetry].digest(exchange)
        if digest not in seen:
            seen.add(digest)
            symmetries.append(symmetry)
            colours.append(exchange)
    return Variants(task=task, symmetries=np.array(symmetries, dtype=np.uint8), colours=np.stack(colours))


@dataclass(frozen=True, kw_only=True)
class _Moved:
    """All pairs of a task after a symmetry, their cells one after the other. ``parts``: for each pair its shapes, its start and its end."""

    cells: npt.NDArray[np.uint8]
    parts: tuple[tuple[bytes, int, int], ...]

    @staticmethod
    def of(pairs: Sequence[tuple[Grid, Grid]], symmetry: int) -> _Moved:
        cells: list[Array] = []
        parts: list[tuple[bytes, int, int]] = []
        end = 0
        for pair in pairs:
            grids = [moved(grid, symmetry) for grid in pair]
            start, end = end, end + sum(grid.size for grid in grids)
            cells += [grid.ravel() for grid in grids]
            parts.append((bytes(side for grid in grids for side in grid.shape), start, end))
        return _Moved(cells=np.concatenate(cells), parts=tuple(parts))

    def digest(self, colours: Array) -> bytes:
        """The same for the same pairs in any order, different for others."""
        cells = colours[self.cells].tobytes()
        return hashlib.sha256(b"".join(sorted(shapes + cells[start:end] for shapes, start, end in self.parts))).digest()


def _number(groups: Sequence[Variants], start: int) -> tuple[dict[str, int], list[str]]:
    """The row of the puzzle table of each variant, and the names of the rows. Train comes first, so tasks without demonstrations last."""
    rows: dict[str, int] = {}
    for split in _SPLITS:
        for group in groups:
            if group.task.pairs.get(split):
                for name in group.names:
                    rows.setdefault(name, start + len(rows))
    return rows, [BLANK] * start + list(rows)


def _write_split(
    folder: Path,
    split: SplitName,
    groups: Sequence[Variants],
    rows: dict[str, int],
    size: int,
    wish: BuildArc,
    draws: np.random.RandomState,
) -> Metadata:
    """Write the files of a split. The grids of a variant are drawn when they are written, so that memory holds one task at a time."""
    variants = [len(group.symmetries) for group in groups]
    examples = [len(group.task.pairs[split]) for group in groups]
    per_puzzle = np.repeat(examples, variants)
    total = int(per_puzzle.sum())
    inputs, labels = open_set(folder, "all", examples=total, cells=SEQUENCE, dtype=np.uint8)
    translated = split == "train" and wish.enable_train_translation
    end = 0
    for given, wanted in _canvases(groups, split, translated, draws):
        start, end = end, end + len(given)
        inputs[start:end], labels[start:end] = given, wanted
    save_indices(
        folder,
        "all",
        puzzle_identifiers=[rows[name] for group in groups for name in group.names],
        puzzle_sizes=per_puzzle,
        group_sizes=variants,
    )
    metadata = Metadata(
        pad_id=0,
        ignore_label_id=0,
        blank_identifier_id=0,
        vocab_size=VOCABULARY,
        seq_len=SEQUENCE,
        num_puzzle_identifiers=size,
        total_groups=len(groups),
        mean_puzzle_examples=total / len(per_puzzle),
        total_puzzles=len(per_puzzle),
        sets=("all",),
    )
    save_metadata(folder, metadata)
    return metadata


def _canvases(
    groups: Sequence[Variants], split: SplitName, translated: bool, draws: np.random.RandomState
) -> Iterator[tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]]:
    """Inputs and labels (examples, 900) of each variant. ``translated``: all but one of its examples are moved, input and output alike."""
    for group in groups:
        shown = [[[moved(grid, symmetry) for grid in pair] for pair in group.task.pairs[split]] for symmetry in range(len(MOVES))]
        for symmetry, colours in zip(group.symmetries, group.colours, strict=True):
            pairs = shown[symmetry]
            kept = draws.randint(0, len(pairs))
            canvases = np.zeros((2, len(pairs), SEQUENCE), dtype=np.uint8)
            for example, pair in enumerate(pairs):
                grids = [colours[grid] for grid in pair]
                row = column = 0
                if translated and example != kept:
                    row = draws.randint(0, CANVAS - max(grid.shape[0] for grid in grids) + 1)
                    column = draws.randint(0, CANVAS - max(grid.shape[1] for grid in grids) + 1)
                for canvas, grid in zip(canvases[:, example], grids, strict=True):
                    draw(canvas, grid, row, column)
            yield canvases[0], canvases[1]


def _check(wish: BuildArc) -> None:
    if wish.num_aug < 0:
        raise UsageError(f"--num_aug is {wish.num_aug}.", "Use 0 or more.")
    if wish.puzzle_identifiers_start < 1:
        raise UsageError(f"--puzzle_identifiers_start is {wish.puzzle_identifiers_start}.", "Use 1 or more: row 0 is the blank puzzle's.")
    if not 0 <= wish.seed < 2**32:
        raise UsageError(f"--seed is {wish.seed}.", "Use a number from 0 to 4294967295.")
    check_replaceable(wish.output_dir)


def _check_room(wish: BuildArc, tasks: Sequence[SplitTask]) -> None:
    """Raise DataError if the data set with all variants that are wanted would be too large."""
    puzzles = (wish.num_aug + 1) * len(tasks)
    examples = (wish.num_aug + 1) * sum(len(pairs) for task in tasks for pairs in task.pairs.values())
    check_room(
        wish.output_dir,
        disk_bytes=2 * SEQUENCE * examples,
        memory_bytes=_VARIANT_BYTES * puzzles,
        remedy=f"Use a smaller --num-aug ({wish.num_aug} now), fewer subsets, or another --output-dir.",
    )
