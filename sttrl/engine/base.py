"""What a method may ask of an engine: the protocols of DESIGN.md, without a heavy import."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from sttrl.types import DeltaSpec, Group, Objective, Rollout, Sampling, TrainBatch, UpdateStats


class Policy(Protocol):
    """A fork of the base model: it starts exactly at the base and holds a delta that ends with the fork."""

    @property
    def version(self) -> int:
        """0 is the base; one more after every update."""
        ...

    async def sample(self, prompt_T: Sequence[int], sampling: Sampling, seeds_G: Sequence[int]) -> Group:
        """Sample one response per seed; the same seeds, prompt and version give the same responses."""
        ...

    async def score(
        self, prompt_T: Sequence[int], rollout_G: Sequence[Rollout], temperature: float, at: Literal["policy", "base"] = "policy"
    ) -> tuple[tuple[float, ...], ...]:
        """Log-probability of every response token, ``[_G][_T]``, under this policy or under the base."""
        ...

    async def update(self, batch: TrainBatch, objective: Objective) -> UpdateStats:
        """Take one optimiser step. Raises `DivergedError` when the step is not finite; nothing is applied then."""
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

    ``kv_cache_mib`` bounds the sampler's key-value cache on CPU; on GPU ``gpu_memory_utilization`` does.
    ``trains`` False starts no learner. ``micro_batch_tokens`` bounds the packed tokens of one forward and backward pass.
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
    micro_batch_tokens: int
    max_forks: int
    separate_reference: bool
    trust_remote_code: bool
    stop_token_ids: tuple[int, ...]
    trains: bool
