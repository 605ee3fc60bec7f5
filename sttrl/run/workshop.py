"""Keeps the engine's lanes and their event loop, for one run or for several runs in turn."""

from __future__ import annotations

import asyncio
import functools
import signal
from collections.abc import Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any

from sttrl.engine.base import EngineSettings
from sttrl.run.plan import EngineParts
from sttrl.run.seats import Seats


class Workshop:
    """The engine's lanes and their event loop. Several runs in turn use the same lanes if their settings allow it.

    ``needs``: the settings of all planned runs, so that the lanes are made large enough for all of them.
    """

    def __init__(self, say: Callable[[str], None], needs: Sequence[EngineSettings] = ()) -> None:
        self.say, self.needs, self.loop = say, list(needs), asyncio.Runner()
        self.lanes: list[Any] = []
        self.work: asyncio.Task[Any] | None = None
        self.terminated = False

    def __enter__(self) -> Workshop:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.do(self.close())
        finally:
            self.loop.close()

    def do(self, work: Coroutine[Any, Any, None]) -> None:
        """Run ``work`` to its end. SIGTERM, with which batch systems interrupt, raises KeyboardInterrupt too."""
        try:
            self.loop.run(work)
        except asyncio.CancelledError:
            if self.terminated:
                raise KeyboardInterrupt from None
            raise

    async def seats(self, parts: EngineParts, each: int, logs: Path) -> Seats:
        """See `sttrl.run.attempt.Lanes`."""
        return Seats(await self.ready(parts, logs), each)

    async def failed(self) -> None:
        """See `sttrl.run.attempt.Lanes`."""
        await self.close()

    async def ready(self, parts: EngineParts, log_folder: Path) -> list[Any]:
        """Lanes for ``parts``: the running ones if they suffice, else new ones that suffice for all similar planned runs."""
        if self.lanes and self.lanes[0].settings.covers(parts.settings):
            for lane in self.lanes:
                lane.log_to(log_folder)
        else:
            await self.close()
            alike = [need for need in self.needs if need.is_like(parts.settings)]
            settings = functools.reduce(EngineSettings.together, alike, parts.settings)
            self.lanes = lanes_of(settings, parts.tokenizer, log_folder, self.say)
            await all_started(lane.start() for lane in self.lanes)
        self._heed_sigterm()
        return self.lanes

    def _heed_sigterm(self) -> None:
        """Let SIGTERM cancel the current work, as Ctrl-C does. This replaces Ray's handler, which prints a stack and ends the program."""
        self.work = asyncio.current_task()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._terminate)
        if self.terminated:  # between two runs
            self._terminate()

    def _terminate(self) -> None:
        assert self.work is not None, "only work can ask for lanes"
        self.terminated = True
        self.work.cancel()

    async def close(self) -> None:
        """End the engine's processes."""
        lanes, self.lanes = self.lanes, []
        await end(lanes)


def lanes_of(settings: EngineSettings, tokenizer: Any, logs: Path, say: Callable[[str], None]) -> list[Any]:
    """The lanes of an engine, not started. ``say`` gets a line that says what is being started."""
    # Imported late: it imports Ray, which a finished or impossible run does not need.
    from sttrl.engine.lanes import RayEngine

    say(start_line(settings))
    return [RayEngine(settings, tokenizer, logs, say) for _ in range(settings.lanes)]


async def started(settings: EngineSettings, tokenizer: Any, logs: Path, say: Callable[[str], None]) -> list[Any]:
    """The started lanes of an engine. If one does not start, all are closed. Raises `EngineError`."""
    lanes = lanes_of(settings, tokenizer, logs, say)
    try:
        await all_started(lane.start() for lane in lanes)
    except BaseException:
        await end(lanes)
        raise
    return lanes


async def end(lanes: Sequence[Any]) -> None:
    """End the processes of lanes."""
    for lane in lanes:
        await lane.close()


def start_line(settings: EngineSettings) -> str:
    """A line that says what is being started."""
    learner = "; the learner loads beside it" if settings.trains and settings.samples else ""
    lanes = f"{settings.lanes} lanes of " if settings.lanes > 1 else ""
    merged = settings.adapter if settings.device == "cuda" and not settings.samples_adapters else None
    trained = " and ".join(merged.ends) if merged else ""
    served = f"; the sampler holds one policy at a time, its weights merged: vLLM serves no adapter that trains {trained}" if merged else ""
    parts = "Ray and vLLM" if settings.samples else "Ray and the learner"
    return f"starting {lanes}{parts} with {Path(settings.model_folder).name} in {settings.dtype} on {settings.device}{learner}{served}"


async def all_started(starts: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Wait until all are done. The first error cancels the others and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            for start in starts:
                group.create_task(start)
    except BaseExceptionGroup as several:
        raise (first := several.exceptions[0]) from first.__cause__
