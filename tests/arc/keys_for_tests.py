"""Views by key, for the codecs' tests only; sttrl.arc.views takes their place.

Spellings: ``tp rt perm0123456789 ex2-0-1`` (ARChitects) and ``transpose rot90 permute0123456789 ex201`` (Kaggle 2024, NVARC).
"""

from __future__ import annotations

import numpy as np

from sttrl.arc.grids import Grid, as_grid
from sttrl.arc.tasks import Pair, Puzzle


def split_key(key: str) -> tuple[str, int | None, list[str]]:
    """Task, test input (None: demonstrations only), and the steps."""
    name, *steps = key.split(".")
    task, _, test = name.partition("_")
    return task, int(test) if test else None, steps


def viewed(grid, steps: list[str]) -> Grid:
    """A grid in view space."""
    array = np.array(grid)
    for step in steps:
        array = _forward(array, step)
    return as_grid(array.tolist())


def unviewed(grid: Grid, steps: list[str]) -> Grid:
    """A grid back in task space."""
    array = np.array(grid)
    for step in reversed(steps):
        array = _inverse(array, step)
    return as_grid(array.tolist())


def order_of(steps: list[str], total: int) -> list[int]:
    """The demonstrations, in order."""
    for step in steps:
        if step.startswith("ex"):
            digits = step.removeprefix("ex")
            return [int(number) for number in (digits.split("-") if "-" in digits else digits)]
    return list(range(total))


def puzzle_of(tasks: dict, key: str, answer: bool = True) -> Puzzle:
    """The puzzle that a key names."""
    task, test, steps = split_key(key)
    task_data = tasks[task]
    pairs = [Pair(input=viewed(pair["input"], steps), output=viewed(pair["output"], steps)) for pair in task_data["train"]]
    demos = tuple(pairs[number] for number in order_of(steps, len(pairs)))
    if test is None:
        return Puzzle(demos=demos, query=None)
    solution = viewed(task_data["solutions"][test], steps) if answer and task_data.get("solutions") else None
    return Puzzle(demos=demos, query=viewed(task_data["test"][test]["input"], steps), answer=solution)


def _forward(array, step: str):
    if step in ("tp", "transpose"):
        return array.T
    if step in ("rt", "rot90"):
        return np.rot90(array)
    return _colours(step)[array] if step.startswith("perm") else array


def _inverse(array, step: str):
    if step in ("tp", "transpose"):
        return array.T
    if step in ("rt", "rot90"):
        return np.rot90(array, -1)
    return np.argsort(_colours(step))[array] if step.startswith("perm") else array


def _colours(step: str):
    return np.array([int(digit) for digit in step.removeprefix("permute").removeprefix("perm")])
