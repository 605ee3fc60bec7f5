"""The driver's side of a lane's node: what is reserved there, its folders, and the files that pass through Ray in either direction."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import ray
from ray.exceptions import RayError
from ray.util.placement_group import remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from sttrl.engine.asking import Actor
from sttrl.engine.base import EngineSettings
from sttrl.engine.cluster import CLUSTER, first_bundle, reserve
from sttrl.engine.environment import PACKAGES, version
from sttrl.engine.node import Expected, Keeper, Room, file_sizes, model_files
from sttrl.engine.verl.worker_group import Role
from sttrl.errors import EngineError

P = ParamSpec("P")
T = TypeVar("T")
PIECE_BYTES = 64 << 20
"""Files pass in pieces of this size, so that one of any size needs little memory on the way."""
MOST_SECONDS = 30
"""For what a lane that ends is still asked: its node may be gone."""


class Home:
    """One lane's node. Call `open` first and `close` last."""

    def __init__(self, settings: EngineSettings) -> None:
        self.settings = settings
        self.opened = False
        self.keeper: Actor[Keeper] | None = None
        self.group: Any = None
        self.numbers = itertools.count(1)

    async def open(self) -> None:
        """Join Ray, reserve the lane's resources and check the node. Raises `EngineError`."""
        settings = self.settings
        self.seat = await asyncio.to_thread(CLUSTER.join, settings)
        self.opened = True
        self.group = reserve(settings, self.seat)
        here = NodeAffinitySchedulingStrategy(self.seat.node, soft=False)
        handle = ray.remote(Keeper).options(num_cpus=0, scheduling_strategy=here).remote(settings, self.seat.lanes)
        self.keeper = Actor(handle, "keeper of a lane")
        expected = Expected({name: version(name) for name in PACKAGES}, model_files(Path(settings.model_folder)))
        try:
            self.room: Room = await self._ask(Keeper.prepare, expected)
        except EngineError as error:
            if not isinstance(error.__cause__, RayError):
                raise
            raise EngineError(
                f"Node {self.seat.address} cannot run a lane: {error.message}", "Install the same packages on every node."
            ) from error

    def place(self, role: Role | str) -> PlacementGroupSchedulingStrategy:
        """Where an actor of the lane goes."""
        return PlacementGroupSchedulingStrategy(self.group, first_bundle(self.settings, role))

    def meeting(self, role: Role) -> Path:
        """A file on the node where the ranks of a role find each other."""
        return Path(self.room.memory) / f"{role}.meeting"

    def delta_folder(self, name: str) -> str:
        """A new folder for a delta on its way from learner to sampler."""
        return f"{self.room.memory}/deltas/{name}.{next(self.numbers)}"

    async def watch(self, pids: Sequence[int]) -> None:
        """Let these processes, and what they start, end with the lane."""
        await self._ask(Keeper.watch, list(pids))

    async def remove(self, folders: Sequence[str]) -> None:
        """Remove folders on the node."""
        if folders:
            await self._ask(Keeper.remove, list(folders))

    @asynccontextmanager
    async def passage(self) -> AsyncIterator[str]:
        """A folder on the node for what passes between it and the driver, removed afterwards."""
        folder = f"{self.room.disk}/{next(self.numbers)}"
        try:
            yield folder
        finally:
            await self.remove([folder])

    async def fetch(self, folder: str, target: Path) -> None:
        """Copy a folder of the node to one of the driver's."""
        for name, size in (await self._ask(Keeper.files, folder)).items():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            with (target / name).open("wb") as file:
                for start in range(0, size, PIECE_BYTES):
                    piece = await self._ask(Keeper.read, f"{folder}/{name}", start, PIECE_BYTES)
                    await asyncio.to_thread(file.write, piece)

    async def send(self, source: Path, folder: str) -> None:
        """Copy a folder of the driver's to a new one of the node. Raises `OSError` where it cannot be read."""
        if not source.is_dir():
            raise FileNotFoundError(f"there is no {source}")
        for name in file_sizes(source):
            with (source / name).open("rb") as file:
                while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
                    with self.no_room(folder):
                        await self._ask(Keeper.append, f"{folder}/{name}", piece)

    @contextmanager
    def no_room(self, folder: str) -> Iterator[None]:
        """A disk's fault on the node, in this block, becomes an `EngineError` that says where."""
        try:
            yield
        except OSError as error:
            raise EngineError(
                f"Cannot write {Path(folder).parent} on node {self.seat.address}: {error.strerror}.",
                "Make room there: each version of a policy passes through it.",
            ) from error

    def new_output(self) -> dict[str, bytes]:
        """What the lane's processes wrote since the last time. Raises `RayError` where the node is gone."""
        if self.keeper is None or not ray.is_initialized():
            return {}
        found: dict[str, bytes] = ray.get(self.keeper.handle.new_output.remote(), timeout=MOST_SECONDS)
        return found

    async def close(self) -> None:
        """End the lane's processes, remove its folders and free what it reserved."""
        if not self.opened:
            return
        self.opened = False
        if ray.is_initialized() and self.keeper is not None:
            with contextlib.suppress(RayError, TimeoutError):  # its node is gone, and all of this with it
                await asyncio.wait_for(self.keeper.handle.end.remote(), MOST_SECONDS)
            remove_placement_group(self.group)
            ray.kill(self.keeper.handle)
        await asyncio.to_thread(CLUSTER.leave)

    async def _ask(self, method: Callable[Concatenate[Keeper, P], T], *arguments: P.args, **named: P.kwargs) -> T:
        assert self.keeper is not None, "the lane is not open"
        return await self.keeper.ask(method, *arguments, **named)
