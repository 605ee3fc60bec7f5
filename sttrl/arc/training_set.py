"""Training rows of whole data sets, made when they are needed: each epoch has other views, and other pairs of generated examples."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from sttrl.arc.codecs.loss import RULES, weights
from sttrl.arc.files import Fields
from sttrl.arc.flat import Draw, FlatPairs, draw_tasks
from sttrl.arc.grids import as_grid, fault_of
from sttrl.arc.hub import find_or_fetch
from sttrl.arc.layouts import Entry, read_contents
from sttrl.arc.problem import Scribe, drawn_view
from sttrl.arc.sources import ArcSpec, read_tasks
from sttrl.arc.tasks import Pair, Puzzle, Task
from sttrl.arc.views.draws import SeededDice
from sttrl.arc.views.key import View
from sttrl.arc.views.marc import adaptation_set, drawn_puzzle
from sttrl.arc.views.training import all_demos, held_out
from sttrl.config.arc import ArcTrainingSettings
from sttrl.errors import DataError, UsageError
from sttrl.ledger.seeds import seed_of
from sttrl.types import Row

_COPIES = re.compile(r"(?P<name>.+?)(?:\*(?P<copies>[1-9]\d{0,5}))?")


@dataclass(frozen=True, kw_only=True)
class Part:
    """A data set of a mix. ``copies``: how often each of its tasks comes in an epoch, every time under another view.

    ``entry_by_id``: the files of generated pairs (re-arc), of which a task takes the next pairs; empty for a data set of tasks.
    """

    name: str
    copies: int
    fingerprint: str
    tasks: tuple[Task, ...] = field(default=(), repr=False)
    entry_by_id: dict[str, Entry] = field(default_factory=dict, repr=False)
    draws: tuple[tuple[str, Draw], ...] = field(default=(), repr=False)

    def __len__(self) -> int:
        """Rows of an epoch."""
        return len(self.draws) if self.entry_by_id else self.copies * len(self.tasks)

    def task(self, number: int) -> tuple[Task, int]:
        """(the task of a row, which of its copies it is)."""
        if not self.entry_by_id:
            return self.tasks[number % len(self.tasks)], number // len(self.tasks)
        file, draw = self.draws[number]
        return drawn_task(self.entry_by_id[file], draw), 0


def named(text: str) -> tuple[str, int]:
    """(data set, copies) of one value of ``--train_dataset``: ``NAME`` or ``NAME*128``."""
    match = _COPIES.fullmatch(text)
    return (match["name"], int(match["copies"] or 1)) if match else (text, 1)


def read_part(text: str, data_dir: Path | None, settings: ArcTrainingSettings, seed: int) -> Part:
    """The data set of one value of ``--train_dataset``. Raises `DataError`."""
    name, copies = named(text)
    try:
        rule = FlatPairs(
            sizes=tuple(pairs - 1 for pairs in settings.pairs_per_task),
            tasks_per_file=copies,
            seed=seed,
            drop_easiest=settings.drop_easiest,
        )
    except ValueError as error:
        raise UsageError(f"--pairs_per_task or --drop_easiest: {error}.", "Give 2 pairs or more.") from error
    spec = ArcSpec(dataset=name, data_dir=data_dir, flat=rule, need_demos=False)
    contents = read_contents(find_or_fetch(name, data_dir), difficulties=rule.drop_easiest > 0)
    if not any(entry.is_flat for entry in contents.entries):
        data = read_tasks(spec)
        return Part(name=name, copies=copies, fingerprint=data.fingerprint, tasks=data.tasks)
    draws: list[tuple[str, Draw]] = []
    for entry in contents.entries:
        try:
            found = draw_tasks(rule, entry.id, len(entry.value) if isinstance(entry.value, list) else 0, entry.difficulties)
        except ValueError as error:
            raise DataError(f"{entry.file}: {error}.", f"Use fewer copies than {text} asks for, or a smaller --pairs_per_task.") from error
        draws += [(entry.id, draw) for draw in found]
    entry_by_id = {entry.id: entry for entry in contents.entries}
    return Part(name=name, copies=copies, fingerprint=contents.sha256, entry_by_id=entry_by_id, draws=tuple(draws))


def drawn_task(entry: Entry, draw: Draw) -> Task:
    """The task of a draw: all of its pairs are demonstrations. Raises `DataError` for a pair without grids."""
    demos: list[Pair] = []
    for place in (*draw.demos, draw.test):
        value = entry.value[place] if isinstance(entry.value, list) else None
        pair = value if isinstance(value, Fields) else Fields()
        grids = {key: pair.get(key) for key in ("input", "output")}
        for key, grid in grids.items():
            if (fault := fault_of(grid)) is not None:
                raise DataError(f"{entry.file}, pair {place + 1}, {key}: {fault}.", "Correct the file; `python main.py data` lists all.")
        demos.append(Pair(**{key: as_grid(grid) for key, grid in grids.items() if isinstance(grid, list)}))
    return Task(id=draw.id, demos=tuple(demos), tests=())


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """All rows of a mix of data sets. Which row comes when depends on ``seed`` alone."""

    parts: tuple[Part, ...]
    settings: ArcTrainingSettings
    scribe: Scribe = field(repr=False)
    seed: int

    def __len__(self) -> int:
        """Rows of an epoch."""
        return sum(map(len, self.parts))

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *np.cumsum([len(part) for part in self.parts]).tolist()]

    def order(self, epoch: int) -> list[int]:
        """The numbers of the rows in the order of an epoch."""
        generator = np.random.default_rng(seed_of(self.seed, "", "order of rows", epoch, 0))
        return [int(number) for number in generator.permutation(len(self))]

    def row(self, number: int, epoch: int) -> Row | None:
        """A row; None if it does not fit into the model's context or has nothing to learn."""
        at = int(np.searchsorted(self._starts, number, side="right")) - 1
        part = self.parts[at]
        task, copy = part.task(number - self._starts[at])
        if not task.demos:
            return None
        seed = seed_of(self.seed, f"{part.name}/{task.id}", "row", epoch, copy)
        if self.settings.train_form == "marc":
            return as_row(drawn_puzzle(task.demos, SeededDice(seed)), self.scribe, self.settings.train_loss)
        view = drawn_view(len(task.demos), epoch * part.copies + copy, seed, self.settings.train_colours)
        rows = rows_of(task, view_V=[view], form=self.settings.train_form)
        return as_row(rows[copy % len(rows)], self.scribe, self.settings.train_loss) if rows else None


def puzzles_of(task: Task, count: int, settings: ArcTrainingSettings, scribe: Scribe, seed: int) -> Sequence[Puzzle]:
    """The puzzles that ttt trains on for a task: ``count`` of them under views, or marc's set, which has a rule of its own for its size."""
    if settings.train_form == "marc":
        return adaptation_set(task.demos, scribe.fits, SeededDice(seed), count)
    view_V = [drawn_view(len(task.demos), number, seed, settings.train_colours) for number in range(count)]
    return rows_of(task, view_V, settings.train_form)[:count]


def rows_of(task: Task, view_V: Sequence[View], form: str) -> Sequence[Puzzle]:
    """The puzzles of a task under views: with all demonstrations, or with each of them held out in turn."""
    if form == "all_demos" and len(task.demos) > 1:
        return all_demos(task, view_V)
    return held_out(task, view_V)


def as_row(puzzle: Puzzle, scribe: Scribe, loss: str) -> Row | None:
    """A puzzle as a row with a weight for each token; None if it does not fit, or if no token of it carries loss."""
    encoded = scribe.encoded(puzzle)
    if encoded is None or not any(weight_T := weights(encoded, RULES[loss])):
        return None
    return Row(token_T=encoded.token_T, weight_T=weight_T)
