"""verl's worker groups as a lane starts them: one of the policy, one of the reference, one of the critic.

The program's own process only asks; what trains is imported in the workers.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Concatenate, Generic, Literal, ParamSpec, TypeVar

import ray
from ray.util.placement_group import PlacementGroup

from sttrl.engine.asking import answer
from sttrl.engine.base import EngineSettings
from sttrl.engine.failures import starting, traceback_to_log
from sttrl.engine.processes import on_cpu
from sttrl.engine.verl.interface import CriticWorker, ForkWorker, PolicyWorker

SHARE_A_GPU = 2
"""Processes on one GPU: the sampler, and the learner's rank."""
Role = Literal["learner", "reference", "critic"]
W = TypeVar("W", bound=ForkWorker)
P = ParamSpec("P")
T = TypeVar("T")


def alone(meeting: Path) -> dict[str, str]:
    """Environment in which verl takes this process for the only rank of a group; ``meeting`` as in `start_workers`."""
    one = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    return one | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "DIST_INIT_METHOD": meeting.as_uri()}


class TrainingRank:
    """One rank of a role, in its own process."""

    def __init__(self, settings: EngineSettings, role: Role) -> None:
        self.settings, self.role = settings, role

    def pid(self) -> int:
        """Process id of the rank."""
        return os.getpid()

    def load(self) -> dict[str, Any]:
        """Build the worker and load the model; returns what `ForkTrainer.describe` says. Raises `EngineError`."""
        with starting(self.role):
            self.worker = new_worker(self.settings, self.role)
            return self.worker.describe()

    def ask(self, method: str, *arguments: Any, **named: Any) -> Any:
        """Call a method of the worker, which `Workers.call` has named."""
        try:
            return getattr(self.worker, method)(*arguments, **named)
        except Exception as error:
            traceback_to_log(error)
            raise


def new_worker(settings: EngineSettings, role: Role) -> PolicyWorker | CriticWorker:
    """The worker of a role. Imported here: only a rank's own process loads what trains."""
    from sttrl.engine.verl.critic import Critic
    from sttrl.engine.verl.learner import Learner

    return Critic(settings) if role == "critic" else Learner(settings)


class Workers(Generic[W]):
    """The ranks of a role; ``group`` is verl's worker group of `TrainingRank`."""

    def __init__(self, role: Role, group: Any) -> None:
        self.role, self.group = role, group

    async def call(self, method: Callable[Concatenate[W, P], T], *arguments: P.args, **named: P.kwargs) -> list[T]:
        """What a method of the worker returns on each rank. Raises what `answer` raises."""
        return await self.each(TrainingRank.ask, method.__name__, *arguments, **named)

    async def each(self, method: Callable[Concatenate[TrainingRank, P], T], *arguments: P.args, **named: P.kwargs) -> list[T]:
        """The same for a method of the rank itself."""
        return await answer(asyncio.gather(*self.group.execute_all(method.__name__, *arguments, **named)), self.role)


def ranks_environment(settings: EngineSettings, threads: int) -> dict[str, str]:
    """Environment of each rank of a role, on the node where this is called; ``threads`` are for all ranks of the role together."""
    threads = max(1, threads // settings.learner_ranks)
    own = {"OMP_NUM_THREADS": str(threads)} if settings.device == "cuda" else {"VERL_PLATFORM": "cpu", **on_cpu(threads)}
    return own | {"TOKENIZERS_PARALLELISM": "false"}


def start_workers(
    settings: EngineSettings, role: Role, reserved: PlacementGroup, first: int, environment: Mapping[str, str], meeting: Path
) -> Workers[Any]:
    """Start the ranks of one role, which load their models when they are asked to.

    ``reserved`` are the lane's resources, of which the ranks take one bundle each from the ``first`` on. ``meeting`` is a file on the
    lane's node that does not exist yet, where the ranks find each other: verl's own way is a port found free seconds before it is used,
    and two lanes may find the same.
    """
    if settings.device == "cpu":
        os.environ["VERL_PLATFORM"] = "cpu"  # verl reads it when it is first imported
    from verl.single_controller.ray import RayClassWithInitArgs, RayWorkerGroup, SubRayResourcePool

    on_gpu = settings.device == "cuda"
    pool = SubRayResourcePool(
        [reserved],
        start_bundle_index=first,
        subgroup_world_size=settings.learner_ranks,
        process_on_nodes=[reserved.bundle_count],
        use_gpu=on_gpu,
        max_colocate_count=SHARE_A_GPU if on_gpu else 1,
    )
    group = RayWorkerGroup(
        resource_pool=pool,
        ray_cls_with_init=RayClassWithInitArgs(ray.remote(TrainingRank), settings=settings, role=role),
        device_name=settings.device,
        worker_env={**environment, "DIST_INIT_METHOD": meeting.as_uri()},
    )
    return Workers(role, group)
