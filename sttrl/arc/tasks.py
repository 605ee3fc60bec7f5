"""Tasks: demonstrations of a rule, and inputs to apply it to. A task never holds a solution."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sttrl.arc.grids import Grid

FINGERPRINT: Final = "dataset_revision"
"""The field of config.json with the fingerprint of a run's tasks."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One demonstration."""

    input: Grid
    output: Grid


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task of a data set. ``demos``: at least one, except in data sets for training; ``tests``: the inputs that ask for an output."""

    id: str
    demos: tuple[Pair, ...]
    tests: tuple[Grid, ...]


@dataclass(frozen=True, kw_only=True)
class Puzzle:
    """What a model is shown: demonstrations and one query. ``answer``: the query's output, known only where a demonstration was held out.

    ``query`` None: demonstrations alone, as some systems train on them.
    """

    demos: tuple[Pair, ...]
    query: Grid | None
    answer: Grid | None = None


def fingerprint(tasks: Sequence[Task]) -> str:
    """The sha256 of tasks in their order: ids, demonstrations and test inputs as JSON without spaces."""
    plain = [[task.id, [[pair.input, pair.output] for pair in task.demos], task.tests] for task in tasks]
    return hashlib.sha256(json.dumps(plain, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")).hexdigest()
