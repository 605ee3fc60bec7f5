"""Training rows of whole data sets, made when they are needed: each epoch has other views, and other pairs of generated examples."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from sttrl.arc.codecs.loss import RULES, weights
from sttrl.arc.files import Fault, Fields, first_of
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


@dataclass(kw_only=True)
class Part(ABC):
    """A data set of a mix. ``copies``: how often each of its tasks comes in an epoch, every time under another view."""

    name: str
    copies: int
    fingerprint: str

    def __len__(self) -> int:
        """Rows of an epoch."""
        return self.copies * self.size

    @property
    @abstractmethod
    def size(self) -> int:
        """How many tasks there are, or files to draw tasks from."""

    @abstractmethod
    def task(self, number: int, epoch: int) -> tuple[Task, int]:
        """(the task of a row, which of its copies it is)."""


@dataclass(kw_only=True)
class TaskPart(Part):
    """A data set of tasks."""

    tasks: tuple[Task, ...] = field(repr=False)

    @property
    def size(self) -> int:
        """See `Part`."""
        return len(self.tasks)

    def task(self, number: int, epoch: int) -> tuple[Task, int]:
        """See `Part`."""
        copy, place = divmod(number, self.size)
        return self.tasks[place], copy


@dataclass(kw_only=True)
class GeneratedPart(Part):
    """Files of generated pairs (re-arc): in each epoch the tasks of a file take pairs in a new order."""

    entries: tuple[Entry, ...] = field(repr=False)
    rule: FlatPairs

    def __post_init__(self) -> None:
        self.draws = lru_cache(maxsize=self.size)(self._draws)

    @property
    def size(self) -> int:
        """See `Part`."""
        return len(self.entries)

    def task(self, number: int, epoch: int) -> tuple[Task, int]:
        """See `Part`."""
        place, copy = divmod(number, self.copies)
        return drawn_task(self.entries[place], self.draws(place, epoch)[copy]), copy

    def _draws(self, place: int, epoch: int) -> tuple[Draw, ...]:
        """The pairs of each task of a file in an epoch. Raises ValueError if there are too few pairs."""
        entry, seed = self.entries[place], seed_of(self.rule.seed or 0, self.name, "generated pairs", epoch, 0)
        pairs = entry.value if isinstance(entry.value, list) else []
        return draw_tasks(replace(self.rule, seed=seed), entry.id, len(pairs), entry.difficulties)


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
        return TaskPart(name=name, copies=copies, fingerprint=data.fingerprint, tasks=data.tasks)
    if faults := [*contents.faults, *(fault for entry in contents.entries for fault in faults_of(entry))]:
        raise first_of(faults, name, data_dir)
    part = GeneratedPart(name=name, copies=copies, fingerprint=contents.sha256, entries=contents.entries, rule=rule)
    for place, entry in enumerate(contents.entries):
        try:
            part.draws(place, 0)
        except ValueError as error:
            raise DataError(f"{entry.file}: {error}.", f"Use fewer copies than {text} asks for, or a smaller --pairs_per_task.") from error
    return part


def faults_of(entry: Entry) -> list[Fault]:
    """What is wrong with the pairs of a file."""
    if not isinstance(entry.value, list):
        return [entry.fault("it is no list of pairs, and other files of the data set are")]
    pairs = [pair if isinstance(pair, Fields) else Fields() for pair in entry.value]
    grids = [(pair.get(key), f"pair {number}, {key}") for number, pair in enumerate(pairs, start=1) for key in ("input", "output")]
    return [entry.fault(problem, place) for grid, place in grids if (problem := fault_of(grid)) is not None]


def drawn_task(entry: Entry, draw: Draw) -> Task:
    """The task of a draw: all of its pairs are demonstrations."""
    assert isinstance(entry.value, list), "faulty files are refused before"
    pairs = [entry.value[place] for place in (*draw.demos, draw.test)]
    return Task(id=draw.id, demos=tuple(Pair(input=as_grid(pair["input"]), output=as_grid(pair["output"])) for pair in pairs), tests=())


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
        task, copy = part.task(number - self._starts[at], epoch)
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
