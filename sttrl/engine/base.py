"""What a method may ask of an engine, as protocols, and the settings of an engine. Imports neither torch nor Ray."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol, get_args

from sttrl.types import DeltaSpec, Measure, Objective, Request, Rollout, TokenStats, TrainableModule, TrainGroup, UpdateStats

JUST_LOGPROBS = Measure()
KeptDelta = Path
"""The folder in which `Policy.save` has kept a delta."""


class Samples(Protocol):
    """Whatever gives responses to requests."""

    async def sample(self, requests: Sequence[Request]) -> tuple[Rollout, ...]:
        """One response to each request, in their order and in one batch; their prompts may differ."""
        ...


class Policy(Protocol):
    """A fork of the base model. It starts exactly at the base; what it learns is its delta, which is discarded when the fork ends."""

    @property
    def version(self) -> int:
        """0 at the base, and one more after every update."""
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
        """Go back to the state that `checkpoint` wrote."""
        ...

    async def load(self, folder: KeptDelta) -> None:
        """Take the delta that `save` wrote, of this run or of another one. Raises `StepError` where it does not fit."""
        ...

    async def checkpoint(self, folder: Path) -> None:
        """Write everything that the next update depends on: delta, both Adam moments, position in the schedule, and version."""
        ...


class Engine(Protocol):
    """Makes forks of one base model."""

    def fork(self, name: str, delta: DeltaSpec) -> AbstractAsyncContextManager[Policy]:
        """A policy that equals the base. Leaving the context discards its delta."""
        ...

    async def close(self) -> None:
        """End every process the engine started."""
        ...


BaseDtype = Literal["same", "int8", "nf4"]
"""How the learner holds the frozen base of an adapter: as ``dtype`` says, or in 8 or 4 bits."""
OptimizerName = Literal["adamw", "adamw_8bit"]
"""AdamW, or AdamW with both moments in 8 bits (arXiv 2110.02861)."""


@dataclass(frozen=True, kw_only=True)
class AdapterShape:
    """The LoRA adapter that every fork gets (arXiv 2106.09685).

    Its scale is alpha / rank, or alpha / sqrt(rank) where ``rank_stabilised`` (arXiv 2312.03732). ``targets``: names of the layers that
    it changes, embeddings and head among them; none: all linear ones but the head. ``trainable_modules`` are trained whole beside it.
    ``base``: how the learner holds the rest.
    """

    rank: int
    alpha: int
    rank_stabilised: bool = False
    targets: tuple[str, ...] = ()
    trainable_modules: tuple[TrainableModule, ...] = ()
    base: BaseDtype = "same"

    @property
    def ends(self) -> tuple[TrainableModule, ...]:
        """Which of embeddings and head change, by LoRA or whole."""
        return tuple(name for name in get_args(TrainableModule) if name in self.targets or name in self.trainable_modules)


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """Everything an engine is built from. ``model_folder`` is a local Hugging Face folder; ``adapter`` None trains full weights.

    ``kv_cache_mib`` bounds the sampler's key-value cache on CPU, ``gpu_memory_utilization`` on GPU. ``lanes``: how many lanes share the
    machine; on GPU each has ``gpus_per_lane``. ``max_forks``: forks that are open at once. ``separate_reference``: another worker computes
    the base's log-probs. ``trains``: whether there is a learner.
    ``samples``: whether there is a sampler. ``critic``: whether there is a critic, for PPO. ``micro_batch_tokens``
    bounds the row tokens of one forward and backward pass; None: the learner chooses.
    """

    model_folder: str
    device: Literal["cpu", "cuda"]
    dtype: Literal["bfloat16", "float32"]
    adapter: AdapterShape | None
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
    samples: bool = True
    optimizer: OptimizerName = "adamw"
    lanes: int = 1
    gpus_per_lane: int = 1

    @property
    def samples_adapters(self) -> bool:
        """Whether the sampler holds the adapters of many forks at once. If not, it holds the merged weights of one policy at a time.

        vLLM's adapters are slow on CPU, and cannot change embeddings or the head.
        """
        return self.device == "cuda" and self.adapter is not None and not self.adapter.ends

    def is_like(self, other: EngineSettings) -> bool:
        """Whether one engine could serve both: they differ only in capacities."""
        return replace(self, **{name: getattr(other, name) for name in CAPACITIES}) == other

    def together(self, other: EngineSettings) -> EngineSettings:
        """The settings of an engine that serves both."""
        assert self.is_like(other), "they need two engines"
        return replace(self, **{name: max(getattr(self, name), getattr(other, name)) for name in CAPACITIES})

    def covers(self, other: EngineSettings) -> bool:
        """Whether an engine with these settings serves the other ones too."""
        return self.is_like(other) and self.together(other) == self

    def serves(self, other: EngineSettings) -> bool:
        """Whether an engine with these settings can do the work of the other ones, even if more sequences have to wait for their turn."""
        return self.covers(replace(other, max_num_seqs=self.max_num_seqs, kv_cache_mib=self.kv_cache_mib))


CAPACITIES = ("max_model_len", "max_num_seqs", "kv_cache_mib", "gpu_memory_utilization", "max_forks", "trains", "critic", "samples")
"""The settings where a larger value also serves whoever asks for a smaller one."""
