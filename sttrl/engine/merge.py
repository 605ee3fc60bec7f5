"""Weights into vLLM without a second copy in memory: the base from its safetensors files, plus a fork's delta.

Runs inside vLLM's worker process, which mixes `PolicyWeights` into its worker class (``worker_extension_cls``).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open

if TYPE_CHECKING:
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
HEAD = "lm_head.weight"
PEFT_PREFIX = "base_model.model."
OPEN_AT_ONCE = 16
"""Tensors read before a file is closed and opened again: what has been read of an open one counts as this process's memory."""


class PolicyWeights:
    """Worker extension: `load_policy` replaces the weights that vLLM samples from."""

    model_runner: GPUModelRunner

    def load_policy(self, base_folder: str, delta_folder: str | None) -> None:
        """Load the base, or the base with the delta in ``delta_folder`` (PEFT layout, or full safetensors)."""
        self.model_runner.reload_weights(weights_iterator=policy_weights(Path(base_folder), delta_folder and Path(delta_folder) or None))
        pack_tied_weights(self.model_runner.get_model())
        release_freed_memory()


def policy_weights(base: Path, delta: Path | None) -> Iterator[tuple[str, torch.Tensor]]:
    """Every weight of a policy by checkpoint name: the base, a full replacement, or the base with an adapter merged in."""
    if delta is None:
        yield from stored(base)
    elif not (delta / ADAPTER_CONFIG).exists():
        yield from stored(delta)
    else:
        adapter, whole = _adapter(delta)
        body = next((name for name in adapter if name != HEAD), "").partition(".")[0]
        for name, weight in stored(base):
            # A checkpoint of the body alone, as GPT-2's on the hub, does not name it.
            key = name if name in adapter or name in whole else f"{body}.{name}"
            low_rank = adapter.pop(key, None)
            yield name, whole.pop(key, weight) if low_rank is None else merged(weight, *low_rank)
        # A head that is tied to trained embeddings is in the adapter and not in the base; vLLM ties it by itself.
        left = {*adapter, *whole} - {HEAD}
        assert not left, f"adapter weights without a base weight: {sorted(left)[:3]}"


def pack_tied_weights(model: Any) -> None:
    """Pack the weights that two layers share again, such as those of a head that is tied to the embeddings.

    On CPU a layer of vLLM computes with a packed copy of its weight. `reload_weights` renews the copies of the layers that load a weight,
    and a tied head loads none.
    """
    packed: dict[int, list[Any]] = {}
    for layer in model.modules():
        if hasattr(layer, "cpu_linear") and layer.weight.numel():
            packed.setdefault(layer.weight.data_ptr(), []).append(layer)
    for layers in packed.values():
        for layer in layers if len(layers) > 1 else ():
            layer.quant_method.process_weights_after_loading(layer)


def release_freed_memory() -> None:
    """Give the kernel what glibc keeps of the weights that were replaced: a quarter of vLLM's process. Another libc has no such call."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def stored(folder: Path, files: str = "*.safetensors") -> Iterator[tuple[str, torch.Tensor]]:
    """The weights in a folder's files, one at a time."""
    for file in sorted(folder.glob(files)):
        with safe_open(file, framework="pt") as weights:
            names = list(weights.keys())
        for start in range(0, len(names), OPEN_AT_ONCE):
            with safe_open(file, framework="pt") as weights:
                for name in names[start : start + OPEN_AT_ONCE]:
                    yield name, weights.get_tensor(name)


LowRank = tuple[torch.Tensor, torch.Tensor, float]
"""LoRA factors of a stored weight ``[out, in]``, and their scale: (``[out, r]``, ``[r, in]``, scale)."""


def split_adapter(
    settings: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], transposed: Callable[[str], bool]
) -> tuple[dict[str, LowRank], dict[str, torch.Tensor]]:
    """By the name of the base weight: the factors that are added to it, and the weights that are trained whole and replace it.

    ``transposed`` says of a layer whether its weight is stored as ``[in, out]``, as that of transformers' Conv1D is (GPT-2). An embedding's
    weight is ``[V, D]`` and its factors are those of ``[D, V]``.
    """
    scale = settings["lora_alpha"] / (math.sqrt(settings["r"]) if settings.get("use_rslora") else settings["r"])
    whole = {name.removeprefix(PEFT_PREFIX): weight for name, weight in tensors.items()}
    found: dict[str, LowRank] = {}
    for part, end, turned in (("lora_", ".weight", transposed), ("lora_embedding_", "", lambda _: True)):
        for name in [key.removesuffix(f".{part}A{end}") for key in whole if key.endswith(f".{part}A{end}")]:
            right, left = (whole.pop(f"{name}.{part}{factor}{end}") for factor in "AB")
            found[f"{name}.weight"] = (right.T, left.T, scale) if turned(name) else (left, right, scale)
    return found, whole


def merged(weight: torch.Tensor, left: torch.Tensor, right: torch.Tensor, scale: float) -> torch.Tensor:
    """In float32: vLLM rounds it to the dtype it samples in, which may be finer than the base's on disk."""
    return weight.to(torch.float32, copy=True).addmm_(left.float(), right.float(), alpha=scale)


def _adapter(folder: Path) -> tuple[dict[str, LowRank], dict[str, torch.Tensor]]:
    settings = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    return split_adapter(settings, dict(stored(folder, ADAPTER_WEIGHTS)), lambda _: bool(settings.get("fan_in_fan_out")))
