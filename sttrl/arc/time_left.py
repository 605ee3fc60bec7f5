"""The seconds of a run, shared out among its tasks."""

from __future__ import annotations

import time
from collections.abc import Callable

from sttrl.config import RunConfig


class TimeLeft:
    """Shares out the seconds of a run among the tasks that are left, and knows when a task has used its own.

    ``tasks``: how many the run has. ``now``: the clock, in seconds.
    """

    def __init__(self, config: RunConfig, tasks: int, now: Callable[[], float] = time.monotonic) -> None:
        self.tasks, self.at_once, self.now = tasks, config.in_flight * config.run.lanes, now
        self.together = config.trains_together
        self.run_seconds, self.task_seconds = config.arc.time_limit, config.arc.task_time_limit
        self.search_seconds = config.arc.search_time_limit
        self.start = now()
        self.spans: dict[str, tuple[float, float]] = {}
        self.done: set[str] = set()

    def is_up(self) -> bool:
        """Whether no task may be begun any more."""
        return self.out_of_time(None)

    def begin(self, task: str, stage: str) -> None:
        """A task is evaluated. Its seconds begin with the evaluation of the base, and again after a training on all tasks; also when
        the task is done again on another lane."""
        if task not in self.spans or stage == "base" or self.together:
            now = self.now()
            self.spans[task] = (now, self._seconds(now))

    def out_of_time(self, task: str | None, fraction: float = 1.0) -> bool:
        """Whether a task that was begun has used this fraction of its seconds; None: whether the run has."""
        if task is None:
            return self.run_seconds is not None and self.now() >= self.start + fraction * self.run_seconds
        begun, seconds = self.spans[task]
        return self.now() >= begun + fraction * seconds

    def search_ends(self, task: str, fraction: float) -> Callable[[], bool]:
        """Whether a search that begins now has to end: by its own limit, or because the task has used this fraction of its seconds."""
        end = float("inf") if self.search_seconds is None else self.now() + self.search_seconds
        return lambda: self.now() >= end or self.out_of_time(task, fraction)

    def finished(self, task: str) -> None:
        """A task is finished, in this attempt or in an earlier one."""
        self.done.add(task)

    def _seconds(self, now: float) -> float:
        """The seconds of a task that begins now: its share of what is left, or the limit for every task where that is less."""
        limits = [] if self.task_seconds is None else [self.task_seconds]
        if self.run_seconds is not None:
            left = max(1, self.tasks - len(self.done))
            limits.append(max(0.0, self.start + self.run_seconds - now) * min(1.0, self.at_once / left))
        return min(limits, default=float("inf"))
