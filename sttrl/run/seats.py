"""Who works on which lane: each lane takes so many questions at once, and one that dies gives its questions back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from sttrl.engine.base import Engine
from sttrl.errors import EngineError, LaneLostError, OutOfMemoryError


class Seats:
    """Seats on the lanes of a run, ``each`` on every one. A question takes a seat on the emptiest lane that lives."""

    def __init__(self, engines: Sequence[Engine], each: int) -> None:
        self.engines, self.each = tuple(engines), each
        self.taken = dict.fromkeys(range(len(engines)), 0)
        self.changed = asyncio.Condition()

    @property
    def count(self) -> int:
        """Seats on all lanes."""
        return self.each * len(self.engines)

    @asynccontextmanager
    async def take(self) -> AsyncIterator[Engine]:
        """A lane to work on, as soon as one has a free seat.

        Raises `LaneLostError` where the lane dies and others live, and the lane's own `EngineError` where it was the last.
        """
        async with self.changed:
            await self.changed.wait_for(lambda: not self.taken or min(self.taken.values()) < self.each)
            if not self.taken:
                raise EngineError("No lane is left.", "Run the same command again: finished questions are kept.")
            lane = min(self.taken, key=lambda lane: self.taken[lane])
            self.taken[lane] += 1
        try:
            yield self.engines[lane]
        except EngineError as error:
            if isinstance(error, OutOfMemoryError):
                raise
            await self._lose(lane)
            if not self.taken:
                raise
            raise LaneLostError(f"Lane {lane + 1} of {len(self.engines)} is lost: {error.message}") from error
        finally:
            async with self.changed:
                if lane in self.taken:
                    self.taken[lane] -= 1
                self.changed.notify_all()

    def check(self, lane: Engine) -> None:
        """Raises `EngineError` for a lane that is lost: it is asked for nothing more."""
        if not any(self.engines[number] is lane for number in self.taken):
            raise EngineError("The lane is lost.", "Run the same command again: finished questions are kept.")

    async def _lose(self, lane: int) -> None:
        """End what is left of a lane; nobody sits down there any more."""
        if self.taken.pop(lane, None) is not None:
            with contextlib.suppress(Exception):  # it is broken already; what counts are the questions
                await self.engines[lane].close()
