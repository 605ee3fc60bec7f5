"""The running average of a model's trainable parameters, which is what is evaluated and saved."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

from sttrl.errors import DataError

Model = TypeVar("Model", bound=nn.Module)


class EMA:
    """``average <- rate * average + (1 - rate) * parameter``, after each optimiser step.

    It covers the parameters that require a gradient when it is made, or those in ``names`` (for a trunk that is frozen at first).
    Buffers are not averaged: the puzzle table and the starts of the latents stay those of the model.
    """

    def __init__(self, model: nn.Module, rate: float = 0.999, names: Collection[str] | None = None) -> None:
        self.rate = rate
        self.shadow = {
            name: parameter.detach().clone()
            for name, parameter in model.named_parameters()
            if (parameter.requires_grad if names is None else name in names)
        }

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take the model's parameters into the average."""
        if self.shadow:
            torch._foreach_lerp_(list(self.shadow.values()), list(self._of(model).values()), 1 - self.rate)

    @contextmanager
    def applied(self, model: Model) -> Iterator[Model]:
        """The model itself with the averages, for as long as the block lasts. Nothing is copied: tensors are exchanged."""
        self._exchange(model)
        try:
            yield model
        finally:
            self._exchange(model)

    def state_dict(self) -> dict[str, Tensor]:
        """The averages by name."""
        return dict(self.shadow)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from averages. Raises `DataError` where they are of another model."""
        for name in self.shadow.keys() | state.keys():
            if name not in state or name not in self.shadow or state[name].shape != self.shadow[name].shape:
                raise DataError(f"The averages (EMA) do not fit the model at {name}.", "Give those of the same model.")
        self.shadow = {name: state[name].detach().to(old, copy=True) for name, old in self.shadow.items()}

    def _of(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """The model's parameters that have an average, in the order of the averages."""
        found = dict(model.named_parameters())
        return {name: found[name] for name in self.shadow}

    def _exchange(self, model: nn.Module) -> None:
        for name, parameter in self._of(model).items():
            own = parameter.data
            parameter.data, self.shadow[name] = self.shadow[name], own
