"""What runs on one node: Ray as it starts or is joined there, a process's environment, folders, output and end."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import shutil
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import psutil
import ray

from sttrl.engine.reaper import end_processes
from sttrl.errors import EngineError, error_text

SHARED_MEMORY = Path("/dev/shm")
FOLDER_PREFIX = "sttrl-"
SHARED_CORES = {"GOMP_SPINCOUNT": "2000"}
"""A thread spins for microseconds before it sleeps. One that spins for milliseconds waits for cores that another process has: on a
busy machine a group took many times as long. One that sleeps at once is woken for every operation: a step of 9 samples took 1.3
times as long."""
RAY_TRIES = 2
NO_JOB = "ffffffff"
"""The job in the log's name of a worker that Ray started in advance."""
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
        return error_text(error)
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
    check_length("RAY_TMPDIR" if os.environ.get("RAY_TMPDIR") else "TMPDIR", ray_folder().parent, from_ray)
    check_vllm_sockets()


def check_vllm_sockets() -> None:
    """Raises `EngineError` where this node's folder for temporary files is too long for the names of vLLM's sockets in it."""
    check_length("TMPDIR", Path(tempfile.gettempdir()), VLLM_SOCKET_BYTES)


def check_length(variable: str, folder: Path, needed: int) -> None:
    """Raises `EngineError` where a folder's path leaves less than ``needed`` bytes for the name of a socket."""
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


def new_output(kept: Mapping[str, int], job: str, pids: Collection[int]) -> tuple[dict[str, bytes], dict[str, int]]:
    """What the workers on this node wrote behind where it was ``kept``, by the name of the log; and how far each log is kept then.

    ``job`` and ``pids``: whose workers. A log's name has both, but for a worker that Ray started before the job.
    """
    source, found, ends = session_logs(), dict[str, bytes](), dict(kept)
    for file in sorted(source.glob("worker-*")) if source is not None else ():
        _, of_job, pid = file.stem.rsplit("-", 2)
        if of_job not in (job, NO_JOB) or not (pid.isdigit() and int(pid) in pids):
            continue
        with file.open("rb") as log:
            log.seek(kept.get(file.name, 0))
            if text := log.read():
                found[file.name] = text
            ends[file.name] = log.tell()
    return found, ends


def memory_folder() -> Path:
    """Where this node keeps files in memory; the folder for temporary files where it cannot."""
    return SHARED_MEMORY if SHARED_MEMORY.is_dir() and os.access(SHARED_MEMORY, os.W_OK) else Path(tempfile.gettempdir())


def own_folder(parent: Path) -> Path:
    """A new folder of this process; those of dead processes are removed."""
    for old in parent.glob(f"{FOLDER_PREFIX}*"):
        owner = old.name.removeprefix(FOLDER_PREFIX).split("-")[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{FOLDER_PREFIX}{os.getpid()}-", dir=parent))
