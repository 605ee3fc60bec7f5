"""Models by the name of their architecture. A new architecture is a class in `architectures` and a line of `ARCHITECTURES`."""

from __future__ import annotations

import torch

from sttrl.errors import UsageError
from sttrl.trm.arch import TRM, ArchConfig, Sizes
from sttrl.trm.architectures import HierarchicalModel, PlainTransformer, SingleLatent, SixLatents
from sttrl.trm.lora import apply_lora
from sttrl.trm.recursion import Batch, Carry, Outputs, TinyRecursiveModel

__all__ = ["ARCHITECTURES", "Batch", "Carry", "Outputs", "TinyRecursiveModel", "build_model"]

ARCHITECTURES: dict[str, type[TinyRecursiveModel]] = {
    TRM: TinyRecursiveModel,
    "recursive_reasoning.trm_singlez@TinyRecursiveReasoningModel_ACTV1": SingleLatent,
    "recursive_reasoning.trm_hier6@TinyRecursiveReasoningModel_ACTV1": SixLatents,
    "recursive_reasoning.hrm@HierarchicalReasoningModel_ACTV1": HierarchicalModel,
    "recursive_reasoning.transformers_baseline@Model_ACTV2": PlainTransformer,
}
"""Architectures by the original's ``arch.name``."""


def build_model(arch: ArchConfig, sizes: Sizes, *, generator: torch.Generator, device: torch.device | str = "cpu") -> TinyRecursiveModel:
    """A new model: weights drawn from the generator, puzzle rows zero, LoRA where the architecture has a rank.

    Raises `UsageError` for an architecture that there is not, or that cannot be computed.
    """
    if arch.name not in ARCHITECTURES:
        raise UsageError(f"arch.name is {arch.name!r}.", f"Choose one of {', '.join(ARCHITECTURES)}.")
    model = ARCHITECTURES[arch.name](arch, sizes, generator=generator, device=device)
    if arch.lora_rank:
        apply_lora(model, arch, generator)
    return model
