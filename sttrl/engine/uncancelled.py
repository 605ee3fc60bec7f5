"""Work that goes on when who waits for it is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def uncancelled(work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work``. A caller that is cancelled meanwhile waits until the work is done, and is cancelled then.

    It is for work that must not be left half done, such as closing a fork or writing a folder.
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
