"""Ends the processes of a lane and removes its folders when the lane's keeper ends, however that happens.

A process of its own, which outlives the keeper. When a driver is killed, Ray kills the keeper and the lane's other actors, but not the
processes that these have started, such as vLLM's. Runs as a script, so that it loads psutil and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys

import psutil


def family(pids: list[int]) -> list[psutil.Process]:
    """The processes with these ids and everything they have started."""
    found: list[psutil.Process] = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            found += [*psutil.Process(pid).children(recursive=True), psutil.Process(pid)]
    return found


def end_processes(processes: list[psutil.Process]) -> None:
    """Kill those that still live; a process id that has passed to another process is left alone."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)


def main(folders: list[str]) -> None:
    """Read process ids, a line each, until the keeper closes the pipe by ending."""
    if os.fork():
        os._exit(0)  # Ray kills a worker's direct children when it ends
    for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, signal.SIG_IGN)
    pids, known = list[int](), list[psutil.Process]()
    for line in sys.stdin:
        pids.append(int(line))
        # Once a process has died, what it started is no longer found by its id.
        known += [process for process in family(pids) if process not in known]
    end_processes([*known, *family(pids)])
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1:])
