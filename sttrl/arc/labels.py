"""Solutions: the labels of ARC tasks. Only the report, the scores and the check of a data set may import this module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sttrl.arc.files import Fault, Fields, FileContent, first_of, read_json
from sttrl.arc.flat import FlatPairs
from sttrl.arc.grids import Grid, as_grid
from sttrl.arc.layouts import Contents, Entry, solutions_files
from sttrl.arc.parsing import drawn, grid_faults
from sttrl.arc.sources import ArcSpec, open_contents

Solutions = Mapping[str, tuple[Grid, ...] | None]
"""The outputs of each task's test inputs, in their order; None: not known."""


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The solutions of a data set. ``solutions``: for every task of it; ``source``: where they were read, None if there are none.

    ``missing``: why no solution is known, None if one is. ``sha256``: of a separate solutions file.
    """

    solutions: Solutions = field(repr=False)
    source: str | None
    missing: str | None = None
    sha256: str | None = None
    faults: tuple[Fault, ...] = ()

    @property
    def known(self) -> int:
        """How many tasks have a solution."""
        return sum(grids is not None for grids in self.solutions.values())


def read_labels(spec: ArcSpec) -> Labels:
    """Read the solutions of a data set. No solutions are no error: `Labels.missing` says why.

    Raises DataError if the data set is not found, or if its solutions have a fault: the first one, and how many more.
    """
    labels = inspect_labels(spec)
    if labels.faults:
        raise first_of(labels.faults, spec.dataset, spec.data_dir)
    return labels


def inspect_labels(spec: ArcSpec) -> Labels:
    """The same, with all faults in the result instead of an error for the first."""
    contents = open_contents(spec)
    if contents.layout == "kaggle":
        file = next((path for path in solutions_files(contents.path) if path.is_file()), None)
        if file is not None:
            return _from_file(file, contents)
    return _from_tasks(contents, spec.flat)


def _from_file(file: Path, contents: Contents) -> Labels:
    """The solutions in a file beside the challenges."""
    content, entries = read_json(file), contents.entries
    unknown: Solutions = {entry.id: None for entry in entries}
    if not isinstance(content, FileContent):
        return Labels(solutions=unknown, source=str(file), faults=(content,))
    if not isinstance(content.value, Fields):
        fault = Fault(file=str(file), problem="it is not an object with a list of grids for each task")
        return Labels(solutions=unknown, source=str(file), sha256=content.sha256, faults=(fault,))
    solved = [_solved(file, entry, content.value) for entry in entries]
    known = {entry.id for entry in entries} | {fault.task for fault in contents.faults}
    faults = [Fault(file=str(file), task=name, problem="the id is in the file more than once") for name in content.value.repeated]
    faults += [fault for _, found in solved for fault in found]
    faults += [Fault(file=str(file), task=name, problem="the challenges have no such task") for name in content.value if name not in known]
    solutions = {entry.id: grids for entry, (grids, _) in zip(entries, solved, strict=True)}
    return Labels(solutions=solutions, source=str(file), sha256=content.sha256, faults=tuple(faults))


def _solved(file: Path, entry: Entry, fields: Fields) -> tuple[tuple[Grid, ...] | None, list[Fault]]:
    """The solution of one task in a solutions file."""
    here = Entry(id=entry.id, file=str(file), value=None)
    if entry.id in fields.repeated:
        return None, []
    if entry.id not in fields:
        return None, [here.fault("there is no solution")]
    grids = fields[entry.id]
    if not isinstance(grids, list):
        return None, [here.fault("the solution is not a list of grids")]
    asked = len(_tests(entry))
    if asked and len(grids) != asked:
        return None, [here.fault(f"it has {_counted(len(grids), 'output')}, and the task has {_counted(asked, 'test input')}")]
    return _checked(here, [(grid, f"output {number}") for number, grid in enumerate(grids, start=1)])


def _from_tasks(contents: Contents, rule: FlatPairs) -> Labels:
    """The outputs that task files have inside."""
    solutions: dict[str, tuple[Grid, ...] | None] = {}
    faults: list[Fault] = []
    for entry in contents.entries:
        found, wrong = _drawn_outputs(entry, rule) if entry.is_flat else _test_outputs(entry)
        solutions.update(found)
        faults += wrong
    if any(grids is not None for grids in solutions.values()) or faults:
        return Labels(solutions=solutions, source=str(contents.path), faults=tuple(faults))
    looked = f"there is no {solutions_files(contents.path)[0]}, and " if contents.layout == "kaggle" else ""
    return Labels(solutions=solutions, source=None, missing=f'{looked}no "test" of {contents.path} has outputs')


def _test_outputs(entry: Entry) -> tuple[Solutions, list[Fault]]:
    """The outputs inside "test": of all inputs, or of none."""
    tests = [pair if isinstance(pair, Fields) else Fields() for pair in _tests(entry)]
    have = [pair.get("output") is not None for pair in tests]
    if not any(have):
        return {entry.id: None}, []
    if not all(have):
        place = f"test {have.index(False) + 1}"
        return {entry.id: None}, [entry.fault('there is no "output", and another test input of the task has one', place)]
    outputs = [(pair["output"], f"test {number}, output") for number, pair in enumerate(tests, start=1)]
    grids, faults = _checked(entry, outputs)
    return {entry.id: grids}, faults


def _drawn_outputs(entry: Entry, rule: FlatPairs) -> tuple[Solutions, list[Fault]]:
    """The outputs of the pairs that became test inputs."""
    draws = drawn(entry, rule)
    if isinstance(draws, Fault):
        return {}, []
    pairs = entry.value if isinstance(entry.value, list) else []
    solutions: dict[str, tuple[Grid, ...] | None] = {}
    faults: list[Fault] = []
    for draw in draws:
        pair = pairs[draw.test] if isinstance(pairs[draw.test], Fields) else {}
        if pair.get("output") is None:
            solutions[draw.id] = None
            continue
        solutions[draw.id], wrong = _checked(entry, [(pair["output"], f"pair {draw.test + 1}, output")])
        faults += wrong
    return solutions, faults


def _checked(entry: Entry, values: Sequence[tuple[object, str]]) -> tuple[tuple[Grid, ...] | None, list[Fault]]:
    """Grids of values and their places; None if one of them has a fault."""
    faults = [fault for value, place in values for fault in grid_faults(entry, value, place)]
    return (None if faults else tuple(as_grid(value) for value, _ in values if isinstance(value, list))), faults


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _tests(entry: Entry) -> list[object]:
    tests = entry.value.get("test") if isinstance(entry.value, Fields) else None
    return tests if isinstance(tests, list) else []
