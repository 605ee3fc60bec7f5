"""The sampler: an async Ray actor around vLLM's AsyncLLM. Token ids in, token ids and their log-probs out.

`EngineSettings.samples_adapters` says how a fork reaches vLLM. Where it holds, each version is a LoRA adapter of its own, and forks are
sampled side by side. Where not, the merged weights of one fork are resident at a time: requests of another fork wait until the batch is
empty, then the weights are swapped.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

from sttrl.engine.base import EngineSettings
from sttrl.engine.cpu.parts import VARIABLE, is_on, switched_off
from sttrl.engine.failures import cause, log_name, starting, traceback_to_log
from sttrl.engine.processes import HOST_ALLOCATOR, on_cpu
from sttrl.engine.vllm.records import BASE, Adapter, PolicyKey, Sampled
from sttrl.errors import EngineError
from sttrl.types import Request

FATAL = "EngineDeadError"
"""vLLM's error for an engine that will answer no more; any other error of a living process costs one question."""


class Sampler:
    """The actor. One instance a lane."""

    def __init__(self, settings: EngineSettings) -> None:
        self.settings = settings
        self.adapters = settings.samples_adapters
        self.resident = BASE
        self.waiting: list[str] = []
        self.in_flight = 0
        self.turn = asyncio.Condition()
        self.adapter_ids: dict[str, int] = {}
        self.next_adapter_id = itertools.count(1)

    async def pid(self) -> int:
        """Process id of the actor."""
        return os.getpid()

    async def load(self) -> None:
        """Start vLLM and load the model. Raises `EngineError`."""
        with starting("sampler"):
            # Imported in the actor: the driver names this class and must not load vLLM.
            from sttrl.engine.vllm.generation import Generation

            self.vllm = Generation(self.settings)

    async def sample(self, key: PolicyKey, requests: Sequence[Request]) -> list[Sampled]:
        """One response to each request from the policy ``key``, in their order. Raises `EngineError` when vLLM's engine has died."""
        with asking_vllm():
            async with self._holding(key) as lora:
                return await self.vllm.generate(requests, lora, key.bias_file, alone=self.in_flight <= 1)

    async def forget(self, fork: str) -> None:
        """Drop every adapter of a fork that has ended. Raises `EngineError` when vLLM's engine has died."""
        with asking_vllm():
            for weights in [w for w in self.adapter_ids if w.startswith(f"{fork}@")]:
                await self.vllm.remove_adapter(self.adapter_ids.pop(weights))

    @asynccontextmanager
    async def _holding(self, key: PolicyKey) -> AsyncIterator[Adapter | None]:
        async with self.turn:
            if not self.adapters:
                await self._wait_for_turn(key.weights)
                if self.resident != key.weights:
                    await self._swap(key)
            adapter = await self._adapter(key) if self.adapters else None
            self.in_flight += 1
        try:
            yield adapter
        finally:
            async with self.turn:
                self.in_flight -= 1
                self.turn.notify_all()

    async def _wait_for_turn(self, weights: str) -> None:
        """Until these weights are resident, or may be. The base comes last: what many questions ask of it becomes one large batch."""
        self.waiting.append(weights)
        try:
            await self.turn.wait_for(lambda: self._may_enter(weights))
        finally:
            self.waiting.remove(weights)
            self.turn.notify_all()

    def _may_enter(self, weights: str) -> bool:
        """Whether requests of these weights may be sampled now. Those of a resident base let every other policy go first: new ones could
        come without end, and then the batch would never be empty."""
        if self.resident == weights:
            return weights != BASE or self._next() == BASE
        return self.in_flight == 0 and weights == self._next()

    def _next(self) -> str:
        return next((weights for weights in self.waiting if weights != BASE), BASE)

    async def _swap(self, key: PolicyKey) -> None:
        """Make ``key`` resident. The prefix cache belongs to the old weights, so it goes with them."""
        self.resident = "nothing"
        await self.vllm.load_policy(key.folder)
        self.resident = key.weights

    async def _adapter(self, key: PolicyKey) -> Adapter | None:
        if key.folder is None:
            return None
        if key.weights not in self.adapter_ids:
            await self.forget(key.fork)
            self.adapter_ids[key.weights] = next(self.next_adapter_id)
        return Adapter(key.weights, self.adapter_ids[key.weights], key.folder)


@contextmanager
def asking_vllm() -> Iterator[None]:
    """An error in this block goes to the log; that vLLM's engine has died becomes an `EngineError` with the cause."""
    try:
        yield
    except Exception as error:
        traceback_to_log(error)
        if type(error).__name__ != FATAL:
            raise
        raise EngineError(f"The sampler failed: {FATAL}, because of {cause(error)}.", f"The rest is in {log_name()}.") from error


def environment(settings: EngineSettings, threads: int) -> dict[str, str]:
    """Environment of the sampler's process. On CPU vLLM computes in this process, with ``threads`` threads."""
    common = {"VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR", "TOKENIZERS_PARALLELISM": "false"}
    if settings.device == "cpu":
        common |= {
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0" if is_on("engine_thread") else "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            **on_cpu(threads),
            **HOST_ALLOCATOR,
            VARIABLE: ",".join(switched_off()),
        }
    return common
