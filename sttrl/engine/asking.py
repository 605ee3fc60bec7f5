"""Calls to other processes, named by the method itself, so that a reader and mypy can follow them to where they run."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from sttrl.engine.failures import one_line, short_of_memory
from sttrl.engine.uncancelled import uncancelled
from sttrl.errors import LONGEST_TEXT, EngineError, OutOfMemoryError, StepError, SttrlError, disk_fault

A = TypeVar("A")
P = ParamSpec("P")
T = TypeVar("T")
LONGEST_END_S = 5.0


class Actor(Generic[A]):
    """A Ray actor of class ``A``; ``who`` names it in errors."""

    def __init__(self, handle: Any, who: str) -> None:
        self.handle, self.who = handle, who

    async def call(self, method: Callable[Concatenate[A, P], Awaitable[T]], *arguments: P.args, **named: P.kwargs) -> T:
        """What an async method of the actor returns. Raises what `answer` raises. If the caller is cancelled, so is the method."""
        request = getattr(self.handle, method.__name__).remote(*arguments, **named)
        try:
            found: T = await answer(request, self.who)
        except asyncio.CancelledError:
            ray.cancel(request)
            await uncancelled(_ended(request))  # what the call reads and writes may be removed after that
            raise
        return found

    async def ask(self, method: Callable[Concatenate[A, P], T], *arguments: P.args, **named: P.kwargs) -> T:
        """The same for a method that is not async."""
        found: T = await answer(getattr(self.handle, method.__name__).remote(*arguments, **named), self.who)
        return found


async def _ended(request: Awaitable[object]) -> None:
    """Wait until a remote call has ended, however it ended, but not long: it may be one that cannot be cancelled."""
    with contextlib.suppress(RayError, TimeoutError):
        await asyncio.wait_for(_result(request), LONGEST_END_S)


async def _result(request: Awaitable[T]) -> T:
    return await request


async def answer(request: Awaitable[T], who: str) -> T:
    """Await a remote call; errors come back as the project's own, without Ray's wrapping, and a disk's fault as an OSError."""
    try:
        return await request
    except RayTaskError as error:
        if isinstance(error.cause, SttrlError):
            raise error.cause from None
        if short_of_memory(error.cause):
            raise OutOfMemoryError(f"The {who} ran out of memory.", "Use fewer or shorter samples, or a smaller model.") from error
        if (fault := disk_fault(error.cause)) is not None:
            raise OSError(fault.errno, fault.strerror, fault.filename) from error
        raise StepError(f"The {who} failed: {one_line(error.cause)}.") from error
    except RayActorError as error:
        raise EngineError(f"The {who} died: {last_line(error)}", "Run the same command again: finished questions are kept.") from error


def last_line(error: BaseException) -> str:
    """The last line of an error's text, where Ray puts the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:LONGEST_TEXT] if lines else type(error).__name__
