"""Batches that are prepared by a thread while the model computes."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator
from typing import TypeVar

T = TypeVar("T")


@contextlib.contextmanager
def ahead(source: Iterator[T], count: int) -> Iterator[Iterator[T]]:
    """The same items, of which a thread prepares at most ``count`` ahead; 0: none. An error of the source is raised where its item would come."""
    if count == 0:
        yield source
        return
    ready: queue.Queue[T | BaseException | None] = queue.Queue(maxsize=count)
    stopped = threading.Event()

    def put(item: T | BaseException | None) -> None:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(item, timeout=0.2)
                return

    def work() -> None:
        try:
            for item in source:
                put(item)
                if stopped.is_set():
                    return
            put(None)
        except Exception as error:  # noqa: BLE001 - raised again by the reader
            put(error)

    def taken() -> Iterator[T]:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    thread = threading.Thread(target=work, name="batches", daemon=True)
    thread.start()
    try:
        yield taken()
    finally:
        stopped.set()
        thread.join()
