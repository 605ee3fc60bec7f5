"""The optimisers: Adam-atan2 in its two published forms, AdamW, sign-SGD on the rows of the puzzle table, and the learning rate.

Each has ``step(lr)``, ``zero_grad()``, and a state of plain tensors by name. None needs a CUDA build. A new optimiser of the trunk is
a class here and a line of `OPTIMISERS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sttrl.errors import DataError, UsageError
from sttrl.trm.puzzle_table import PuzzleTable

NamedParameters = Sequence[tuple[str, nn.Parameter]]
PYTORCH_SCALE = 1.27
"""The factor ``a`` of adam-atan2-pytorch's default step."""
ATAN2_VARIANTS = ("adam_atan2", "adam_atan2_pytorch")


class Optimiser(Protocol):
    """What a training run needs of the trunk's optimiser."""

    def step(self, lr: float) -> None:
        """Update every parameter that has a gradient."""

    def zero_grad(self) -> None:
        """Drop the gradients."""

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that the next step depends on, besides the parameters."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state. Raises `DataError` where it is of another model or optimiser."""


def learning_rate(step: int, *, base: float, warmup_steps: float, total_steps: int, min_ratio: float) -> float:
    """Linear warm-up, then half a cosine down to ``min_ratio`` times the base (1: constant). The first optimiser step is step 1."""
    warmup = round(warmup_steps)
    if step < warmup:
        return base * step / max(1, warmup)
    progress = (step - warmup) / max(1, total_steps - warmup)
    return base * (min_ratio + max(0.0, (1 - min_ratio) * 0.5 * (1 + math.cos(math.pi * progress))))


class AdamATan2:
    """Adam with atan2 in place of the division (arXiv 2407.05872), so that it has no epsilon; decoupled decay comes first.

    With m and v the running means, t the parameter's own count of steps, and c = 1 - beta^t, a step is

        adam_atan2:          p -= lr / c1 * atan2(m, sqrt(v / c2))              (the kernel of adam-atan2 0.0.3; Samsung)
        adam_atan2_pytorch:  p -= lr * scale * atan2(m / c1, sqrt(v / c2))      (adam-atan2-pytorch 0.4.1, scale 1.27; Trelis)
    """

    def __init__(
        self,
        parameters: NamedParameters,
        *,
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 0.1,
        variant: str = "adam_atan2",
        scale: float = PYTORCH_SCALE,
    ) -> None:
        if variant not in ATAN2_VARIANTS:
            raise UsageError(f"{variant!r} is no form of Adam-atan2.", f"Choose one of {', '.join(ATAN2_VARIANTS)}.")
        self.parameters = dict(parameters)
        self.betas, self.weight_decay = betas, weight_decay
        self.inside, self.scale = (False, 1.0) if variant == "adam_atan2" else (True, scale)
        self.steps: dict[str, int] = {}
        self.means: dict[str, Tensor] = {}
        self.squares: dict[str, Tensor] = {}

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Update every parameter that has a gradient; the others keep their own count of steps."""
        found = [name for name, parameter in self.parameters.items() if parameter.grad is not None]
        if not found:
            return
        for name in found:
            if name not in self.steps:
                self.steps[name] = 0
                self.means[name] = torch.zeros_like(self.parameters[name])
                self.squares[name] = torch.zeros_like(self.parameters[name])
            self.steps[name] += 1
        parameters = [self.parameters[name] for name in found]
        gradients = [parameter.grad for parameter in parameters]
        means, squares = [self.means[name] for name in found], [self.squares[name] for name in found]
        first, second = self.betas
        torch._foreach_mul_(parameters, 1 - lr * self.weight_decay)
        torch._foreach_lerp_(means, gradients, 1 - first)
        torch._foreach_mul_(squares, second)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - second)
        for name, parameter, mean, square in zip(found, parameters, means, squares, strict=True):
            c1, c2 = 1 - first ** self.steps[name], 1 - second ** self.steps[name]
            spread = square.sqrt().mul_((c1 if self.inside else 1.0) / math.sqrt(c2))  # atan2(m / c, s) is atan2(m, c s)
            factor = lr * self.scale if self.inside else lr / c1
            parameter.add_(torch.atan2(mean, spread, out=spread), alpha=-factor)

    def zero_grad(self) -> None:
        """Drop the gradients."""
        _drop_gradients(self.parameters.values())

    def state_dict(self) -> dict[str, Tensor]:
        """``{parameter}.step``, ``.exp_avg`` and ``.exp_avg_sq`` of each parameter that has had a step."""
        state: dict[str, Tensor] = {}
        for name, count in self.steps.items():
            state |= {f"{name}.step": torch.tensor(count), f"{name}.exp_avg": self.means[name], f"{name}.exp_avg_sq": self.squares[name]}
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state."""
        parts = _parts(state, self.parameters)
        self.steps = {name: int(part["step"]) for name, part in parts.items()}
        self.means = {name: _like(part["exp_avg"], self.parameters[name]) for name, part in parts.items()}
        self.squares = {name: _like(part["exp_avg_sq"], self.parameters[name]) for name, part in parts.items()}


class AdamW:
    """torch's AdamW (arXiv 1711.05101), with a state by name."""

    def __init__(self, parameters: NamedParameters, *, betas: tuple[float, float] = (0.9, 0.95), weight_decay: float = 0.1) -> None:
        self.parameters = dict(parameters)
        self.inner = torch.optim.AdamW(list(self.parameters.values()), lr=0.0, betas=betas, weight_decay=weight_decay)

    def step(self, lr: float) -> None:
        """Update every parameter that has a gradient."""
        for group in self.inner.param_groups:
            group["lr"] = lr
        self.inner.step()

    def zero_grad(self) -> None:
        """Drop the gradients."""
        _drop_gradients(self.parameters.values())

    def state_dict(self) -> dict[str, Tensor]:
        """``{parameter}.step``, ``.exp_avg`` and ``.exp_avg_sq`` of each parameter that has had a step."""
        known = {name: self.inner.state[parameter] for name, parameter in self.parameters.items() if parameter in self.inner.state}
        return {f"{name}.{part}": value for name, parts in known.items() for part, value in parts.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state."""
        self.inner.state.clear()
        for name, parts in _parts(state, self.parameters).items():
            parameter = self.parameters[name]
            self.inner.state[parameter] = {
                part: value.clone() if part == "step" else _like(value, parameter) for part, value in parts.items()
            }


class SignSGD:
    """Sign-SGD with decoupled decay on the rows that the puzzle table has handed out since the last step; it has no state.

    Gradients of a row that was handed out several times, also to other ranks, are summed before their sign is taken. A row whose
    gradient is zero still decays, and so does row 0, the blank puzzle.
    """

    def __init__(self, table: PuzzleTable, *, weight_decay: float = 0.1) -> None:
        self.table, self.weight_decay = table, weight_decay

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Update the rows. Each of several ranks must have handed out the same number of rows; all do the same update."""
        used = [(ids, rows.grad) for ids, rows in self.table.pending if rows.grad is not None]
        if not used:
            return
        ids = _gathered(torch.cat([ids for ids, _ in used]).long())
        gradients = _gathered(torch.cat([gradient for _, gradient in used]).float())
        rows, place = ids.unique(return_inverse=True)
        total = _sum_by_row(gradients, place, len(rows))
        weights = self.table.weights
        weights[rows] = weights[rows].mul_(1 - lr * self.weight_decay).add_(total.sign_(), alpha=-lr)

    def zero_grad(self) -> None:
        """Forget the rows that were handed out."""
        self.table.clear()

    def state_dict(self) -> dict[str, Tensor]:
        """Nothing: the table is all there is."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take nothing."""
        if state:
            raise DataError("Sign-SGD has no state, and some was found for it.", "Give the state of this run's own optimisers.")


def _atan2(variant: str) -> Callable[..., Optimiser]:
    def make(parameters: NamedParameters, **settings: Any) -> Optimiser:
        return AdamATan2(parameters, variant=variant, **settings)

    return make


OPTIMISERS: dict[str, Callable[..., Optimiser]] = {
    "adam_atan2": _atan2("adam_atan2"),
    "adam_atan2_pytorch": _atan2("adam_atan2_pytorch"),
    "adamw": AdamW,
}
"""Optimisers of the trunk by name. Each takes named parameters, ``betas`` and ``weight_decay``."""


def _sum_by_row(gradients: Tensor, place: Tensor, rows: int) -> Tensor:
    """Gradients (n, D) summed into the rows that they belong to, in the same order every time."""
    if gradients.device.type == "cpu":
        return gradients.new_zeros(rows, gradients.shape[1]).index_add_(0, place, gradients)
    # index_add_ on a GPU adds in any order, and a sum near zero could then change its sign from run to run.
    belongs = torch.zeros(rows, len(place), dtype=torch.float64, device=place.device)
    belongs[place, torch.arange(len(place), device=place.device)] = 1
    return belongs @ gradients.double()


def _gathered(values: Tensor) -> Tensor:
    """The values of all ranks, in the order of ranks; of this one where there are no others."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return values
    parts = [torch.empty_like(values) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, values.contiguous())
    return torch.cat(parts)


def _drop_gradients(parameters: Iterable[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.grad = None


def _parts(state: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter]) -> dict[str, dict[str, Tensor]]:
    """A state, by parameter and by part. Raises `DataError` where it does not fit the parameters."""
    parts: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        name, _, part = key.rpartition(".")
        if name not in parameters:
            raise DataError(f"The optimiser's state has {key}, and the model has no such parameter.", "Give the state of the same model.")
        if part != "step" and value.shape != parameters[name].shape:
            raise DataError(
                f"The optimiser's {key} has the shape {tuple(value.shape)}; the model's is {tuple(parameters[name].shape)}.",
                "Give the state of the same model.",
            )
        parts.setdefault(name, {})[part] = value
    for name, found in parts.items():
        if set(found) != {"step", "exp_avg", "exp_avg_sq"}:
            raise DataError(f"The optimiser's state of {name} has {', '.join(sorted(found))}.", "Give the state of an Adam.")
    return parts


def _like(value: Tensor, parameter: nn.Parameter) -> Tensor:
    return value.detach().to(parameter, copy=True)
