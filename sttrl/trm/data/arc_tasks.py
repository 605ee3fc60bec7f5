"""Reads ARC tasks from Kaggle's files for a data set, and says into which split each of their pairs goes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sttrl.arc.files import SUFFIXES, Fault, Fields, first_of, read_json, shown_id
from sttrl.arc.flat import FlatPairs
from sttrl.arc.grids import fault_of
from sttrl.arc.layouts import CHALLENGES, SOLUTIONS, Entry, read_contents, solutions_files
from sttrl.arc.parsing import parse_entry
from sttrl.errors import DataError, UsageError
from sttrl.trm.data.arguments import BuildArc
from sttrl.trm.data.format import SEPARATOR

SplitName = Literal["train", "test"]
Grid = npt.NDArray[np.uint8]

UNKNOWN_OUTPUT = [[0]]
"""What test_puzzles.json has as the output of a test pair whose solution is not known."""
_NO_GRID = np.zeros((0, 0), dtype=np.uint8)
"""The same as a grid: its labels are padding, which is neither trained on nor scored."""


@dataclass(frozen=True, kw_only=True)
class SplitTask:
    """A task, and which of its pairs go into each split. ``source``: the task as JSON, with its outputs.

    An output that is not known is a grid without cells in ``pairs``, and ``[[0]]`` in ``source``.
    """

    name: str
    pairs: Mapping[SplitName, Sequence[tuple[Grid, Grid]]]
    source: Mapping[str, Any]
    is_test: bool


@dataclass(frozen=True, kw_only=True)
class Subset:
    """The tasks of a subset in the order of its file. ``solved``: whether all outputs are known."""

    name: str
    tasks: tuple[SplitTask, ...]
    solved: bool


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where the outputs of a task's test pairs come from; ``solutions`` None: from the challenges file."""

    task: str
    challenges: Path
    solutions: Path | None

    def error(self, problem: str, place: str | None = None) -> DataError:
        """The error for wrong outputs."""
        file = self.challenges if self.solutions is None else self.solutions
        return DataError(str(Fault(file=str(file), task=self.task, place=place, problem=problem)), "Correct the file.")


def read_subsets(wish: BuildArc) -> tuple[Subset, ...]:
    """Read all subsets. Raises DataError for bad files, and UsageError for names that do not fit together."""
    tests = tested_subsets(wish)
    subsets = tuple(_read_subset(wish.input_file_prefix, name, is_test=name in tests) for name in wish.subsets)
    _check_overlaps(subsets)
    return subsets


def subset_of(path: Path) -> Subset:
    """The tasks of a task file, of a folder of task files or of Kaggle's challenges file, as a test set. Raises DataError.

    Outputs of test pairs are taken from the task files, or from the solutions file beside the challenges file.
    """
    contents = read_contents(path)
    if contents.layout in ("re-arc", "flat pairs"):
        raise DataError(f"{path} holds pairs in no particular roles.", 'Give tasks with "train" and "test".')
    faults = [*contents.faults, *(fault for entry in contents.entries for fault in _faults(entry))]
    if faults:
        raise first_of(faults, str(path))
    file = next((each for each in solutions_files(contents.path) if each.is_file()), None) if contents.layout == "kaggle" else None
    known = None if file is None else _solutions(file)
    tasks = {entry.id: (entry, entry.value) for entry in contents.entries if isinstance(entry.value, Fields)}
    read = {
        id_: _with_outputs(_Place(task=id_, challenges=Path(entry.file), solutions=file), task, None if known is None else known.get(id_))
        for id_, (entry, task) in tasks.items()
    }
    return Subset(name=path.name, tasks=tuple(_split_task(id_, task, True) for id_, task in read.items()), solved=_solved(read.values()))


def tested_subsets(wish: BuildArc) -> frozenset[str]:
    """The subsets whose test pairs are the test split."""
    if not wish.subsets:
        raise UsageError("--subsets names none.", "Example: --subsets training evaluation concept.")
    twice = next((name for name in wish.subsets if wish.subsets.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"--subsets names {twice!r} twice.", "Name it once.")
    named = [name for name in (wish.test_set_name, wish.test_set_name2) if name is not None] + list(wish.test_set_names)
    for name in (*named, *wish.train_only_subsets):
        if name not in wish.subsets:
            near = get_close_matches(name, wish.subsets, n=1)
            meant = f"Did you mean {near[0]!r}? " if near else ""
            raise UsageError(f"{name!r} is not among --subsets {' '.join(wish.subsets)}.", f"{meant}Name it there too.")
    both = sorted(set(named) & set(wish.train_only_subsets))
    if both:
        raise UsageError(f"{both[0]!r} is a test set and in --train-only-subsets.", "Take it from one of them.")
    return frozenset(named) if named else frozenset(wish.subsets) - frozenset(wish.train_only_subsets)


def _read_subset(prefix: str, name: str, *, is_test: bool) -> Subset:
    challenges = _file(prefix, name, CHALLENGES)
    if challenges is None:
        raise DataError(
            f"There is no file {prefix}_{name}{CHALLENGES}.json.",
            "--input-file-prefix is the path and the beginning of the files' names, up to the name of the subset.",
        )
    tasks = _tasks(challenges)
    solutions = _file(prefix, name, SOLUTIONS)
    known = None if solutions is None else _solutions(solutions)
    read = [
        _with_outputs(_Place(task=id_, challenges=challenges, solutions=solutions), task, None if known is None else known.get(id_))
        for id_, task in tasks.items()
    ]
    solved = _solved(read)
    if not solved and not is_test:
        raise DataError(
            f"{challenges}: the outputs of test pairs are not known, and these pairs are in the train split.",
            f"Add {prefix}_{name}{SOLUTIONS}.json, or make {name} a test set: --test-set-name {name}.",
        )
    return Subset(
        name=name,
        tasks=tuple(_split_task(id_, task, is_test) for id_, task in zip(tasks, read, strict=True)),
        solved=solved,
    )


def _file(prefix: str, name: str, ending: str) -> Path | None:
    return next((path for suffix in SUFFIXES if (path := Path(f"{prefix}_{name}{ending}{suffix}")).is_file()), None)


def _tasks(file: Path) -> dict[str, Fields]:
    """The checked tasks of a challenges file, in its order."""
    content = read_json(file)
    if isinstance(content, Fault):
        raise DataError(str(content), "Correct the file.")
    if not isinstance(content.value, Fields) or not content.value:
        raise DataError(f"{file} is not a JSON object of tasks.", 'It should look like {"ID": {"train": [...], "test": [...]}}.')
    faults = [Fault(file=str(file), task=id_, problem="the id is in the file more than once") for id_ in content.value.repeated]
    for id_, task in content.value.items():
        faults += _faults(Entry(id=id_, file=str(file), value=task if isinstance(task, Fields) else None))
    if faults:
        raise first_of(faults, str(file))
    return {id_: task for id_, task in content.value.items() if isinstance(task, Fields)}


def _faults(entry: Entry) -> list[Fault]:
    faults = list(parse_entry(entry, FlatPairs(), need_demos=False)[1])
    if SEPARATOR in entry.id:
        faults.append(entry.fault(f"the id contains {SEPARATOR}, which separates the parts of an identifier"))
    return faults


def _solved(tasks: Iterable[Mapping[str, Any]]) -> bool:
    """Whether all outputs are known."""
    return all("output" in pair for task in tasks for pair in task["test"])


def _solutions(file: Path) -> Fields:
    content = read_json(file)
    if isinstance(content, Fault):
        raise DataError(str(content), "Correct the file.")
    if not isinstance(content.value, Fields):
        raise DataError(f"{file} is not a JSON object of solutions.", 'It should look like {"ID": [grid, ...]}.')
    if content.value.repeated:
        raise DataError(f"{file}: task {shown_id(content.value.repeated[0])} is there more than once.", "Correct the file.")
    return content.value


def _with_outputs(place: _Place, task: Fields, known: object) -> dict[str, Any]:
    """The task as JSON, with the outputs of its test pairs where they are known. ``known``: the task's solutions."""
    pairs = [dict(pair) for pair in _pairs(task["test"])]
    if place.solutions is not None:
        if not isinstance(known, list) or len(known) != len(pairs):
            found = "no solutions" if known is None else f"{len(known)} solutions" if isinstance(known, list) else "no list of solutions"
            raise place.error(f"{found} for {len(pairs)} test {'input' if len(pairs) == 1 else 'inputs'}")
        for pair, output in zip(pairs, known, strict=True):
            pair["output"] = output
    for number, pair in enumerate(pairs, start=1):
        problem = fault_of(pair["output"]) if "output" in pair else None
        if problem is not None:
            raise place.error(problem, f"test {number}, output")
    return {key: pairs if key == "test" else value for key, value in task.items()}


def _split_task(name: str, task: Mapping[str, Any], is_test: bool) -> SplitTask:
    filled = {
        key: [{**pair, "output": pair.get("output", UNKNOWN_OUTPUT)} for pair in value] if key == "test" else value
        for key, value in task.items()
    }
    pairs: dict[SplitName, list[tuple[Grid, Grid]]] = {}
    for key in task:
        if key in ("train", "test"):
            split: SplitName = "test" if key == "test" and is_test else "train"
            pairs.setdefault(split, []).extend((_grid(pair["input"]), _output(pair)) for pair in _pairs(task[key]))
    return SplitTask(name=name, pairs=pairs, source=filled, is_test=is_test)


def _pairs(value: object) -> list[Mapping[str, Any]]:
    return [pair for pair in value if isinstance(pair, Mapping)] if isinstance(value, list) else []


def _grid(value: Any) -> Grid:
    return np.array(value, dtype=np.uint8)


def _output(pair: Mapping[str, Any]) -> Grid:
    return _grid(pair["output"]) if "output" in pair else _NO_GRID


def _check_overlaps(subsets: Sequence[Subset]) -> None:
    """Raise DataError if a task whose test pairs are the test split is in another subset too: it would be trained on, or counted twice."""
    places: dict[str, list[tuple[str, bool]]] = {}
    for subset in subsets:
        for task in subset.tasks:
            places.setdefault(task.name, []).append((subset.name, task.is_test))
    shared = [(name, where) for name, where in places.items() if len(where) > 1 and any(is_test for _, is_test in where)]
    if shared:
        name, where = shared[0]
        named = " and ".join(subset for subset, _ in where)
        raise DataError(
            f"{len(shared)} test tasks are in two subsets; the first is task {shown_id(name)}, in {named}.",
            "Leave one of the subsets out, or take the tasks out of one file.",
        )
