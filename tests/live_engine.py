"""The real engine, driven from tests that are plain functions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import psutil
from tiny_model import STOP_IDS

from sttrl.engine.base import AdapterShape, EngineSettings, Policy
from sttrl.engine.lanes import Lane, RayEngine
from sttrl.engine.models import load_tokenizer
from sttrl.engine.node import Keeper, Room
from sttrl.types import Group, Measure, Request, Rollout, Row, Sampling, TokenStats, TrainGroup

T = TypeVar("T")

LONG_S = 300
"""Nothing that will end takes so long, on however busy a machine."""

PROMPT_T = (1, 13, 15, 16, 7, 20, 6, 21, 22, 23, 24, 25, 26, 27, 2, 1, 14)
"""The tiny model's tokens of "What is 4 * 3 ? Reply with only the number ." as a chat."""
OTHER_PROMPT_T = (1, 13, 15, 16, 5, 19, 9, 21, 2, 1, 14)


def settings_for(model: Path, **changes: Any) -> EngineSettings:
    """Settings of a small engine on CPU."""
    values: dict[str, Any] = {
        "model_folder": str(model), "device": "cpu", "dtype": "float32", "adapter": AdapterShape(rank=8, alpha=16), "learner_ranks": 1,
        "max_model_len": 96, "max_num_seqs": 32, "kv_cache_mib": 64, "gpu_memory_utilization": 0.4, "micro_batch_tokens": 256,
        "max_forks": 1, "separate_reference": False, "trust_remote_code": False, "stop_token_ids": STOP_IDS, "trains": True,
    }  # fmt: skip
    return EngineSettings(**{**values, **changes})


async def sampled(policy: Policy, prompt_T: Sequence[int], sampling: Sampling | Sequence[Sampling], seeds_G: Sequence[int]) -> Group:
    """The responses to one prompt, all sampled alike or each in its own way."""
    ways = [sampling] * len(seeds_G) if isinstance(sampling, Sampling) else sampling
    asked = [Request(prompt_T=tuple(prompt_T), sampling=way, seed=seed) for way, seed in zip(ways, seeds_G, strict=True)]
    return Group(prompt_T=tuple(prompt_T), rollout_G=await policy.sample(asked))


async def scores(policy: Policy, group: Group, temperature: float = 1.0, **at: Any) -> list[tuple[float, ...]]:
    """The learner's log-probs of the responses to one prompt."""
    (stats_G,) = await policy.score(TrainGroup.of(group), Measure(temperature=temperature), **at)
    return logprobs_of(stats_G)


def group_of(group: Group, advantage_G: Sequence[float] | None = None) -> TrainGroup:
    """A whole group to train on; its advantages alternate."""
    chosen = advantage_G or [1.0 if i % 2 == 0 else -1.0 for i in range(len(group.rollout_G))]
    row_G = tuple(Row.of(r, (a,) * len(r.token_T)) for a, r in zip(chosen, group.rollout_G, strict=True))
    return TrainGroup(prefix_T=group.prompt_T, row_G=row_G)


def rollout(token_T: tuple[int, ...], logprob_T: tuple[float, ...] | None = None) -> Rollout:
    """A response that nobody sampled."""
    return Rollout(seed=0, version=0, token_T=token_T, logprob_T=logprob_T or (-1.0,) * len(token_T), finish="stop", text="")


def logprobs_of(stats_G: Sequence[TokenStats]) -> list[tuple[float, ...]]:
    """The log-probs of scored responses."""
    return [stats.logprob_T for stats in stats_G if stats.logprob_T is not None]


def living(processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Those that do not end. Where nobody collects orphans, a dead one stays in the table as a zombie."""
    deadline = time.monotonic() + LONG_S
    while (left := [p for p in processes if lives(p)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


class KeeperHere:
    """A lane's keeper in the test's own process; it watches nobody."""

    def __init__(self, settings: EngineSettings) -> None:
        self.keeper = Keeper(settings, lanes=1)

    async def ask(self, method: Callable[..., T], *arguments: Any) -> T | None:
        return None if method == Keeper.watch else method(self.keeper, *arguments)


def at_home(lane: Lane, folder: Path) -> Lane:
    """The lane with a home in this process, without Ray."""
    lane.home.keeper, lane.home.room = KeeperHere(lane.settings), Room(str(folder), str(folder), {}, {})  # type: ignore[assignment]
    lane.home.group = SimpleNamespace(bundle_count=2)
    return lane


class LiveEngine:
    """A started `RayEngine` and the event loop it lives on."""

    def __init__(self, settings: EngineSettings) -> None:
        self.loop = asyncio.Runner()
        self.settings, self.tokenizer = settings, load_tokenizer(Path(settings.model_folder))
        self.engine = RayEngine(settings, self.tokenizer)
        self.run(self.engine.start())
        self.run(self.engine.lane.learner())

    def run(self, what: Coroutine[Any, Any, T]) -> T:
        """Until it is done."""
        return self.loop.run(what)

    def close(self) -> None:
        """End its processes."""
        self.run(self.engine.close())
        self.loop.close()


class EngineHouse:
    """One live engine at a time: asking for another closes the one before."""

    def __init__(self) -> None:
        self.live: LiveEngine | None = None

    def get(self, settings: EngineSettings) -> LiveEngine:
        """The engine with these settings."""
        if self.live is None or self.live.settings != settings:
            self.close()
            self.live = LiveEngine(settings)
        return self.live

    def close(self) -> None:
        """Close the live one, if there is one."""
        live, self.live = self.live, None
        if live is not None:
            live.close()


def everything(folder: Path) -> dict[str, bytes]:
    """What a run sampled, decided, learned and answered."""
    files = [folder / "results.jsonl", *folder.glob("rollouts/*"), *folder.glob("adapters/**/*.safetensors")]
    return {str(f.relative_to(folder)): f.read_bytes() for f in files}
