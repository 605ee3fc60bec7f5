"""A lane: one sampler and one learner that Ray places together, and the forks that live on it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

import psutil
import ray
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from sttrl.engine.asking import Actor, answer
from sttrl.engine.base import JUST_LOGPROBS, EngineSettings, Policy
from sttrl.engine.failures import starting
from sttrl.engine.names import BIAS_FILE
from sttrl.engine.processes import CLUSTER, end_processes, family, keep_logs, shared_folder
from sttrl.engine.verl.interface import CriticWorker, ForkWorker, PolicyWorker
from sttrl.engine.verl.worker_group import SHARE_A_GPU, Role, TrainingRank, Workers, start_workers
from sttrl.engine.vllm.records import PolicyKey
from sttrl.engine.vllm.sampler import Sampler, environment
from sttrl.errors import EngineError
from sttrl.types import DeltaSpec, Measure, Objective, Request, Rollout, TokenStats, TrainGroup, UpdateStats

MOST_REQUESTS = 1000
CRITIC_STATE = "critic"

P = ParamSpec("P")
T = TypeVar("T")


class Lane:
    """Sampler and learner of one lane. `start` returns when the sampler can sample; the learner may still be loading."""

    def __init__(self, settings: EngineSettings, tokenizer: Any, say: Callable[[str], None] = print) -> None:
        self.settings, self.tokenizer, self.say = settings, tokenizer, say
        self.threads = max(1, cores() // settings.lanes)
        self.shared = shared_folder()
        self.deltas = self.shared / "deltas"
        self.deltas.mkdir()
        self.turn = asyncio.Lock()
        self.exports = itertools.count(1)
        self.in_cluster = False
        self.gpus: Any = None
        self.pids: list[int] = []
        self.members: list[psutil.Process] = []
        self.logged: dict[str, int] = {}
        self.learner_ready: asyncio.Task[Workers[PolicyWorker]] | None = None
        self.reference_ready: asyncio.Task[Workers[PolicyWorker]] | None = None
        self.critic_ready: asyncio.Task[Workers[CriticWorker]] | None = None

    async def start(self) -> None:
        """Start Ray, the sampler, and, in the background, the learner. Raises `EngineError`."""
        with starting("sampler"):
            await self._start()

    async def _start(self) -> None:
        settings = self.settings
        workers = 2 + settings.learner_ranks * (1 + settings.separate_reference + settings.critic)
        await asyncio.to_thread(CLUSTER.join, workers * settings.lanes)
        self.in_cluster = True
        options: dict[str, Any] = {"num_cpus": 1, "num_gpus": 0, "max_concurrency": MOST_REQUESTS}
        if settings.device == "cuda":
            self.gpus = await self._placed()
            apart = settings.gpus_per_lane > settings.learner_ranks
            place = PlacementGroupSchedulingStrategy(self.gpus, settings.gpus_per_lane - 1 if apart else 0)
            options |= {"num_gpus": 1 if apart else 1 / SHARE_A_GPU, "scheduling_strategy": place}
        variables = {"env_vars": environment(settings, self.threads)}
        handle = ray.remote(Sampler).options(**options, runtime_env=variables).remote(settings)
        if settings.adapter and settings.device == "cuda" and not settings.samples_adapters and CLUSTER.users == 1:
            trained = " and ".join(settings.adapter.trainable_modules)
            self.say(f"the sampler holds one policy at a time, its weights merged: vLLM serves no adapter that trains {trained}")
        self.sampler: Actor[Sampler] = Actor(handle, "sampler")
        if self.settings.trains:
            self.learner_ready = asyncio.create_task(self._start_workers("learner"))
            if self.settings.separate_reference:
                self.reference_ready = asyncio.create_task(self._start_workers("reference"))
            if self.settings.critic:
                self.critic_ready = asyncio.create_task(self._start_workers("critic"))
        # Its children are vLLM's, and must end with the run even when it ends while they start.
        self.pids.append(await self.sampler.call(Sampler.pid))
        await self.sampler.call(Sampler.load)
        # Once the sampler has died, its children are no longer found by its id.
        self.members = family(self.pids)

    async def learner(self) -> Workers[PolicyWorker]:
        """The learner's worker group, once every rank is ready."""
        assert self.learner_ready is not None, "this engine was started without a learner"
        return await self.learner_ready

    async def critic(self) -> Workers[CriticWorker]:
        """The critic's worker group, once every rank is ready."""
        assert self.critic_ready is not None, "this engine was started without a critic"
        return await self.critic_ready

    async def with_reference(self, groups: Sequence[TrainGroup], temperature: float) -> Sequence[TrainGroup]:
        """The groups with the base's log-probs from the reference worker; as they are where the learner computes them itself."""
        if self.reference_ready is None:
            return groups
        found = await scored(await self.reference_ready, None, groups, Measure(temperature=temperature))
        return [
            replace(g, row_G=tuple(replace(row, base_logprob_T=s.logprob_T) for row, s in zip(g.row_G, stats_G, strict=True)))
            for g, stats_G in zip(groups, found, strict=True)
        ]

    async def close(self, log_folder: Path | None = None) -> None:
        """End the lane's processes and remove its folder; what will not end by itself is killed."""
        waiting = [task for task in (self.learner_ready, self.reference_ready, self.critic_ready) if task is not None]
        for task in waiting:
            task.cancel()
        # What kept one from starting has been told, or the run ends for another reason.
        await asyncio.gather(*waiting, return_exceptions=True)
        self.keep_logs(log_folder)
        started = [*self.members, *family(self.pids)]
        if self.in_cluster:
            self.in_cluster = False
            await asyncio.to_thread(CLUSTER.leave)
        await asyncio.to_thread(end_processes, started)
        shutil.rmtree(self.shared, ignore_errors=True)

    def keep_logs(self, folder: Path | None) -> None:
        """Copy what the processes wrote since the last time. A run does not depend on it: where it cannot be done, that is said."""
        if folder is None or not ray.is_initialized():
            return
        try:
            self.logged = keep_logs(folder, self.logged)
        except OSError as error:
            self.say(f"the engine's output cannot be kept in {folder}: {error.strerror or error}")

    async def _placed(self) -> Any:
        """The lane's GPUs, on one node: the learner's ranks have the first; the sampler has the last, or shares the first."""
        check_gpus(self.settings, int(ray.cluster_resources().get("GPU", 0)))
        gpus = placement_group([{"CPU": SHARE_A_GPU, "GPU": 1}] * self.settings.gpus_per_lane, strategy="STRICT_PACK")
        await answer(gpus.ready(), "lane")
        return gpus

    async def _start_workers(self, role: Role) -> Workers[Any]:
        with starting(role):
            meeting = self.shared / f"{role}.meeting"
            workers = await asyncio.to_thread(start_workers, self.settings, role, self.threads, self.gpus, meeting)
            # Known before they load, so that they end with the run even when it ends meanwhile.
            self.pids += await workers.each(TrainingRank.pid)
            described = await workers.each(TrainingRank.load)
        if not all(d["packs"] for d in described):
            self.say(f"the {role} computes the prompt again for every response: packed behind one, they score differently")
        return workers


@dataclass
class Fork:
    """A policy on a lane: its state in the learner, and the folder of its last exported version for the sampler."""

    lane: Lane
    name: str
    spec: DeltaSpec
    version: int = 0
    exported: dict[int, str] = field(default_factory=dict)
    export_turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def sample(self, requests: Sequence[Request]) -> tuple[Rollout, ...]:
        """See `Policy.sample`."""
        key = await self._key()
        sampled = await self.lane.sampler.call(Sampler.sample, key, tuple(requests))
        texts = self.lane.tokenizer.batch_decode([s.token_T for s in sampled], skip_special_tokens=True)
        return tuple(
            Rollout(
                seed=request.seed,
                version=key.version,
                token_T=s.token_T,
                logprob_T=s.logprob_T,
                finish="stop" if s.stopped else "length",
                text=text,
                top_T=s.top_T,
            )
            for request, s, text in zip(requests, sampled, texts, strict=True)
        )

    async def score(
        self, groups: Sequence[TrainGroup], measure: Measure = JUST_LOGPROBS, at: Literal["policy", "base"] = "policy"
    ) -> tuple[tuple[TokenStats, ...], ...]:
        """See `Policy.score`."""
        workers = await self.lane.learner()
        async with self.lane.turn:
            return await scored(workers, self.name if at == "policy" and self.spec.kind != "none" else None, groups, measure)

    async def values(self, groups: Sequence[TrainGroup]) -> tuple[tuple[tuple[float, ...], ...], ...]:
        """See `Policy.values`."""
        workers = await self.lane.critic()
        async with self.lane.turn:
            return in_order(await workers.call(CriticWorker.values, self.name, groups), groups)

    async def update(self, groups: Sequence[TrainGroup], objective: Objective) -> UpdateStats:
        """See `Policy.update`."""
        assert self.spec.kind != "none", "a fork without a delta cannot be updated"
        workers = await self.lane.learner()
        if objective.loss == "policy" and objective.kl_coef > 0:
            groups = await self.lane.with_reference(groups, objective.temperature)
        critic = await self.lane.critic() if any(row.return_T is not None for g in groups for row in g.row_G) else None
        value_loss: float | None = None
        async with self.lane.turn, AsyncExitStack() as undo:
            if critic is not None:
                value_loss = (await critic.call(CriticWorker.update, self.name, groups, objective))[0]
                undo.push_async_callback(critic.call, CriticWorker.take_back, self.name)
            stats = await workers.call(PolicyWorker.update, self.name, groups, objective)
            undo.pop_all()
        self.version += 1
        return replace(stats[0], value_loss=value_loss)

    async def save(self, folder: Path) -> None:
        """See `Policy.save`."""
        if self.spec.kind != "none":
            await self._ask(PolicyWorker.export, str(folder), "float32")

    async def checkpoint(self, folder: Path) -> None:
        """See `Policy.checkpoint`."""
        await self._ask(PolicyWorker.save_fork, str(folder))
        await self._ask_critic(CriticWorker.save_fork, str(folder / CRITIC_STATE))
        (folder / "version").write_text(str(self.version), encoding="utf-8")

    async def restore(self, folder: Path) -> None:
        """See `Policy.restore`."""
        await self._ask(PolicyWorker.restore_fork, str(folder))
        await self._ask_critic(CriticWorker.restore_fork, str(folder / CRITIC_STATE))
        self.version = int((folder / "version").read_text(encoding="utf-8"))
        self._forget_exports()

    async def open(self) -> None:
        """Make the fork in the learner and the critic."""
        if self.spec.kind != "none":
            await self._ask(PolicyWorker.open_fork, self.spec)
            await self._ask_critic(CriticWorker.open_fork, replace(self.spec, lr={"main": self.spec.critic_lr}))

    async def close(self) -> None:
        """Discard the fork, and what the sampler holds of it."""
        self._forget_exports()
        if self.spec.kind != "none":
            await self._ask(PolicyWorker.close_fork)
            await self._ask_critic(CriticWorker.close_fork)
            await self.lane.sampler.call(Sampler.forget, self.name)

    async def _key(self) -> PolicyKey:
        folder = await self._folder()
        if self.spec.kind == "vector" and folder is not None:
            return PolicyKey(self.name, self.version, None, str(Path(folder) / BIAS_FILE))
        return PolicyKey(self.name, self.version, folder)

    async def _folder(self) -> str | None:
        """The delta of this version where the sampler can read it; the base has none."""
        if self.version == 0:
            return None
        async with self.export_turn:  # who asks at once shares one: a second would remove the first while the sampler reads it
            if self.version not in self.exported:
                folder = self.lane.deltas / f"{self.name}@{self.version}.{next(self.lane.exports)}"
                await self._hand_over(folder)
                self._forget_exports()
                self.exported = {self.version: str(folder)}
            return self.exported[self.version]

    async def _hand_over(self, folder: Path) -> None:
        """Write the delta for the sampler. Raises `EngineError` where the lane's folder has no room."""
        try:
            await self._ask(PolicyWorker.export, str(folder), "float32" if self.lane.settings.adapter else self.lane.settings.dtype)
        except OSError as error:
            raise EngineError(
                f"Cannot write {folder.parent}: {error.strerror}.", "Make room there: it hands each version of a policy to the sampler."
            ) from error

    def _forget_exports(self) -> None:
        for folder in self.exported.values():
            shutil.rmtree(folder, ignore_errors=True)
        self.exported = {}

    async def _ask(self, method: Callable[Concatenate[PolicyWorker, str, P], object], *arguments: P.args, **named: P.kwargs) -> None:
        workers = await self.lane.learner()
        async with self.lane.turn:
            await workers.call(method, self.name, *arguments, **named)

    async def _ask_critic(self, method: Callable[Concatenate[CriticWorker, str, P], object], *arguments: P.args, **named: P.kwargs) -> None:
        if self.lane.settings.critic:
            critic = await self.lane.critic()
            async with self.lane.turn:
                await critic.call(method, self.name, *arguments, **named)


class RayEngine:
    """The default engine: verl, Ray and vLLM, on CPU and on GPU. What a user should know of it goes to ``say``."""

    def __init__(
        self, settings: EngineSettings, tokenizer: Any, log_folder: Path | None = None, say: Callable[[str], None] = print
    ) -> None:
        self.lane, self.log_folder = Lane(settings, tokenizer, say), log_folder
        self.settings = settings

    def log_to(self, folder: Path) -> None:
        """From here on, what the processes write belongs to this folder."""
        self.lane.keep_logs(self.log_folder)
        self.log_folder = folder

    async def start(self) -> None:
        """Until the first sample can be taken."""
        await self.lane.start()

    @asynccontextmanager
    async def fork(self, name: str, delta: DeltaSpec) -> AsyncIterator[Policy]:
        """See `Engine.fork`."""
        fork = Fork(self.lane, name, delta)
        await fork.open()
        try:
            yield fork
        except BaseException:
            with contextlib.suppress(Exception):  # the error of the block is the one to tell
                await fork.close()
            raise
        await fork.close()

    async def close(self) -> None:
        """See `Engine.close`."""
        await self.lane.close(self.log_folder)

    async def fingerprint(self) -> tuple[str, ...]:
        """SHA-256 of the base weights, one per learner rank."""
        workers = await self.lane.learner()
        async with self.lane.turn:
            return tuple(await workers.call(ForkWorker.fingerprint))


async def scored(
    workers: Workers[PolicyWorker], name: str | None, groups: Sequence[TrainGroup], measure: Measure
) -> tuple[tuple[TokenStats, ...], ...]:
    """Statistics of every row of every group, under a fork or, where ``name`` is None, under the base."""
    return in_order(await workers.call(PolicyWorker.score, name, groups, measure), groups)


def in_order(found: Sequence[Sequence[Sequence[T]]], groups: Sequence[TrainGroup]) -> tuple[tuple[T, ...], ...]:
    """What all ranks found ``[rank][_P][rows of the rank]`` in the order of the groups' rows: rank r of n has every n-th from r on."""
    ranks = len(found)
    return tuple(tuple(found[i % ranks][p][i // ranks] for i in range(len(group.row_G))) for p, group in enumerate(groups))


def check_gpus(settings: EngineSettings, found: int) -> None:
    """Raises `EngineError` where Ray has fewer GPUs than all lanes reserve: it would wait for the others for ever."""
    needed = settings.lanes * (settings.gpus_per_lane + settings.learner_ranks * (settings.separate_reference + settings.critic))
    if needed > found:
        raise EngineError(
            f"{settings.lanes} lanes of {needed // settings.lanes} GPUs need {needed}, and Ray has {found}.",
            "Use fewer --lanes or --learner_ranks, or leave out --separate_ref_gpu and gae.",
        )


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0))
