"""The judge's worker process: ``python -m sttrl.questions.answers.worker`` answers comparisons on its pipes until they close.

It may be killed at any moment. The kernel ends it by SIGPROF when a request has used its CPU time, however busy the machine is. It
ends by itself when its parent closes the pipe or dies: at once when idle, else when the request ends or its CPU time does.
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
    """Announce readiness (or the reason for failing), then serve."""
    requests, replies = _private_pipes()
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        from sttrl.questions.answers.symbolic import Algebra  # here, so that a failed import can be reported
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
    except Exception as error:  # sympy raises anything; the process is the boundary, and the reply says so
        return {"error": type(error).__name__}


def _private_pipes() -> tuple[int, int]:
    """Move the pipes away from stdin and stdout, so that a library that prints does not speak on the wire."""
    requests, replies = os.dup(0), os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    return requests, replies


def _limit_memory(memory_mib: int) -> None:
    """Address space: what it starts with and ``memory_mib`` more. Only Linux tells and enforces it."""
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * os.sysconf("SC_PAGE_SIZE") + memory_mib * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _peak_mib() -> float:
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


if __name__ == "__main__":
    main()
