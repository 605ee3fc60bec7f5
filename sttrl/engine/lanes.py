"""A lane: one sampler and one learner that Ray places together, and the forks that live on it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

import ray
from ray.exceptions import RayError

from sttrl.engine.asking import Actor, last_line
from sttrl.engine.base import JUST_LOGPROBS, EngineSettings, Policy
from sttrl.engine.cluster import first_bundle
from sttrl.engine.failures import starting
from sttrl.engine.home import Home
from sttrl.engine.names import BIAS_FILE
from sttrl.engine.steps import steps_of
from sttrl.engine.uncancelled import uncancelled
from sttrl.engine.verl.interface import CriticWorker, ForkWorker, PolicyWorker
from sttrl.engine.verl.worker_group import SHARE_A_GPU, Role, TrainingRank, Workers, start_workers
from sttrl.engine.vllm.records import PolicyKey
from sttrl.engine.vllm.sampler import Sampler
from sttrl.types import DeltaSpec, Measure, Objective, Request, Rollout, TokenStats, TrainGroup, UpdateStats

MOST_REQUESTS = 1000
CRITIC_STATE = "critic"

P = ParamSpec("P")
T = TypeVar("T")


class Lane:
    """Sampler and learner of one lane. `start` returns when the sampler can sample; the learner may still be loading."""

    def __init__(self, settings: EngineSettings, tokenizer: Any, say: Callable[[str], None] = print) -> None:
        self.settings, self.tokenizer, self.say = settings, tokenizer, say
        self.home = Home(settings)
        self.turn = asyncio.Lock()
        self.pids: list[int] = []
        self.forks: set[str] = set()
        self.learner_ready: asyncio.Task[Workers[PolicyWorker]] | None = None
        self.reference_ready: asyncio.Task[Workers[PolicyWorker]] | None = None
        self.critic_ready: asyncio.Task[Workers[CriticWorker]] | None = None

    async def start(self) -> None:
        """Start Ray, the sampler, and, in the background, the learner. Raises `EngineError`."""
        with starting("sampler"):
            await self._start()

    async def _start(self) -> None:
        settings, home = self.settings, self.home
        await home.open()
        if not settings.samples:
            self.learner_ready = asyncio.create_task(self._start_workers("learner"))
            await self.learner_ready
            return
        gpus = 0.0 if settings.device == "cpu" else 1.0 if settings.gpus_per_lane > settings.learner_ranks else 1 / SHARE_A_GPU
        options: dict[str, Any] = {"num_cpus": 1, "num_gpus": gpus, "max_concurrency": MOST_REQUESTS}
        options |= {"scheduling_strategy": home.place("sampler"), "runtime_env": {"env_vars": dict(home.room.sampler)}}
        self.sampler: Actor[Sampler] = Actor(ray.remote(Sampler).options(**options).remote(settings), "sampler")
        if settings.trains:
            self.learner_ready = asyncio.create_task(self._start_workers("learner"))
            if settings.separate_reference:
                self.reference_ready = asyncio.create_task(self._start_workers("reference"))
            if settings.critic:
                self.critic_ready = asyncio.create_task(self._start_workers("critic"))
        # Its children are vLLM's, and must end with the run even when it ends while they start.
        pid = await self.sampler.call(Sampler.pid)
        await self._watch([pid])
        await self.sampler.call(Sampler.load)
        await home.watch([pid])

    async def learner(self) -> Workers[PolicyWorker]:
        """The learner's worker group, once every rank is ready."""
        assert self.learner_ready is not None, "this engine was started without a learner"
        return await asyncio.shield(self.learner_ready)  # a caller that is cancelled must not end the start for the others

    async def critic(self) -> Workers[CriticWorker]:
        """The critic's worker group, once every rank is ready."""
        assert self.critic_ready is not None, "this engine was started without a critic"
        return await asyncio.shield(self.critic_ready)

    async def with_reference(self, groups: Sequence[TrainGroup], temperature: float) -> Sequence[TrainGroup]:
        """The groups with the base's log-probs from the reference worker; as they are where the learner computes them itself."""
        if self.reference_ready is None:
            return groups
        found = await scored(await asyncio.shield(self.reference_ready), None, groups, Measure(temperature=temperature))
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
        await asyncio.to_thread(self.keep_logs, log_folder)
        await self.home.close()

    def keep_logs(self, folder: Path | None) -> None:
        """Add to the logs what the processes wrote since the last time. A run does not depend on it: where it cannot be, that is said."""
        if folder is None:
            return
        try:
            for name, text in self.home.new_output().items():
                folder.mkdir(parents=True, exist_ok=True)
                with (folder / name).open("ab") as log:
                    log.write(text)
        except OSError as error:
            self.say(f"the engine's output cannot be kept in {folder}: {error.strerror or error}")
        except RayError as error:
            self.say(f"the output of a lane cannot be kept, its node does not answer: {last_line(error)}")

    async def _watch(self, pids: Sequence[int]) -> None:
        self.pids += pids
        await self.home.watch(pids)

    async def _start_workers(self, role: Role) -> Workers[Any]:
        with starting(role):
            home = self.home
            place = (home.group, first_bundle(self.settings, role), home.room.ranks, home.meeting(role))
            workers = await asyncio.to_thread(start_workers, self.settings, role, *place)
            # Known before they load, so that they end with the run even when it ends meanwhile.
            await self._watch(await workers.each(TrainingRank.pid))
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
        asked = tuple(replace(request, prompt_T=request.prompt_T + request.begun_T, begun_T=()) for request in requests)
        sampled = await self.lane.sampler.call(Sampler.sample, key, asked)
        whole_GT = [request.begun_T + s.token_T for request, s in zip(requests, sampled, strict=True)]
        texts = self.lane.tokenizer.batch_decode(whole_GT, skip_special_tokens=True)
        marked = [whole_T if request.sampling.reasoning_steps else () for request, whole_T in zip(requests, whole_GT, strict=True)]
        steps_GT = steps_of(marked, self.lane.tokenizer.batch_decode)
        return tuple(
            Rollout(
                seed=request.seed,
                version=key.version,
                token_T=s.token_T,
                logprob_T=s.logprob_T,
                finish=s.finish,
                text=text,
                top_T=s.top_T,
                view=request.view,
                reasoning_step_T=step_T[len(request.begun_T) :],
            )
            for request, s, text, step_T in zip(requests, sampled, texts, steps_GT, strict=True)
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
        if self.spec.kind == "none":
            return
        home = self.lane.home
        async with home.passage() as there:
            with home.no_room(there):
                await self._ask(PolicyWorker.export, there, "float32")
            await home.fetch(there, folder)

    async def checkpoint(self, folder: Path) -> None:
        """See `Policy.checkpoint`."""
        home = self.lane.home
        async with home.passage() as there:
            with home.no_room(there):
                await self._ask(PolicyWorker.save_fork, there)
                await self._ask_critic(CriticWorker.save_fork, f"{there}/{CRITIC_STATE}")
            await home.fetch(there, folder)
        (folder / "version").write_text(str(self.version), encoding="utf-8")

    async def restore(self, folder: Path) -> None:
        """See `Policy.restore`."""
        home = self.lane.home
        async with home.passage() as there:
            await home.send(folder, there)
            await self._ask(PolicyWorker.restore_fork, there)
            await self._ask_critic(CriticWorker.restore_fork, f"{there}/{CRITIC_STATE}")
        self.version = int((folder / "version").read_text(encoding="utf-8"))
        await self._forget_exports()

    async def load(self, folder: Path) -> None:
        """See `Policy.load`."""
        home = self.lane.home
        async with home.passage() as there:
            await home.send(folder, there)
            await self._ask(PolicyWorker.load_fork, there)
        self.version += 1
        await self._forget_exports()

    async def open(self) -> None:
        """Make the fork in the learner and the critic."""
        if self.spec.kind != "none":
            workers = await self.lane.learner()
            async with self.lane.turn:
                self.lane.forks.add(self.name)  # before: the learner opens it even if the caller is cancelled meanwhile
                try:
                    await workers.call(PolicyWorker.open_fork, self.name, self.spec)
                except Exception:
                    self.lane.forks.remove(self.name)
                    raise
            await self._ask_critic(CriticWorker.open_fork, replace(self.spec, lr={"main": self.spec.critic_lr}))

    async def close(self) -> None:
        """Discard the fork, and what the sampler holds of it."""
        await self._forget_exports()
        if self.name in self.lane.forks:
            await self._ask(PolicyWorker.close_fork)
            self.lane.forks.remove(self.name)
            await self._ask_critic(CriticWorker.close_fork)
            if self.lane.settings.samples:
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
                await uncancelled(self._export())
            return self.exported[self.version]

    async def _export(self) -> None:
        """Export this version, in place of the one before."""
        version = self.version
        folder = self.lane.home.delta_folder(f"{self.name}@{version}")
        dtype = "float32" if self.lane.settings.adapter else self.lane.settings.dtype
        with self.lane.home.no_room(folder):
            await self._ask(PolicyWorker.export, folder, dtype)
        await self._forget_exports()
        self.exported = {version: folder}

    async def _forget_exports(self) -> None:
        folders, self.exported = list(self.exported.values()), {}
        await self.lane.home.remove(folders)

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
        if delta.kind != "none":
            await self.lane.learner()  # until it is loaded there is nothing to undo, and a caller that is cancelled leaves at once
        try:
            await uncancelled(fork.open())
            yield fork
        except BaseException:
            with contextlib.suppress(Exception):  # the error of the block is the one to tell
                await uncancelled(fork.close())
            raise
        await uncancelled(fork.close())

    @property
    def forks(self) -> frozenset[str]:
        """The names of the forks that the learner holds."""
        return frozenset(self.lane.forks)

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
