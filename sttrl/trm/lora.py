"""LoRA on every linear map of a model, as Trelis' fork has it: the heads too, while the token embedding goes on training."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sttrl.errors import DataError
from sttrl.trm.arch import TABLE, ArchConfig
from sttrl.trm.layers import Linear
from sttrl.trm.recursion import TinyRecursiveModel

FACTOR_A, FACTOR_B = "._lora_A", "._lora_B"


def apply_lora(model: TinyRecursiveModel, arch: ArchConfig, generator: torch.Generator) -> None:
    """Put factors of ``arch.lora_rank`` beside every weight, and freeze what ``arch`` does not let train."""
    for linear in (module for module in model.modules() if isinstance(module, Linear)):
        linear.add_factors(arch.lora_rank, arch.lora_alpha / arch.lora_rank, arch.lora_dropout, generator=generator)
        linear.weight.requires_grad_(arch.lora_train_base)
        if linear.bias is not None:
            linear.bias.requires_grad_(arch.lora_train_bias)


def adapter_state(model: TinyRecursiveModel) -> dict[str, Tensor]:
    """What adaptation changes, to be kept beside a base: what trains in the trunk, LoRA's factors, and the puzzle table."""
    state = {name: value.detach() for name, value in model.named_parameters() if value.requires_grad or name.endswith((FACTOR_A, FACTOR_B))}
    return state | ({} if model.table is None else {TABLE: model.table.weights})


def merge_state(state: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """The weights of a plain model that computes the same: the product of its factors, in float32, is added to each weight.

    ``state``: weights whose factors say their rank but not their alpha. Raises `DataError` for half a pair.
    """
    merged = {name: value for name, value in state.items() if not name.endswith((FACTOR_A, FACTOR_B))}
    for name in state:
        if name.endswith(FACTOR_B) and name.removesuffix(FACTOR_B) + FACTOR_A not in state:
            raise DataError(f"{name} has no {FACTOR_A[1:]} beside it.", "Give a complete file.")
        if not name.endswith(FACTOR_A):
            continue
        base = name.removesuffix(FACTOR_A)
        if base + FACTOR_B not in state or f"{base}.weight" not in state:
            raise DataError(f"{name} has no {FACTOR_B[1:]} or no weight beside it.", "Give a complete file.")
        down, up, weight = state[name].float(), state[base + FACTOR_B].float(), state[f"{base}.weight"]
        merged[f"{base}.weight"] = weight + (alpha / len(down) * (up @ down)).to(weight.dtype)
    return merged
