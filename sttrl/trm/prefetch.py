"""Batches that are prepared by a thread while the model computes."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
_END = object()


class _Reader(Generic[T]):
    """A thread that reads a source into a queue. An error of the source is raised where its item would come."""

    def __init__(self, source: Iterator[T], count: int) -> None:
        self.source = source
        self.ready: queue.Queue[object] = queue.Queue(maxsize=count)
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._work, name="batches", daemon=True)
        self.thread.start()

    def __iter__(self) -> Iterator[T]:
        while (item := self.ready.get()) is not _END:
            if isinstance(item, BaseException):
                raise item
            yield item  # type: ignore[misc]

    def stop(self) -> None:
        """End the thread, and wait for it."""
        self.stopped.set()
        self.thread.join()

    def _work(self) -> None:
        try:
            for item in self.source:
                if not self._put(item):
                    return
            self._put(_END)
        except Exception as error:  # noqa: BLE001 - raised again by the reader
            self._put(error)

    def _put(self, item: object) -> bool:
        while not self.stopped.is_set():
            with contextlib.suppress(queue.Full):
                self.ready.put(item, timeout=0.2)
                return True
        return False


@contextlib.contextmanager
def ahead(source: Iterator[T], count: int) -> Iterator[Iterator[T]]:
    """The same items, of which a thread prepares at most ``count`` ahead; 0: there is no thread."""
    if count == 0:
        yield source
        return
    reader = _Reader(source, count)
    try:
        yield iter(reader)
    finally:
        reader.stop()
