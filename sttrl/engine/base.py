"""What a method may ask of an engine: the protocols of DESIGN.md, without a heavy import."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

from sttrl.types import DeltaSpec, Measure, Objective, Request, Rollout, TokenStats, TrainGroup, UpdateStats

JUST_LOGPROBS = Measure()


class Policy(Protocol):
    """A fork of the base model: it starts exactly at the base and holds a delta that ends with the fork."""

    @property
    def version(self) -> int:
        """0 is the base; one more after every update."""
        ...

    async def sample(self, requests: Sequence[Request]) -> tuple[Rollout, ...]:
        """One response to each request, in their order and in one batch; their prompts may differ."""
        ...

    async def score(
        self, groups: Sequence[TrainGroup], measure: Measure = JUST_LOGPROBS, at: Literal["policy", "base"] = "policy"
    ) -> tuple[tuple[TokenStats, ...], ...]:
        """Statistics of every row's tokens ``[_P][_G]`` under this policy or under the base, by one pass of the learner."""
        ...

    async def values(self, groups: Sequence[TrainGroup]) -> tuple[tuple[tuple[float, ...], ...], ...]:
        """What the fork's critic expects before every token, ``[_P][_G][_T]``; for an engine with a critic."""
        ...

    async def update(self, groups: Sequence[TrainGroup], objective: Objective) -> UpdateStats:
        """Take the objective's optimiser steps on all groups together, and the critic's.

        Raises `DivergedError` when a step is not finite; nothing is applied then.
        """
        ...

    async def save(self, folder: Path) -> None:
        """Write the delta: PEFT's layout for LoRA, safetensors for full weights."""
        ...

    async def restore(self, folder: Path) -> None:
        """Go back to a state that `checkpoint` wrote: delta, moments, schedule and version."""
        ...

    async def checkpoint(self, folder: Path) -> None:
        """Write everything the next update depends on: delta, both Adam moments, schedule position, version."""
        ...


class Engine(Protocol):
    """Makes forks of one base model."""

    def fork(self, name: str, delta: DeltaSpec) -> AbstractAsyncContextManager[Policy]:
        """A policy equal to the base; leaving the context discards its delta."""
        ...

    async def close(self) -> None:
        """End every process the engine started."""
        ...


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """Everything an engine is built from. ``model_folder`` is a local Hugging Face folder.

    ``kv_cache_mib`` bounds the sampler's key-value cache on CPU; on GPU ``gpu_memory_utilization`` does. ``lanes`` share the
    machine; on GPU one of them has ``gpus_per_lane``. ``trains`` False starts no learner; ``critic`` starts one more worker, for
    PPO. ``micro_batch_tokens`` bounds the response tokens of one forward and backward pass; None leaves it to the learner.
    """

    model_folder: str
    device: Literal["cpu", "cuda"]
    dtype: Literal["bfloat16", "float32"]
    lora_rank: int
    lora_alpha: int
    learner_ranks: int
    max_model_len: int
    max_num_seqs: int
    kv_cache_mib: int
    gpu_memory_utilization: float
    micro_batch_tokens: int | None
    max_forks: int
    separate_reference: bool
    trust_remote_code: bool
    stop_token_ids: tuple[int, ...]
    trains: bool
    critic: bool = False
    lanes: int = 1
    gpus_per_lane: int = 1

    def is_like(self, other: EngineSettings) -> bool:
        """Whether one engine could do what both ask for: they differ in how much, not in what."""
        return replace(self, **{name: getattr(other, name) for name in AMOUNTS}) == other

    def together(self, other: EngineSettings) -> EngineSettings:
        """What an engine must be to do what both ask for."""
        assert self.is_like(other), "two engines"
        return replace(self, **{name: max(getattr(self, name), getattr(other, name)) for name in AMOUNTS})

    def covers(self, other: EngineSettings) -> bool:
        """Whether an engine with these settings can do what the other asks for."""
        return self.is_like(other) and self.together(other) == self


AMOUNTS = ("max_model_len", "max_num_seqs", "kv_cache_mib", "gpu_memory_utilization", "max_forks", "trains", "critic")
"""Settings of which more serves those who want less."""
