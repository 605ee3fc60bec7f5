"""Work that goes on when who waits for it is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def uncancelled(work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work``. If the caller is cancelled, the work is done first, and then the caller is cancelled.

    So what is half done is never left behind: a fork that is being closed, or a folder that is being written.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError:  # once more: the work is still done first
                continue
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, Exception):
            raise error from None
        raise
