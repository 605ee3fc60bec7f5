"""Keys of problems: a task, one of its test inputs, and a view, as in ``27a28665_2.tp.rt.ex1-0``.

A run has views and no such keys: recorded keys of the originals are read and checked by this.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from sttrl.arc.grids import Grid
from sttrl.arc.tasks import Puzzle, Task
from sttrl.arc.views.key import Dialect, View
from sttrl.errors import DataError

TEST_NUMBER = re.compile(r"(.+)_([0-9]{1,9})", re.DOTALL)
"""A task id and the number of a test input."""


@dataclass(frozen=True, kw_only=True)
class ProblemKey:
    """A task, the number of a test input (from 0), and a view. ``test`` None: the demonstrations alone."""

    task: str
    test: int | None = None
    view: View = field(default_factory=View)

    @staticmethod
    def read(text: str, *, dialect: Dialect | None = None, ignore_unknown: bool = False) -> ProblemKey:
        """The problem of a key; ``dialect`` and ``ignore_unknown`` as for ``View.read``. Raises DataError for an unknown operation."""
        base, _, view = text.partition(".")
        numbered = TEST_NUMBER.fullmatch(base)
        return ProblemKey(
            task=numbered[1] if numbered else base,
            test=int(numbered[2]) if numbered else None,
            view=View.read(view, dialect=dialect, ignore_unknown=ignore_unknown),
        )

    @property
    def base(self) -> str:
        """The key without the view."""
        return self.task if self.test is None else f"{self.task}_{self.test}"

    @property
    def text(self) -> str:
        """The key in ARChitects' spelling."""
        return self.written("architects")

    def written(self, dialect: Dialect) -> str:
        """The key in a dialect.

        Raises DataError where reading it would give another task: the id has a dot, or ends like a test number.
        """
        if "." in self.task or (self.test is None and TEST_NUMBER.fullmatch(self.task)):
            raise DataError(
                f"the task id {self.task!r} cannot stand in a key.", "Use ids without '.', and without '_' and a number at their end."
            )
        view = self.view.written(dialect)
        return f"{self.base}.{view}" if view else self.base

    def seen(self, view: View) -> ProblemKey:
        """The same problem under one more view."""
        return ProblemKey(task=self.task, test=self.test, view=self.view.then(view))

    def puzzle(self, task: Task, answer: Grid | None = None) -> Puzzle:
        """What the key shows of its task. ``answer``: the test input's output, not yet in the view.

        Raises DataError for a test input or a demonstration that is not there.
        """
        if self.test is not None and self.test >= len(task.tests):
            raise DataError(
                f"the key {self.base!r} asks for test {self.test}, and the task has {len(task.tests)}.", "Tests are numbered from 0."
            )
        query = None if self.test is None else task.tests[self.test]
        return self.view.on(Puzzle(demos=task.demos, query=query, answer=answer))
