"""Makes tasks of a file's JSON, without the outputs of test inputs, and says what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence

from sttrl.arc.files import Fault, Fields
from sttrl.arc.flat import Draw, FlatPairs, draw_tasks
from sttrl.arc.grids import Grid, as_grid, fault_of
from sttrl.arc.layouts import Entry
from sttrl.arc.tasks import Pair, Task
from sttrl.data.ids import id_text


def parse_entry(entry: Entry, rule: FlatPairs, need_demos: bool) -> tuple[tuple[Task, ...], tuple[Fault, ...]]:
    """The tasks of an entry and its faults; a task with a fault is left out. ``need_demos``: a task without demonstrations is a fault."""
    if id_text(entry.id) is None:
        return (), (entry.fault("the id is empty, too long or not printable"),)
    if isinstance(entry.value, list):
        return _flat_tasks(entry, entry.value, rule)
    task, faults = _task(entry, need_demos)
    return (() if task is None else (task,)), faults


def drawn(entry: Entry, rule: FlatPairs) -> tuple[Draw, ...] | Fault:
    """The tasks to make of an entry of flat pairs, or why there are too few pairs."""
    pairs = entry.value if isinstance(entry.value, list) else []
    try:
        return draw_tasks(rule, entry.id, len(pairs), entry.difficulties)
    except ValueError as error:
        return entry.fault(str(error))


def grid_faults(entry: Entry, value: object, place: str, task: str | None = None) -> list[Fault]:
    """What is wrong with a value that should be a grid: nothing, or one fault."""
    problem = fault_of(value)
    return [] if problem is None else [entry.fault(problem, place, task)]


def _task(entry: Entry, need_demos: bool) -> tuple[Task | None, tuple[Fault, ...]]:
    fields = entry.value
    if not isinstance(fields, Fields):
        return None, (entry.fault('it is not an object with "train" and "test"'),)
    faults = [entry.fault(f'the key "{key}" is there more than once') for key in fields.repeated]
    train, test = fields.get("train"), fields.get("test")
    for key, value, missing in (("train", train, need_demos), ("test", test, True)):
        if value is None and key not in fields:
            faults.append(entry.fault(f'there is no "{key}"'))
        elif not isinstance(value, list):
            faults.append(entry.fault(f'"{key}" is not a list'))
        elif not value and missing:
            faults.append(entry.fault("there are no demonstrations" if key == "train" else "there are no test inputs"))
    train, test = train if isinstance(train, list) else [], test if isinstance(test, list) else []
    for number, pair in enumerate(train, start=1):
        faults += _pair_faults(entry, pair, f"demonstration {number}", ("input", "output"))
    for number, pair in enumerate(test, start=1):
        faults += _pair_faults(entry, pair, f"test {number}", ("input",))
    if faults:
        return None, tuple(faults)
    return Task(id=entry.id, demos=tuple(map(_pair, train)), tests=tuple(_grid(pair, "input") for pair in test)), ()


def _pair_faults(entry: Entry, pair: object, place: str, keys: Sequence[str], task: str | None = None) -> list[Fault]:
    if not isinstance(pair, Fields):
        return [entry.fault("it is not an object with " + " and ".join(f'"{key}"' for key in keys), place, task)]
    if pair.repeated:
        return [entry.fault(f'the key "{key}" is there more than once', place, task) for key in pair.repeated]
    missing = [entry.fault(f'there is no "{key}"', place, task) for key in keys if key not in pair]
    return missing + [fault for key in keys if key in pair for fault in grid_faults(entry, pair[key], f"{place}, {key}", task)]


def _flat_tasks(entry: Entry, pairs: list[object], rule: FlatPairs) -> tuple[tuple[Task, ...], tuple[Fault, ...]]:
    """Only the pairs that are used are checked."""
    draws = drawn(entry, rule)
    if isinstance(draws, Fault):
        return (), (draws,)
    demos = {place for draw in draws for place in draw.demos}
    used = sorted(demos | {draw.test for draw in draws})
    faults = [
        fault
        for place in used
        for fault in _pair_faults(entry, pairs[place], f"pair {place + 1}", ("input", "output") if place in demos else ("input",))
    ]
    if faults:
        return (), tuple(faults)
    return tuple(
        Task(id=draw.id, demos=tuple(_pair(pairs[place]) for place in draw.demos), tests=(_grid(pairs[draw.test], "input"),))
        for draw in draws
    ), ()


def _pair(pair: object) -> Pair:
    return Pair(input=_grid(pair, "input"), output=_grid(pair, "output"))


def _grid(pair: object, key: str) -> Grid:
    value = pair[key] if isinstance(pair, Fields) else None
    assert isinstance(value, list)
    return as_grid(value)
