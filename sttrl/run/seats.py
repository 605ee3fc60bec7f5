"""Assigns questions to lanes. A lane takes a fixed number of questions at once, its seats; a lane that dies gives its questions back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from sttrl.engine.base import Engine
from sttrl.engine.uncancelled import uncancelled
from sttrl.errors import EngineError, LaneLostError, OutOfMemoryError


class Seats:
    """The seats on the lanes of a run, ``each`` on every lane. A question takes a seat on the live lane with the fewest questions."""

    def __init__(self, engines: Sequence[Engine], each: int) -> None:
        self.engines, self.each = tuple(engines), each
        self.taken = dict.fromkeys(range(len(engines)), 0)
        self.changed = asyncio.Condition()

    @property
    def count(self) -> int:
        """The number of seats on all lanes."""
        return self.each * len(self.engines)

    @asynccontextmanager
    async def take(self) -> AsyncIterator[Engine]:
        """Wait for a free seat, and take the lane that it is on.

        Raises `LaneLostError` if the lane dies and others live, and the lane's own `EngineError` if it was the last.
        """
        async with self.changed:
            await self.changed.wait_for(lambda: not self.taken or min(self.taken.values()) < self.each)
            lane = self._idlest()
            self.taken[lane] += 1
        try:
            async with self._on(lane) as engine:
                yield engine
        finally:
            async with self.changed:
                if lane in self.taken:
                    self.taken[lane] -= 1
                self.changed.notify_all()

    @asynccontextmanager
    async def beside(self) -> AsyncIterator[Engine]:
        """The live lane with the fewest questions, for sampling that takes no seat. Raises what `take` raises."""
        async with self._on(self._idlest()) as engine:
            yield engine

    def _idlest(self) -> int:
        if not self.taken:
            raise EngineError("No lane is left.", "Run the same command again: finished questions are kept.")
        return min(self.taken, key=lambda lane: self.taken[lane])

    @asynccontextmanager
    async def _on(self, lane: int) -> AsyncIterator[Engine]:
        """A lane, which is closed if it dies."""
        try:
            yield self.engines[lane]
        except EngineError as error:
            if isinstance(error, OutOfMemoryError):
                raise
            await self._lose(lane)
            if not self.taken:
                raise
            raise LaneLostError(f"Lane {lane + 1} of {len(self.engines)} is lost: {error.message}") from error

    def check(self, lane: Engine) -> None:
        """Raises `EngineError` if the lane is lost, so that it is not used again."""
        if not any(self.engines[number] is lane for number in self.taken):
            raise EngineError("The lane is lost.", "Run the same command again: finished questions are kept.")

    async def _lose(self, lane: int) -> None:
        """Close a lane and remove its seats."""
        if self.taken.pop(lane, None) is not None:
            with contextlib.suppress(Exception):  # the lane is broken already; its error is reported
                await uncancelled(self.engines[lane].close())
