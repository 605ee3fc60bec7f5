"""What ``python main.py data D`` prints of a data set of ARC tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from rich.console import Console

from sttrl.arc.files import Fault, first_of
from sttrl.arc.grids import COLOURS, Grid, shape
from sttrl.arc.labels import Labels, inspect_labels
from sttrl.arc.layouts import LAYOUTS
from sttrl.arc.pictures import COLOUR_NAMES, shown, task_lines
from sttrl.arc.sources import ArcData, ArcSpec, inspect_tasks, warnings
from sttrl.arc.tasks import Task
from sttrl.errors import DataError

_WIDTH = 100


@dataclass(frozen=True, kw_only=True)
class Check:
    """The text to print, and the faults that it lists, of tasks and of solutions."""

    text: str
    faults: tuple[Fault, ...]

    def complain(self) -> None:
        """Raises DataError if there are faults."""
        if self.faults:
            number = "1 fault" if len(self.faults) == 1 else f"{len(self.faults)} faults"
            raise DataError(f"The data set has {number}, listed above.", "Correct the files.")


def check(spec: ArcSpec, console: Console | None = None) -> Check:
    """Read a data set and its solutions, and describe them. ``console``: where the text is to be shown; with colours if it has any.

    Solutions are never shown. Raises DataError if the data set is not found, or if all of it is one fault.
    """
    data = inspect_tasks(spec)
    if not data.tasks and len(data.faults) == 1:
        raise first_of(data.faults, spec.dataset, spec.data_dir)
    labels = inspect_labels(spec)
    colours = console is not None and console.color_system is not None and not console.no_color
    text = describe(data, labels, width=_WIDTH if console is None else console.width, colours=colours)
    return Check(text=text, faults=(*data.faults, *labels.faults))


def describe(data: ArcData, labels: Labels, *, width: int = _WIDTH, colours: bool = False) -> str:
    """Return the source of a data set, what was read, what is wrong, and pictures of its first task. ``width``: of the screen."""
    grids = [grid for task in data.tasks for grid in _grids(task)]
    lines = [
        ("data set", data.name),
        ("source", str(data.path)),
        ("layout", LAYOUTS[data.layout]),
        ("release", str(data.release) if data.release is not None else "none that is known"),
        ("tasks", str(len(data.tasks))),
        ("demos", _counts([len(task.demos) for task in data.tasks])),
        ("tests", _counts([len(task.tests) for task in data.tasks])),
        ("grids", _sizes(grids)),
        ("colours", _colours(grids)),
        ("solutions", _solutions(labels)),
        ("fingerprint", f"{data.fingerprint} (of the tasks, without solutions)"),
        ("files", f"sha256 {data.sha256}"),
        *(("warning", warning) for warning in warnings(data)),
        ("faults", _faults((*data.faults, *labels.faults))),
    ]
    said = "\n".join(f"{name:<11} {text}" for name, text in lines)
    return said if not data.tasks else f"{said}\n{'example':<11} {_example(data.tasks[0], width, colours)}"


def _grids(task: Task) -> list[Grid]:
    return [*(grid for pair in task.demos for grid in (pair.input, pair.output)), *task.tests]


def _counts(numbers: Sequence[int]) -> str:
    """A total, and how it is spread over the tasks."""
    if not numbers:
        return "none"
    least, most = min(numbers), max(numbers)
    return f"{sum(numbers)}, {least if least == most else f'{least} to {most}'} a task"


def _sizes(grids: Sequence[Grid]) -> str:
    if not grids:
        return "none"
    rows, columns = zip(*map(shape, grids), strict=True)
    sides = (
        f"{min(rows)} to {max(rows)} rows (median {median(rows):g}), {min(columns)} to {max(columns)} columns (median {median(columns):g})"
    )
    return f"{len(grids)} without solutions; {sides}"


def _colours(grids: Sequence[Grid]) -> str:
    """The share of cells that each colour has."""
    cells = Counter(cell for grid in grids for row in grid for cell in row)
    total = max(1, cells.total())
    return ", ".join(f"{colour} {COLOUR_NAMES[colour]} {cells[colour] / total:.1%}" for colour in range(COLOURS) if cells[colour]) or "none"


def _solutions(labels: Labels) -> str:
    total = len(labels.solutions)
    if labels.source is None:
        return f"none: {labels.missing}; a run works, and nothing can be scored"
    return f"{labels.known} of {total} tasks have one, in {labels.source}"


def _faults(faults: Sequence[Fault]) -> str:
    if not faults:
        return "none"
    return f"{len(faults)} (a run stops at those of tasks, and scoring at those of solutions)\n" + "\n".join(
        f"  {fault}" for fault in faults
    )


def _example(task: Task, width: int, colours: bool) -> str:
    return f"({task.id}) solutions are not shown\n{shown(task_lines(task, width), colours)}"
