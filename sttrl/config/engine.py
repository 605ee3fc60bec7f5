"""The model, and the hardware that samples and trains it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from sttrl.config.rules import OPTIONAL_COUNT, POSITIVE_FRACTION, Group, at_least


@dataclass(frozen=True, kw_only=True)
class EngineOptions(Group):
    """The model, and the hardware that samples and trains it."""

    model: str = "builtin/SmolLM2-135M-Instruct"
    """A hub id (org/name, org/name@revision), a local Hugging Face folder, or builtin/<name>."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where sampler and learner run; auto: cuda if there is a GPU."""
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """Dtype of sampling and of the learner's matrix products; auto: bfloat16 if the processor has instructions for it, else float32."""
    base_dtype: Literal["same", "int8", "nf4"] = "same"
    """How the learner holds the frozen base of a LoRA adapter: as --dtype, or in 8 or 4 bits (QLoRA). Needs the package bitsandbytes."""
    learner_ranks: Annotated[int, at_least(1)] = 1
    """Learner processes; weights and responses are sharded over them (FSDP2)."""
    separate_ref_gpu: bool = False
    """Keep the reference policy of the KL term in a separate worker and resource pool; full weights only."""
    micro_batch_tokens: Annotated[int | None, OPTIONAL_COUNT] = None
    """Response tokens in one forward and backward pass of the learner; unset: 1024 on CPU, 16384 on GPU."""
    kv_cache_mib: Annotated[int | None, at_least(16)] = None
    """MiB of the sampler's key-value cache on CPU; unset: what the samples in flight can need, at most 256."""
    gpu_memory_utilization: Annotated[float, POSITIVE_FRACTION] = 0.4
    """Fraction of a GPU's memory that the sampler takes."""
    trust_remote_code: bool = False
    """Run code that comes with the model's repository."""
