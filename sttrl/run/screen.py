"""Progress on standard error: lines, and on a terminal a live line at the bottom."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.text import Text

MOST_SHOWN = 4
"""How many of the problems in flight the live line names."""


@dataclass(frozen=True)
class State:
    """The progress of a run: ``done`` of ``total`` problems are finished, ``before`` of them by earlier attempts. ``doing``: the current
    activity of each problem in flight, by id."""

    done: int
    total: int
    before: int
    doing: Mapping[str, str] = field(default_factory=dict)


class Screen(AbstractContextManager["Screen"]):
    """Prints progress. ``say`` prints a line; ``show`` updates the live line of a terminal, and does nothing elsewhere."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
        self.live: Live | None = None
        self.started = time.monotonic()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.clear()

    def say(self, line: str) -> None:
        """Print a line."""
        if self.live is None:
            print(line, file=sys.stderr, flush=True)  # noqa: T201 - what users read
        else:
            self.live.console.print(Text(line))

    def show(self, state: State) -> None:
        """Update the live line."""
        if not self.console.is_terminal or self.console.is_dumb_terminal:
            return
        if self.live is None:
            self.started = time.monotonic()
            self.live = Live(console=self.console, transient=True, auto_refresh=False)
            self.live.start()
        self.live.update(Text(state_line(state, time.monotonic() - self.started), no_wrap=True, overflow="ellipsis"), refresh=True)

    def clear(self) -> None:
        """Remove the live line."""
        if self.live is not None:
            self.live.stop()
            self.live = None


def state_line(state: State, seconds: float) -> str:
    """The live line: problems done, the activity of those in flight, and an estimate of the time left.

    ``seconds``: since the first problem began.
    """
    shown = [f"{name}: {doing}" for name, doing in list(state.doing.items())[:MOST_SHOWN]]
    more = len(state.doing) - len(shown)
    parts = [f"{state.done}/{state.total} done", *shown, *([f"{more} more"] if more else [])]
    finished = state.done - state.before
    if finished and state.done < state.total:
        left = timedelta(seconds=round(seconds / finished * (state.total - state.done)))
        parts.append(f"about {left} left")
    return " | ".join(parts)
