"""The other architectures of TinyRecursiveModels' ablations: one latent, a hierarchy of seven, HRM, and a plain transformer.

Their sizes and steps follow the papers and the original's classes, whose names of weights they keep; no outputs of the original were
recorded for them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sttrl.errors import UsageError
from sttrl.trm.layers import Weights
from sttrl.trm.recursion import Level, TinyRecursiveModel


class SingleLatent(TinyRecursiveModel):
    """``trm_singlez``: answer and reasoning are one latent. ``L_cycles`` times z <- net(z + x), then z <- net(z)."""

    starts = ("L_init",)

    def rest_shape(self) -> tuple[int, ...]:
        """There is no other latent."""
        return (0,)

    def fresh(self) -> tuple[Tensor, Tensor]:
        """One start."""
        return self.L_init, self.L_init

    def _cycle(self, z_H: Tensor, z_L: Tensor, x: Tensor, weights: tuple[tuple[Weights, ...], ...]) -> tuple[Tensor, Tensor]:
        for _ in range(self.arch.L_cycles):
            z_H = self.L_level(z_H + x, weights, self.rotation)
        return self.L_level(z_H, weights, self.rotation), z_L


class SixLatents(TinyRecursiveModel):
    """``trm_hier6``: six latents of reasoning, each renewed in turn from the sum of all: ``z_L`` is (B, 6, P + S, D)."""

    latents = 6
    starts = ("H_init", *(f"L{number}_init" for number in range(1, 7)))

    def rest_shape(self) -> tuple[int, ...]:
        """Six latents."""
        return (self.latents, self.positions)

    def fresh(self) -> tuple[Tensor, Tensor]:
        """A start for the answer, and one for each of the six."""
        return self.H_init, torch.stack([getattr(self, name) for name in self.starts[1:]])[:, None]

    def _add_levels(self, generator: torch.Generator) -> None:
        if self.arch.L_cycles > self.latents:
            raise UsageError(f"arch.L_cycles is {self.arch.L_cycles}, and trm_hier6 has {self.latents} latents.", "Give 6 or fewer.")
        super()._add_levels(generator)

    def _cycle(self, z_H: Tensor, z_L: Tensor, x: Tensor, weights: tuple[tuple[Weights, ...], ...]) -> tuple[Tensor, Tensor]:
        injected, parts = z_H + x, list(z_L.unbind(1))
        for number in range(self.arch.L_cycles):
            parts[number] = self.L_level(sum(parts[1:], parts[0]) + injected, weights, self.rotation)
        return self.L_level(z_H + sum(parts[1:], parts[0]), weights, self.rotation), torch.stack(parts, 1)


class HierarchicalModel(TinyRecursiveModel):
    """``hrm`` (arXiv 2506.21734): two networks, a gradient through the last application of each, and Q-learning of continuing."""

    q_learning = True

    def _add_levels(self, generator: torch.Generator) -> None:
        _needs_upper_layers(self)
        self.H_level = Level(self.arch, self.arch.H_layers, self.positions, generator=generator)
        super()._add_levels(generator)

    def recur(self, z_H: Tensor, z_L: Tensor, x: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """All cycles of one supervision step."""
        by = self.rotation
        with torch.no_grad():
            lower, upper = self.L_level.ready(self.dtype, generator), self.H_level.ready(self.dtype, generator)
            for cycle in range(self.arch.H_cycles):
                last, injected = cycle == self.arch.H_cycles - 1, z_H + x
                for _ in range(self.arch.L_cycles - last):
                    z_L = self.L_level(z_L + injected, lower, by)
                if not last:
                    z_H = self.H_level(z_H + z_L, upper, by)
        z_L = self.L_level(z_L + (z_H + x), self.L_level.ready(self.dtype, generator), by)
        return self.H_level(z_H + z_L, self.H_level.ready(self.dtype, generator), by), z_L


class PlainTransformer(TinyRecursiveModel):
    """``transformers_baseline``: ``H_layers`` of attention once in a supervision step, on the answer and the puzzle."""

    q_learning = True
    starts = ("H_init",)

    def rest_shape(self) -> tuple[int, ...]:
        """There is no other latent."""
        return (0,)

    def fresh(self) -> tuple[Tensor, Tensor]:
        """One start."""
        return self.H_init, self.H_init

    def recur(self, z_H: Tensor, z_L: Tensor, x: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """One application."""
        return self.H_level(z_H + x, self.H_level.ready(self.dtype, generator), self.rotation), z_L

    def _add_levels(self, generator: torch.Generator) -> None:
        _needs_upper_layers(self)
        if self.arch.mlp_t:
            raise UsageError("transformers_baseline mixes positions by attention only.", "Leave out arch.mlp_t.")
        self.H_level = Level(self.arch, self.arch.H_layers, self.positions, generator=generator)


def _needs_upper_layers(model: TinyRecursiveModel) -> None:
    if not model.arch.H_layers:
        raise UsageError("arch.H_layers is 0.", "Give the number of layers of the upper network; HRM has 4, transformers_baseline 8.")
