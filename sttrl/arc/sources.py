"""Finds a data set of ARC tasks and reads it, without solutions.

Layouts: see `sttrl.arc.layouts.LAYOUTS`. Which one a path has is recognised.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from sttrl.arc.datasets import ARC_DATASETS, Match, match_of
from sttrl.arc.files import Fault, first_of
from sttrl.arc.flat import FlatPairs
from sttrl.arc.hub import find_or_fetch
from sttrl.arc.layouts import Contents, Layout, read_contents
from sttrl.arc.parsing import parse_entry
from sttrl.arc.tasks import Task, fingerprint


@dataclass(frozen=True, kw_only=True)
class ArcSpec:
    """What to read. ``dataset``: a name of `ARC_DATASETS`, a file or a folder. ``flat``: how files of pairs become tasks.

    ``need_demos``: whether a task without demonstrations is a fault; data sets for training may have such tasks.
    """

    dataset: str
    data_dir: Path | None = None
    flat: FlatPairs = FlatPairs()
    need_demos: bool = True


@dataclass(frozen=True, kw_only=True)
class ArcData:
    """A data set that was read. ``tasks``: sorted by id; a task with a fault is left out.

    ``fingerprint``: of the tasks, without solutions, so that it is the same in every layout and whatever the labels are.
    ``sha256``: of the files' contents as they are; for a folder, of its files' names and sha256 values.
    ``release``: the known release with the same tasks or at least the same counts; None: there is none.
    """

    name: str
    path: Path
    layout: Layout
    tasks: tuple[Task, ...] = field(repr=False)
    faults: tuple[Fault, ...]
    fingerprint: str
    sha256: str
    release: Match | None

    @property
    def outputs(self) -> int:
        """How many test outputs the tasks ask for."""
        return sum(len(task.tests) for task in self.tasks)


def read_tasks(spec: ArcSpec) -> ArcData:
    """Find and read a data set. Raises DataError if it is not found, holds no tasks, or has a fault: the first one, and how many more."""
    data = inspect_tasks(spec)
    if data.faults:
        raise first_of(data.faults, spec.dataset, spec.data_dir)
    return data


def inspect_tasks(spec: ArcSpec) -> ArcData:
    """The same, with all faults in the result instead of an error for the first."""
    contents = open_contents(spec)
    parsed = [parse_entry(entry, spec.flat, spec.need_demos) for entry in contents.entries]
    made = [task for tasks, _ in parsed for task in tasks]
    twice = {name for name, count in Counter(task.id for task in made).items() if count > 1}
    faults = [*contents.faults, *(fault for _, found in parsed for fault in found), *_twice(contents, twice)]
    tasks = tuple(sorted((task for task in made if task.id not in twice), key=lambda task: task.id))
    if not tasks and not faults:
        faults = [Fault(file=str(contents.path), problem="it holds no tasks")]
    known = fingerprint(tasks)
    return ArcData(
        name=_name(spec.dataset),
        path=contents.path,
        layout=contents.layout,
        tasks=tasks,
        faults=tuple(faults),
        fingerprint=known,
        sha256=contents.sha256,
        release=match_of(spec.dataset, len(tasks), sum(len(task.tests) for task in tasks), known),
    )


def open_contents(spec: ArcSpec) -> Contents:
    """The unchecked JSON of a data set. Raises DataError if it is not found or holds nothing like tasks."""
    return read_contents(find_or_fetch(spec.dataset, spec.data_dir), difficulties=spec.flat.drop_easiest > 0)


def warnings(data: ArcData) -> tuple[str, ...]:
    """What looks wrong with a data set that can be read: a name whose known releases have other counts or other tasks."""
    known = ARC_DATASETS.get(data.name)
    if known is None or data.faults or (data.release is not None and data.release.dataset == data.name and data.release.same is not False):
        return ()
    if data.release is not None and data.release.dataset == data.name:
        return (f"the tasks differ from those of {known.name}, release {data.release.release.name}, though the counts are the same",)
    counts = " or ".join(f"{release.tasks} tasks and {release.outputs} test outputs" for release in known.releases)
    looks = f"; it looks like {data.release}" if data.release is not None else ""
    return (f"{known.name} should have {counts}, not {len(data.tasks)} and {data.outputs}{looks}",)


def _twice(contents: Contents, ids: set[str]) -> list[Fault]:
    """Ids that two tasks have only after files of pairs were made into tasks."""
    return [Fault(file=str(contents.path), task=name, problem="the id is there more than once") for name in sorted(ids)]


def _name(dataset: str) -> str:
    """A named data set's name, or the name of the file or folder."""
    if dataset in ARC_DATASETS:
        return dataset
    name = Path(dataset).expanduser().resolve().name
    return name.removesuffix(".gz").removesuffix(".json").removesuffix("_challenges") or "arc"
