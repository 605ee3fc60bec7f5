"""The seconds of a run, shared out among its tasks."""

from __future__ import annotations

import time

from sttrl.config import RunConfig


class TimeLeft:
    """Shares out the seconds of a run among the tasks that are left, and knows when a task has used its own."""

    def __init__(self, config: RunConfig, tasks: int) -> None:
        self.left, self.at_once = tasks, config.in_flight * config.run.lanes
        self.task_seconds = config.arc.task_time_limit
        self.end = None if config.arc.time_limit is None else time.monotonic() + config.arc.time_limit
        self.spans: dict[str, tuple[float, float]] = {}

    def is_up(self) -> bool:
        """Whether no task may be begun any more."""
        return self.end is not None and time.monotonic() >= self.end

    def out_of_time(self, task: str, fraction: float = 1.0) -> bool:
        """Whether a task has used this fraction of its seconds, which begin when this is asked first."""
        if self.end is None and self.task_seconds is None:
            return False
        now = time.monotonic()
        if task not in self.spans:
            self.spans[task] = (now, self._seconds(now))
        begun, seconds = self.spans[task]
        return now >= begun + fraction * seconds

    def _seconds(self, now: float) -> float:
        """The seconds of a task that begins now: its share of what is left, or the limit for every task where that is less."""
        share = [] if self.end is None else [max(0.0, self.end - now) * min(1.0, self.at_once / max(1, self.left))]
        return min([*share, *([] if self.task_seconds is None else [self.task_seconds])])

    def finished(self, tasks: int) -> None:
        """Some tasks are finished."""
        self.left -= tasks
