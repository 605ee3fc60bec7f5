"""Puzzles to train on a task at test time: its demonstrations under views, with one held out, or all of them. No answer is a test's."""

from __future__ import annotations

from collections.abc import Iterable

from sttrl.arc.tasks import Puzzle, Task
from sttrl.arc.views.key import View


def held_out(task: Task, views: Iterable[View]) -> tuple[Puzzle, ...]:
    """Under each view, each demonstration that it shows is once the query of the others, with its answer."""
    return tuple(puzzle for view in views for puzzle in _each_held_out(task, view))


def _each_held_out(task: Task, view: View) -> tuple[Puzzle, ...]:
    shown = tuple(zip(view.order(len(task.demos)), view.on(Puzzle(demos=task.demos, query=None)).demos, strict=True))
    return tuple(
        Puzzle(demos=tuple(pair for other, pair in shown if other != number), query=query.input, answer=query.output)
        for number, query in shown
    )


def all_demos(task: Task, views: Iterable[View]) -> tuple[Puzzle, ...]:
    """All demonstrations under each view, and no query: the loss is on every output but the first.

    A task with one demonstration gives none, as its only output is the first.
    """
    if len(task.demos) < 2:
        return ()
    return tuple(view.on(Puzzle(demos=task.demos, query=None)) for view in views)
