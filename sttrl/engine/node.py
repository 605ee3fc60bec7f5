"""The keeper of a lane: an actor on the lane's node. It does there what the driver, which may be on another node, cannot do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
import ray

from sttrl.engine import reaper
from sttrl.engine.base import EngineSettings
from sttrl.engine.environment import version
from sttrl.engine.processes import check_vllm_sockets, memory_folder, new_output, own_folder
from sttrl.engine.verl.worker_group import ranks_environment
from sttrl.engine.vllm.sampler import environment
from sttrl.errors import EngineError


@dataclass(frozen=True)
class Expected:
    """What a node must have: packages by version, and the model's files by size, as the driver has them."""

    versions: Mapping[str, str | None]
    model: Mapping[str, int]


@dataclass(frozen=True)
class Room:
    """What a lane finds on its node: folders of its own, and the environment variables of its processes.

    ``memory`` is in memory where the node has such a folder: learner and sampler hand deltas over there. ``disk`` is for states and
    saved adapters on their way to or from the driver.
    """

    memory: str
    disk: str
    sampler: Mapping[str, str]
    ranks: Mapping[str, str]


class Keeper:
    """The actor; each lane has one. When it ends, or at `end`, the lane's other processes are killed and its folders are removed."""

    def __init__(self, settings: EngineSettings, lanes: int) -> None:
        self.settings, self.lanes = settings, lanes
        self.pids = [os.getpid()]
        self.kept: dict[str, int] = {}

    def prepare(self, expected: Expected) -> Room:
        """Check the node and make the lane's folders. Raises `EngineError` where the lane cannot work here."""
        where = ray.util.get_node_ip_address()
        check_versions(where, expected.versions)
        check_model(where, Path(self.settings.model_folder), expected.model)
        check_memory(where, self.settings, self.lanes, expected.model)
        check_vllm_sockets()
        threads = max(1, len(os.sched_getaffinity(0)) // self.lanes)
        memory, disk = (str(own_folder(parent)) for parent in (memory_folder(), Path(tempfile.gettempdir())))
        self.reaper = start_reaper(memory, disk)
        return Room(memory, disk, environment(self.settings, threads), ranks_environment(self.settings, threads))

    def watch(self, pids: list[int]) -> None:
        """Processes of the lane: they, and what they have started by now or start later, end with this process."""
        self.pids += pids
        assert self.reaper.stdin is not None
        self.reaper.stdin.write("".join(f"{pid}\n" for pid in pids))
        self.reaper.stdin.flush()

    def new_output(self) -> dict[str, bytes]:
        """What this lane's processes wrote since the last time, by the name of the log."""
        job = ray.get_runtime_context().get_job_id()
        found, self.kept = new_output(self.kept, job, self.pids)
        return found

    def files(self, folder: str) -> dict[str, int]:
        """The files in a folder, by path below it, and their sizes."""
        return file_sizes(Path(folder))

    def read(self, file: str, start: int, size: int) -> bytes:
        """A piece of a file."""
        with open(file, "rb") as source:
            source.seek(start)
            return source.read(size)

    def append(self, file: str, piece: bytes) -> None:
        """Add a piece to a file, which is made with its folder where it does not exist."""
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        with open(file, "ab") as target:
            target.write(piece)

    def remove(self, folders: list[str]) -> None:
        """Remove folders with what is in them."""
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)

    def end(self) -> None:
        """End the lane's processes but this one, and remove its folders."""
        self.reaper.communicate()


def start_reaper(*folders: str) -> subprocess.Popen[str]:
    """The process that ends what it is told of, and removes these folders, when this process ends or closes the pipe."""
    command = [sys.executable, "-P", reaper.__file__, *folders]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)


def file_sizes(folder: Path) -> dict[str, int]:
    """The files in a folder, by path below it, and their sizes."""
    return {str(file.relative_to(folder)): file.stat().st_size for file in sorted(folder.rglob("*")) if file.is_file()}


def model_files(folder: Path) -> dict[str, int]:
    """The files of a model that decide what it computes, and their sizes."""
    return {file.name: file.stat().st_size for pattern in ("config.json", "*.safetensors") for file in sorted(folder.glob(pattern))}


def check_versions(where: str, versions: Mapping[str, str | None]) -> None:
    """Raises `EngineError` where this node has other packages than the driver."""
    for package, wanted in versions.items():
        found = version(package)
        if found != wanted:
            raise EngineError(
                f"Node {where} has {package} {found or 'not installed'}, and the node of the command has {wanted or 'none'}.",
                "Install the same packages on every node.",
            )


def check_model(where: str, folder: Path, wanted: Mapping[str, int]) -> None:
    """Raises `EngineError` where this node does not have the driver's model in the same place."""
    found = model_files(folder)
    if not found:
        raise EngineError(
            f"Node {where} has no model in {folder}.",
            "Copy it there, or use a folder that all nodes share (HF_HOME, STTRL_CACHE).",
        )
    differing = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
    if differing:
        raise EngineError(
            f"Node {where} has another model in {folder}: {differing[0]} differs.", "Copy the model of the node of the command there."
        )


def check_memory(where: str, settings: EngineSettings, lanes: int, model: Mapping[str, int]) -> None:
    """Raises `EngineError` where the node's memory cannot even hold the weights of its lanes; on GPU they are elsewhere."""
    if settings.device != "cpu":
        return
    weights = sum(size for name, size in model.items() if name.endswith(".safetensors"))
    copies = 1 + settings.trains * (1 + settings.separate_reference + settings.critic)
    needed, total = lanes * (copies * weights + (settings.kv_cache_mib << 20)), psutil.virtual_memory().total
    if needed > total:
        raise EngineError(
            f"Node {where} has {total >> 20} MiB of memory; {lanes} lanes with {copies} copies of the model need {needed >> 20} MiB.",
            "Use a smaller model, fewer --lanes, or nodes with more memory.",
        )
