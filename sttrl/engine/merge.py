"""Weights into vLLM without a second copy in memory: the base from its safetensors files, plus a fork's delta.

Runs inside vLLM's worker process, which mixes `PolicyWeights` into its worker class (``worker_extension_cls``).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open

if TYPE_CHECKING:
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
PEFT_PREFIX = "base_model.model."
OPEN_AT_ONCE = 16
"""Tensors read before a file is closed and opened again: what has been read of an open one counts as this process's memory."""


class PolicyWeights:
    """Worker extension: `load_policy` replaces the weights that vLLM samples from."""

    model_runner: GPUModelRunner

    def load_policy(self, base_folder: str, delta_folder: str | None) -> None:
        """Load the base, or the base with the delta in ``delta_folder`` (PEFT layout, or full safetensors)."""
        self.model_runner.reload_weights(weights_iterator=policy_weights(Path(base_folder), delta_folder and Path(delta_folder) or None))
        release_freed_memory()


def policy_weights(base: Path, delta: Path | None) -> Iterator[tuple[str, torch.Tensor]]:
    """Every weight of a policy by checkpoint name: the base, a full replacement, or the base with LoRA merged in."""
    if delta is None:
        yield from _stored(base)
    elif not (delta / ADAPTER_CONFIG).exists():
        yield from _stored(delta)
    else:
        adapter = _adapter(delta)
        body = next(iter(adapter), "").partition(".")[0]
        for name, weight in _stored(base):
            # A checkpoint of the body alone, as GPT-2's on the hub, does not name it.
            low_rank = adapter.pop(name, None) or adapter.pop(f"{body}.{name}", None)
            yield name, weight if low_rank is None else _merged(weight, *low_rank)
        assert not adapter, f"adapter weights without a base weight: {sorted(adapter)[:3]}"


def release_freed_memory() -> None:
    """Give the kernel what glibc keeps of the weights that were replaced: a quarter of vLLM's process. Another libc has no such call."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _stored(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as weights:
            names = list(weights.keys())
        for start in range(0, len(names), OPEN_AT_ONCE):
            with safe_open(file, framework="pt") as weights:
                for name in names[start : start + OPEN_AT_ONCE]:
                    yield name, weights.get_tensor(name)


def _adapter(folder: Path) -> dict[str, tuple[torch.Tensor, torch.Tensor, float]]:
    """LoRA factors by the name of the base weight they change: (``[out, r]``, ``[r, in]``, scale), or for a transposed weight
    (``[in, r]``, ``[r, out]``, scale)."""
    settings = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    scale = settings["lora_alpha"] / settings["r"]
    with safe_open(folder / ADAPTER_WEIGHTS, framework="pt") as weights:
        tensors = {name: weights.get_tensor(name) for name in weights.keys()}  # noqa: SIM118 - not a dict
    names = {name.removeprefix(PEFT_PREFIX).split(".lora_")[0] for name in tensors}
    factors = {name: tuple(tensors[f"{PEFT_PREFIX}{name}.lora_{factor}.weight"] for factor in "BA") for name in names}
    if settings.get("fan_in_fan_out"):  # transformers' Conv1D, of GPT-2: its weight is [in, out]
        factors = {name: (a.T, b.T) for name, (b, a) in factors.items()}
    return {f"{name}.weight": (left, right, scale) for name, (left, right) in factors.items()}


def _merged(weight: torch.Tensor, left: torch.Tensor, right: torch.Tensor, scale: float) -> torch.Tensor:
    """In float32: vLLM rounds it to the dtype it samples in, which may be finer than the base's on disk."""
    return weight.to(torch.float32, copy=True).addmm_(left.float(), right.float(), alpha=scale)
