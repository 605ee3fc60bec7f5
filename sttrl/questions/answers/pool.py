"""Worker processes that can be killed. A request has a limit of CPU time; a worker serves one caller at a time; a dead one is replaced."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from sttrl.errors import EngineError
from sttrl.questions.answers import wire

_START_TIMEOUT_S: Final = 120.0
_STARTS: Final = 3
_REMEDY: Final = "Is math-verify installed (pip install 'math-verify[antlr4_9_3]'), and is there memory left?"
_ROOT: Final = Path(__file__).resolve().parents[3]

Loss = Literal["timeout", "error", "late"]
"""Why there is no verdict. ``timeout``: the CPU time was used up. ``error``: the process died or failed. ``late``: it did not reply in
time although it had CPU time left."""


class Lost(Exception):
    """A request got no verdict."""

    def __init__(self, reason: Loss) -> None:
        super().__init__(reason)
        self.reason: Loss = reason


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A worker's verdict (None for an examination), and the CPU seconds that it took."""

    equal: bool | None
    cpu_s: float


class Worker:
    """A worker process, which is replaced when it dies."""

    def __init__(self, memory_mib: int, backstop_s: float = 60.0) -> None:
        self._memory_mib, self._backstop_s = memory_mib, backstop_s
        self._closed = False
        self._lock = threading.Lock()
        self.kills = 0
        self._start()

    @property
    def pid(self) -> int:
        """The id of the current process."""
        return self._process.pid

    def ask(self, request: dict[str, Any], cpu_s: float) -> Reply:
        """The worker's verdict. Raises `Lost` if the request used ``cpu_s`` of CPU time, or if the process died, failed or did not reply.

        A process that dies, or does not reply within ``backstop_s``, is replaced, and the request is repeated once: another program may
        have killed the process or kept the processor busy.
        """
        reason: Loss = "error"
        for _ in range(2):
            try:
                return self._ask_once(request, cpu_s)
            except (OSError, EOFError):
                reason = "error"
            except wire.Silence:
                reason = "late"
            if self._replace() == -signal.SIGPROF:
                raise Lost("timeout")
        raise Lost(reason)

    def _ask_once(self, request: dict[str, Any], cpu_s: float) -> Reply:
        self.await_ready()
        wire.send(self._requests, request | {"cpu_s": cpu_s})
        reply = wire.receive(self._replies, self._backstop_s)
        if "error" in reply or reply["tired"]:
            self._replace()
        if "error" in reply:
            raise Lost("error")
        return Reply(equal=reply["equal"], cpu_s=reply["cpu_s"])

    def close(self) -> None:
        """Kill the process; a request under way is lost."""
        with self._lock:
            self._closed = True
            self._process.kill()
        self._process.wait()

    def release(self) -> None:
        """Close the pipes. Only the caller that the worker is lent to may do this."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe
            pipe.close()

    def _start(self) -> None:
        path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
        # -P: no module may be imported from the working directory. PYTHONHASHSEED: sympy's order of terms, and its verdicts, depend on it.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "sttrl.questions.answers.worker", str(self._memory_mib)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
            env=os.environ | {"PYTHONPATH": path, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"},
        )
        assert self._process.stdin and self._process.stdout
        self._requests, self._replies = self._process.stdin.fileno(), self._process.stdout.fileno()
        self._ready = False

    def await_ready(self) -> None:
        """Wait until the process has started, so that a request's time does not include the start. Raises `EngineError` if it cannot."""
        for _ in range(_STARTS):
            if self._closed:
                raise EngineError("The judge is closed.")
            if self._ready:
                return
            try:
                message = wire.receive(self._replies, _START_TIMEOUT_S)
            except (EOFError, OSError):
                self._replace()  # killed from outside while it started
                continue
            except wire.Silence:
                message = {"failed": f"it was not ready after {_START_TIMEOUT_S:.0f} s"}
            if "failed" in message:
                raise EngineError(f"A judge worker did not start: {message['failed']}.", _REMEDY)
            self._ready = True
        if not self._ready:
            raise EngineError(f"A judge worker died {_STARTS} times while it started.", _REMEDY)

    def _replace(self) -> int:
        """Start a new process, and return the exit code of the old one."""
        with self._lock:
            self._process.kill()
            code = self._process.wait()
            self.release()
            self.kills += 1
            if not self._closed:
                self._start()
            return code


class Pool:
    """A few workers, each lent to one caller at a time. It may be used from any thread."""

    def __init__(self, workers: int, memory_mib: int, backstop_s: float) -> None:
        self.workers = tuple(Worker(memory_mib, backstop_s) for _ in range(workers))
        self._idle: queue.LifoQueue[Worker] = queue.LifoQueue()
        for worker in self.workers:
            self._idle.put(worker)

    @contextmanager
    def worker(self) -> Iterator[Worker]:
        """Wait for an idle worker and borrow it."""
        worker = self._idle.get()
        try:
            yield worker
        finally:
            self._idle.put(worker)

    def close(self) -> None:
        """Kill every worker, wait until their callers have given them back, and close the pipes."""
        for worker in self.workers:
            worker.close()
        idle = [self._idle.get() for _ in self.workers]
        for worker in idle:
            worker.release()
            self._idle.put(worker)
