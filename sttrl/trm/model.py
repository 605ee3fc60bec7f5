"""Models by the name of their architecture. A new architecture is a class in `architectures` and a line of `ARCHITECTURES`."""

from __future__ import annotations

import torch

from sttrl.errors import UsageError
from sttrl.trm.arch import TRM, ArchConfig, Sizes
from sttrl.trm.recursion import Batch, Carry, Outputs, TinyRecursiveModel

__all__ = ["ARCHITECTURES", "Batch", "Carry", "Outputs", "TinyRecursiveModel", "build_model"]

ARCHITECTURES: dict[str, type[TinyRecursiveModel]] = {
    TRM: TinyRecursiveModel,
}
"""Architectures by the original's ``arch.name``."""


def build_model(arch: ArchConfig, sizes: Sizes, *, generator: torch.Generator, device: torch.device | str = "cpu") -> TinyRecursiveModel:
    """A new model: weights drawn from the generator, puzzle rows zero. Raises `UsageError` for an architecture that there is not."""
    if arch.name not in ARCHITECTURES:
        raise UsageError(f"arch.name is {arch.name!r}.", f"Choose one of {', '.join(ARCHITECTURES)}.")
    return ARCHITECTURES[arch.name](arch, sizes, generator=generator, device=device)
