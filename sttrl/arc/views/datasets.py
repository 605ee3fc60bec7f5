"""Operations on sets of keys and tasks: listing, grouping, splitting, sorting, and tasks drawn from generated examples (re-arc).

Source: ARChitects, "The LLM ARChitect" (2024) and arXiv:2505.07859 (Product of Experts). No run calls these functions: the recorded lists
and data sets of the originals are checked through them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from sttrl.arc.grids import Grid
from sttrl.arc.tasks import Pair, Puzzle, Task
from sttrl.arc.views.draws import Dice
from sttrl.arc.views.problem import ProblemKey
from sttrl.errors import DataError


def keys_of(tasks: Iterable[Task]) -> tuple[ProblemKey, ...]:
    """A key for every test input, sorted by text. A task without test inputs has one key, of its demonstrations alone."""
    found = [ProblemKey(task=task.id, test=test) for task in tasks for test in (range(len(task.tests)) if task.tests else (None,))]
    return tuple(sorted(found, key=lambda key: key.text))


def grouped(keys: Iterable[ProblemKey]) -> dict[str, tuple[tuple[ProblemKey, ...], ...]]:
    """The keys of each task, a tuple for each test input up to the last one with keys.

    Raises DataError for a key without a test input.
    """
    groups: dict[str, list[list[ProblemKey]]] = {}
    for key in keys:
        if key.test is None:
            raise DataError(f"the key {key.text!r} names no test input, so it belongs to no group.", "Write it as in 27a28665_0.")
        tests = groups.setdefault(key.task, [])
        tests.extend([] for _ in range(key.test + 1 - len(tests)))
        tests[key.test].append(key)
    return {task: tuple(map(tuple, tests)) for task, tests in groups.items()}


def split(ids: Iterable[str], parts: int, dice: Dice) -> tuple[tuple[str, ...], ...]:
    """Task ids in random parts of almost equal size, the larger ones first; each part sorted."""
    ordered = sorted(ids)
    return _cut([ordered[number] for number in dice.permutation(len(ordered))], parts)


def split_by_length(ids: Iterable[str], parts: int, length: Callable[[str], int]) -> tuple[tuple[str, ...], ...]:
    """Task ids in parts of almost equal size, the shortest tasks in the first part; each part sorted by id."""
    return _cut(sorted(sorted(ids), key=length), parts)


def _cut(ids: Sequence[str], parts: int) -> tuple[tuple[str, ...], ...]:
    size, larger = divmod(len(ids), parts)
    starts = [part * size + min(part, larger) for part in range(parts + 1)]
    return tuple(tuple(sorted(ids[start:end])) for start, end in zip(starts, starts[1:], strict=False))


def sorted_by_length(
    keys: Iterable[ProblemKey], length: Callable[[ProblemKey], int], longest_first: bool = False
) -> tuple[ProblemKey, ...]:
    """Keys by the length of their text; equal lengths stay in order."""
    return tuple(sorted(keys, key=length, reverse=longest_first))


def without_tests(task: Task) -> Task:
    """The task's demonstrations alone."""
    return Task(id=task.id, demos=task.demos, tests=())


def tests_as_demos(task: Task, solutions: Sequence[Grid]) -> Task:
    """A task of a training set whose test inputs, with their solutions, follow the demonstrations; no test inputs are left."""
    solved = tuple(Pair(input=query, output=output) for query, output in zip(task.tests, solutions, strict=True))
    return Task(id=task.id, demos=task.demos + solved, tests=())


@dataclass(frozen=True, kw_only=True)
class KeyedPuzzle:
    """A puzzle of a training set and its key."""

    key: ProblemKey
    puzzle: Puzzle


def hardest(examples: Sequence[Pair], difficulty: Sequence[float], drop: float) -> tuple[Pair, ...]:
    """The examples without the given part of the easiest ones, rounded down, hardest last. ``difficulty``: higher is harder."""
    order = sorted(range(len(examples)), key=lambda number: difficulty[number])
    return tuple(examples[number] for number in order[int(len(examples) * drop) :])


def generated(
    examples: Mapping[str, Sequence[Pair]], epochs: int, dice: Dice, demos: int = 6, source: str = "rearc"
) -> tuple[KeyedPuzzle, ...]:
    """Puzzles from generated examples of tasks: in every epoch one of each task, in random order. No example of a task is used twice.

    ``examples``: a task's examples, by its id. Keys are ``{source}-{id}{epoch, two hex digits}_0``. Raises DataError if a task has too few.
    """
    for task, pairs in examples.items():
        if len(pairs) < epochs * (demos + 1):
            needed = f"{epochs} epochs with {demos} demonstrations and a query need {epochs * (demos + 1)}"
            raise DataError(f"task {task!r} has {len(pairs)} examples, and {needed}.", "Take fewer epochs or demonstrations.")
    # Examples are taken from the end of a random order, as ARChitects does.
    drawn = {task: [examples[task][number] for number in reversed(dice.permutation(len(examples[task])))] for task in sorted(examples)}
    orders = [[sorted(examples)[number] for number in dice.permutation(len(examples))] for _ in range(epochs)]
    size = demos + 1
    return tuple(
        KeyedPuzzle(
            key=ProblemKey(task=f"{source}-{task}{epoch:02x}", test=0), puzzle=_puzzle(drawn[task][epoch * size : (epoch + 1) * size])
        )
        for epoch, tasks in enumerate(orders)
        for task in tasks
    )


def _puzzle(pairs: Sequence[Pair]) -> Puzzle:
    *demos, last = pairs
    return Puzzle(demos=tuple(demos), query=last.input, answer=last.output)
