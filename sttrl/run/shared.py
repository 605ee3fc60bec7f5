"""Lanes that many attempts use at the same time, as in a session: they are started when needed, and started again when they have died."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sttrl.engine.base import Engine, EngineSettings
from sttrl.engine.uncancelled import uncancelled
from sttrl.run.plan import EngineParts
from sttrl.run.seats import Seats
from sttrl.run.workshop import end, started

StartLanes = Callable[[EngineSettings, Any, Path, Callable[[str], None]], Awaitable[list[Any]]]
"""(settings, tokenizer, folder for logs, say) -> the started lanes of an engine; see `sttrl.run.workshop.started`."""


class SharedLanes:
    """The lanes of a session. ``each``: the seats on every lane. ``logs``: the folder for what the lanes' processes write. ``start``:
    starts the lanes.

    One engine serves all visits whose settings it covers. A visit that needs another engine waits until the others have ended.
    """

    def __init__(self, say: Callable[[str], None], each: int, logs: Path, start: StartLanes = started) -> None:
        self.say, self.each, self.logs, self.start = say, each, logs, start
        self.lanes: list[Any] = []
        self.taken: Seats | None = None
        self.visits = 0
        self.starts = 0
        self.turn = asyncio.Condition()

    @property
    def settings(self) -> EngineSettings | None:
        """The settings of the engine that runs; None: there is none."""
        settings: EngineSettings | None = self.lanes[0].settings if self.lanes else None
        return settings

    @property
    def alive(self) -> bool:
        """Whether a lane lives."""
        return self.taken is not None and bool(self.taken.taken)

    @property
    def forks(self) -> int:
        """How many forks the learners hold."""
        return sum(len(lane.forks) for lane in self.lanes)

    def covers(self, settings: EngineSettings) -> bool:
        """Whether the engine that runs serves these settings."""
        return self.alive and self.settings is not None and self.settings.serves(settings)

    async def take(self, parts: EngineParts) -> Seats:
        """The seats of an engine that serves ``parts``. The caller must `leave` afterwards. Raises `EngineError`."""
        async with self.turn:
            await self.turn.wait_for(lambda: self.covers(parts.settings) or self.visits == 0)
            if not self.covers(parts.settings):
                await self._start(parts)
            self.visits += 1
            assert self.taken is not None
            return self.taken

    async def leave(self) -> None:
        """A visit ends."""
        async with self.turn:
            self.visits -= 1
            self.turn.notify_all()

    @asynccontextmanager
    async def lane(self, parts: EngineParts) -> AsyncIterator[Engine]:
        """A lane on which somebody samples without taking a seat: the live one with the fewest attempts."""
        seats = await self.take(parts)
        try:
            async with seats.beside() as lane:
                yield lane
        finally:
            await uncancelled(self.leave())

    async def close(self) -> None:
        """End the engine's processes."""
        lanes, self.lanes, self.taken = self.lanes, [], None
        await uncancelled(end(lanes))

    async def _start(self, parts: EngineParts) -> None:
        before, wanted = self.settings, parts.settings
        if before is not None and before.is_like(wanted):
            wanted = before.together(wanted)
        await self.close()
        self.starts += 1
        self.lanes = await self.start(wanted, parts.tokenizer, self.logs / f"engine_{self.starts}", self.say)
        self.taken = Seats(self.lanes, self.each)


class Visit:
    """The use of shared lanes by one attempt; see `sttrl.run.attempt.Lanes`."""

    def __init__(self, shared: SharedLanes) -> None:
        self.shared = shared
        self.taken: Seats | None = None

    async def __aenter__(self) -> Visit:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.taken is not None:
            await uncancelled(self.shared.leave())

    async def seats(self, parts: EngineParts, each: int, logs: Path) -> Seats:
        """See `sttrl.run.attempt.Lanes`. ``each`` and ``logs`` are the session's."""
        self.taken = await self.shared.take(parts)
        return self.taken

    async def failed(self) -> None:
        """See `sttrl.run.attempt.Lanes`. The other attempts go on."""

    @property
    def lost(self) -> bool:
        """Whether the engine of this attempt has died."""
        return self.taken is not None and not self.taken.taken
