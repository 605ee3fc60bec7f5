"""Ray: one short-lived local cluster per run, or the cluster that RAY_ADDRESS names; and whatever it leaves behind."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import ray

from sttrl.errors import EngineError

SHARED_MEMORY = Path("/dev/shm")
SHARED_PREFIX = "sttrl-"
SHARED_CORES = {"GOMP_SPINCOUNT": "2000"}
"""A thread spins for microseconds before it sleeps. One that spins for milliseconds waits for cores that another process has: on a
busy machine a group took many times as long. One that sleeps at once is woken for every operation: a step of 9 samples took 1.3
times as long."""
RAY_TRIES = 2
SOCKET_BYTES = 107
"""The longest path of a socket on Linux."""
VLLM_SOCKET_BYTES = len("/") + 36
"""vLLM's sockets are named by a UUID."""
HOST_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(256 << 20), "MALLOC_TRIM_THRESHOLD_": str(512 << 20)}
"""glibc keeps large blocks instead of returning each to the kernel: choosing tokens for 128 rows took 30 ms, with it 7."""


def on_cpu(threads: int) -> dict[str, str]:
    """Environment of a process that computes on CPU beside others.

    torch's own OpenMP comes first, as vLLM has it for its own processes: packages bring copies of theirs, and with one of them beside it
    the sampler took 15 to 20 % longer.
    """
    torch = importlib.util.find_spec("torch")
    assert torch is not None and torch.origin is not None, "torch is one of the packages that are checked before"
    openmp = sorted(Path(torch.origin).parent.glob("lib/libgomp*.so*"))
    preload = {"LD_PRELOAD": " ".join([str(openmp[0]), *os.environ.get("LD_PRELOAD", "").split()])} if openmp else {}
    return {"OMP_NUM_THREADS": str(threads), **SHARED_CORES, **preload}


class Cluster:
    """Ray for the lanes of this process: its own cluster begins with the first of them and ends with the last."""

    def __init__(self) -> None:
        self.users, self.own, self.turn = 0, False, threading.Lock()
        self.failure: EngineError | None = None

    def join(self, cpus: int) -> None:
        """One lane more. ``cpus`` are logical: actors share the cores, so a local cluster offers at least that many for all lanes.

        Raises `EngineError` where Ray does not start.
        """
        with self.turn:
            if self.failure is not None:
                raise self.failure
            if not ray.is_initialized():
                try:
                    self.own = start_ray(cpus)
                except EngineError as failure:
                    self.failure = failure  # the other lanes need not try
                    raise
            self.users += 1

    def leave(self) -> None:
        """One lane less."""
        with self.turn:
            self.users -= 1
            if self.users == 0 and self.own and ray.is_initialized():
                ray.shutdown()


CLUSTER = Cluster()


def start_ray(cpus: int) -> bool:
    """Connect to Ray. Returns whether the cluster is our own, to be ended with the run.

    Raises `EngineError`. On a busy machine Ray may give up before its processes have started, so they are started once more.
    """
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    if address := os.environ.get("RAY_ADDRESS"):
        failure = initialised(address=address, **quiet)
        if failure is not None:
            raise EngineError(f"No Ray cluster answers at RAY_ADDRESS={address}: {failure}.", "Unset RAY_ADDRESS, or correct it.")
        return False
    check_socket_paths()
    # Ray would run its workers at nice 15, where anything else on the machine starves them.
    os.environ.setdefault("RAY_worker_niceness", "0")
    for _ in range(RAY_TRIES):
        failure = initialised(address="local", num_cpus=max(cpus, os.cpu_count() or 1), include_dashboard=False, **quiet)
        if failure is None:
            return True
    raise EngineError(
        f"Ray did not start in {RAY_TRIES} tries: {failure}.",
        f"Run the same command again when the machine is less busy, or look at free memory and free space in {ray_folder()}.",
    )


def initialised(**options: Any) -> str | None:
    """Start or join Ray; None, or what it said when it failed, of which nothing is left running."""
    before = set(psutil.Process().children(recursive=True))
    try:
        ray.init(**options)
    except Exception as error:  # noqa: BLE001 - what Ray raises itself for processes that are slow to start
        ray.shutdown()
        started = set(psutil.Process().children(recursive=True)) - before
        end_processes([process for process in started if is_ray(process)])
        return " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
    return None


def is_ray(process: psutil.Process) -> bool:
    """Whether a process is one of Ray's own, and not the judge's worker, which may start meanwhile."""
    with contextlib.suppress(psutil.Error):
        return any("/ray/" in word for word in process.cmdline())
    return False


def ray_folder() -> Path:
    """The folder in which Ray makes its sessions."""
    return Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp") / "ray"


def check_socket_paths() -> None:
    """Raises `EngineError` where the folder for temporary files is too long for the names of Ray's and vLLM's sockets in it."""
    from_ray = len(os.fsencode(f"/ray/session_2000-01-01_00-00-00_000000_{os.getpid()}/sockets/plasma_store"))
    for variable, folder, needed in (
        ("RAY_TMPDIR" if os.environ.get("RAY_TMPDIR") else "TMPDIR", ray_folder().parent, from_ray),
        ("TMPDIR", Path(tempfile.gettempdir()), VLLM_SOCKET_BYTES),
    ):
        length, most = len(os.fsencode(folder)), SOCKET_BYTES - needed
        if length > most:
            raise EngineError(
                f"The folder for temporary files, {folder}, has a path of {length} bytes, and sockets in it need one of at most {most}.",
                f"Set {variable} to a shorter one, such as {variable}=/tmp.",
            )


def session_logs() -> Path | None:
    """Where this Ray session writes its logs."""
    node = getattr(ray._private.worker, "_global_node", None)
    return Path(node.get_logs_dir_path()) if node is not None else None


def keep_logs(target: Path, kept: Mapping[str, int]) -> dict[str, int]:
    """Copy the workers' output of this session to the run folder, from where it was ``kept`` on; how far each file is kept then."""
    source, ends = session_logs(), dict(kept)
    for file in sorted(source.glob("worker-*")) if source is not None else ():
        with file.open("rb") as log:
            log.seek(kept.get(file.name, 0))
            if text := log.read():
                target.mkdir(parents=True, exist_ok=True)
                (target / file.name).write_bytes(text)
            ends[file.name] = log.tell()
    return ends


def shared_folder() -> Path:
    """A folder in memory for what the processes of a lane hand each other; those of dead runs are removed."""
    parent = SHARED_MEMORY if SHARED_MEMORY.is_dir() and os.access(SHARED_MEMORY, os.W_OK) else Path(tempfile.gettempdir())
    for old in parent.glob(f"{SHARED_PREFIX}*"):
        owner = old.name.removeprefix(SHARED_PREFIX).split("-")[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{SHARED_PREFIX}{os.getpid()}-", dir=parent))


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
