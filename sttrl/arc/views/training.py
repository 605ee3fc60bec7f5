"""Rows to train on a task at test time: its demonstrations under views, with one held out, or all of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sttrl.arc.tasks import Puzzle, Task
from sttrl.arc.views.key import View


@dataclass(frozen=True, kw_only=True)
class TrainingRow:
    """A puzzle to train on. ``puzzle`` is in the view already; no answer in it comes from a test.

    ``held_out``: the number in the task of the demonstration that is the query. None: all demonstrations are shown and there is no query.
    """

    view: View
    puzzle: Puzzle
    held_out: int | None = None


def held_out(task: Task, views: Iterable[View]) -> tuple[TrainingRow, ...]:
    """Rows for held-out demonstrations: under each view, each demonstration that it shows is once the query, with its answer."""
    return tuple(row for view in views for row in _each_held_out(task, view))


def _each_held_out(task: Task, view: View) -> tuple[TrainingRow, ...]:
    shown = tuple(zip(view.order(len(task.demos)), view.on(Puzzle(demos=task.demos, query=None)).demos, strict=True))
    return tuple(
        TrainingRow(
            view=view,
            puzzle=Puzzle(demos=tuple(pair for other, pair in shown if other != number), query=query.input, answer=query.output),
            held_out=number,
        )
        for number, query in shown
    )


def all_demos(task: Task, views: Iterable[View]) -> tuple[TrainingRow, ...]:
    """Rows that show all demonstrations of each view and ask for nothing: the loss is on every output but the first.

    A task with one demonstration gives no rows, as its only output is the first.
    """
    if len(task.demos) < 2:
        return ()
    return tuple(TrainingRow(view=view, puzzle=view.on(Puzzle(demos=task.demos, query=None))) for view in views)
