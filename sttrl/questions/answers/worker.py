"""The judge's worker process: ``python -m sttrl.questions.answers.worker`` answers requests on its pipes until they close.

It may be killed at any time. The kernel ends it with SIGPROF when a request has used its CPU time, however busy the machine is. When its
parent closes the pipe or dies, it ends: at once if it is idle, else at the end of the request.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any, Final

from sttrl.questions.answers import wire

_TIRED_MIB: Final = 256


def main() -> None:
    """Say that the worker is ready (or why it cannot start), then answer requests."""
    requests, replies = _private_pipes()
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        from sttrl.questions.answers.symbolic import Algebra  # imported here, so that a failure can be reported
    except ImportError as error:
        wire.send(replies, {"failed": str(error)})
        return
    algebra = Algebra()
    algebra.warm_up()
    memory_mib = int(sys.argv[1])
    _limit_memory(memory_mib)
    wire.send(replies, {"ready": os.getpid()})
    try:
        _serve(algebra, requests, replies, memory_mib)
    except (EOFError, BrokenPipeError):
        return


def _serve(algebra: Any, requests: int, replies: int, memory_mib: int) -> None:
    start_mib = _peak_mib()
    while True:
        request = wire.receive(requests)
        start_s = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, request["cpu_s"])
        reply = _answer(algebra, request)
        grown_mib = _peak_mib() - start_mib
        if grown_mib > 0.8 * memory_mib:
            reply = {"error": "memory"}
        signal.setitimer(signal.ITIMER_PROF, 0)
        wire.send(replies, reply | {"tired": grown_mib > _TIRED_MIB, "cpu_s": time.process_time() - start_s})


def _answer(algebra: Any, request: dict[str, Any]) -> dict[str, Any]:
    try:
        if request["do"] == "examine":
            algebra.examine(request["a"])
            return {"equal": None}
        return {"equal": algebra.equal(request["a"], request["b"])}
    except Exception as error:  # sympy may raise any error; the reply reports it
        return {"error": type(error).__name__}


def _private_pipes() -> tuple[int, int]:
    """Move the pipes away from stdin and stdout, so that what a library prints does not get into the messages."""
    requests, replies = os.dup(0), os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    return requests, replies


def _limit_memory(memory_mib: int) -> None:
    """Limit the address space to its present size and ``memory_mib`` more. This works on Linux only."""
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * os.sysconf("SC_PAGE_SIZE") + memory_mib * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _peak_mib() -> float:
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


if __name__ == "__main__":
    main()
