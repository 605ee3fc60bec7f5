"""LoRA slots: the trainable tensors, both Adam moments and the schedule of each fork, swapped in before its update.

With full weights the same slots hold every parameter. A new fork costs its own tensors and nothing else: A from the
seeded initialisation, B zero (LoRA), or the base (full weights); moments start at zero inside Adam.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

from sttrl.types import DeltaSpec

MOMENTS = ("exp_avg", "exp_avg_sq", "step")


@dataclass
class Slot:
    """One fork on this rank: local shards by parameter name, optimiser state by parameter name, updates taken."""

    spec: DeltaSpec
    weights: dict[str, torch.Tensor]
    moments: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict)
    updates: int = 0


def learning_rate(spec: DeltaSpec, update: int) -> float:
    """Learning rate of the update with 0-based index ``update``: linear warm-up, then constant or half a cosine to 0."""
    warmup = int(spec.warmup_ratio * spec.total_steps)
    if update < warmup:
        return spec.lr * (update + 1) / (warmup + 1)
    if spec.schedule == "constant":
        return spec.lr
    done = (update - warmup) / max(1, spec.total_steps - warmup)
    return spec.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


class Slots:
    """The forks of one learner rank, and which of them is in the model."""

    def __init__(self, module: torch.nn.Module, optimizer: torch.optim.Optimizer, lora: bool) -> None:
        self.module, self.optimizer, self.lora = module, optimizer, lora
        self.names = tuple(name for name, p in module.named_parameters() if p.requires_grad)
        # Walking through all modules takes longer than copying an adapter.
        self.parts = [part for part in module.modules() if isinstance(part, FSDPModule)]
        self.places = [(name, module.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2]) for name in self.names]
        self.slots: dict[str, Slot] = {}
        self.loaded: str | None = None
        self.base = {} if lora else {name: local(p).clone() for name, p in self._trainable()}

    def open(self, name: str, spec: DeltaSpec) -> None:
        """A new fork, equal to the base."""
        assert name not in self.slots, f"fork {name!r} is open already"
        weights = self._seeded(spec.seed) if self.lora else {n: w.clone() for n, w in self.base.items()}
        self.slots[name] = Slot(spec, weights)

    def close(self, name: str) -> None:
        """Discard a fork and put the base back into the model."""
        del self.slots[name]  # first, so that nothing is copied back to it
        if self.loaded == name:
            self.load_base()

    def load(self, name: str) -> Slot:
        """Put a fork into the model and the optimiser; what another fork left there goes back to its slot first."""
        slot = self.slots[name]
        if self.loaded != name:
            self._store()
            self._write(slot.weights)
            for parameter_name, parameter in self._trainable():
                if parameter_name in slot.moments:
                    self.optimizer.state[parameter] = slot.moments[parameter_name]
            self.loaded = name
        for group in self.optimizer.param_groups:
            group["lr"], group["weight_decay"] = learning_rate(slot.spec, slot.updates), slot.spec.weight_decay
            group["eps"] = slot.spec.adam_eps
        return slot

    def snapshot(self, name: str) -> Slot:
        """A copy of the fork that is in the model, as it is now."""
        assert self.loaded == name, f"fork {name!r} is not in the model"
        slot = self.slots[name]
        weights, moments = {}, {}
        for n, parameter in self._trainable():
            weights[n] = local(parameter).clone()
            if state := self.optimizer.state.get(parameter):
                moments[n] = {key: value.clone() for key, value in state.items()}
        return Slot(slot.spec, weights, moments, slot.updates)

    def roll_back(self, name: str, before: Slot) -> None:
        """Make a fork what it was when `snapshot` copied it."""
        if self.loaded == name:
            self.load_base()
        self.slots[name] = before

    def load_base(self) -> None:
        """Put the base into the model: all but the A matrices zero (LoRA), or the base's own bits (full weights)."""
        self._store()
        if self.lora:
            for name, parameter in self._trainable():
                if "lora_A" not in name:
                    local(parameter).zero_()
        else:
            self._write(self.base)
        self.loaded = None

    def full_weights(self, name: str) -> Iterator[tuple[str, torch.Tensor]]:
        """The fork's trainable tensors, gathered from all ranks (every rank must call this)."""
        self.load(name)
        for parameter_name, parameter in self._trainable():
            yield parameter_name, parameter.full_tensor() if isinstance(parameter, DTensor) else parameter.detach()

    def save(self, name: str, folder: Path, rank: int) -> None:
        """Write this rank's part of a fork: weights, moments, number of updates."""
        self._store()
        slot = self.slots[name]
        tensors = {f"weight/{n}": w for n, w in slot.weights.items()}
        for n, state in slot.moments.items():
            tensors |= {f"{key}/{n}": _plain(state[key]) for key in MOMENTS}
        folder.mkdir(parents=True, exist_ok=True)
        save_file({n: t.contiguous().clone() for n, t in tensors.items()}, folder / f"rank{rank}.safetensors")
        (folder / f"rank{rank}.json").write_text(json.dumps({"updates": slot.updates}), encoding="utf-8")

    def restore(self, name: str, folder: Path, rank: int) -> None:
        """Read what `save` wrote into an open fork."""
        if self.loaded == name:
            self.load_base()
        slot, tensors = self.slots[name], load_file(folder / f"rank{rank}.safetensors")
        slot.updates = int(json.loads((folder / f"rank{rank}.json").read_text(encoding="utf-8"))["updates"])
        parameters = dict(self._trainable())
        slot.weights = {n: tensors[f"weight/{n}"].to(local(p).device) for n, p in parameters.items()}
        slot.moments = {
            n: {key: _like(tensors[f"{key}/{n}"], p, key) for key in MOMENTS} for n, p in parameters.items() if f"exp_avg/{n}" in tensors
        }

    def reshard(self) -> None:
        """Put the shards back as the parameters: after a forward pass FSDP2 may leave gathered copies in their place."""
        for part in self.parts:
            part.reshard()

    def _trainable(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        self.reshard()
        return ((name, getattr(owner, attribute)) for name, owner, attribute in self.places)

    @torch.no_grad()
    def _write(self, weights: dict[str, torch.Tensor]) -> None:
        for name, parameter in self._trainable():
            local(parameter).copy_(weights[name])

    @torch.no_grad()
    def _store(self) -> None:
        """Copy the loaded fork's weights back to its slot; its moments are the optimiser's own tensors."""
        if self.loaded is not None and self.loaded in self.slots:
            slot = self.slots[self.loaded]
            for name, parameter in self._trainable():
                slot.weights[name].copy_(local(parameter))
                if self.optimizer.state.get(parameter):
                    slot.moments[name] = dict(self.optimizer.state[parameter])
        self.optimizer.state.clear()
        self.loaded = None

    def _seeded(self, seed: int) -> dict[str, torch.Tensor]:
        """PEFT's default initialisation from a seed: A uniform as ``kaiming_uniform_(a=sqrt(5))``, B zero."""
        generator = torch.Generator().manual_seed(seed)
        weights = {}
        for name, parameter in self._trainable():
            if "lora_A" in name:
                bound = 1 / math.sqrt(parameter.shape[1])
                whole = torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator)
                weights[name] = _shard(whole, parameter)
            else:
                weights[name] = torch.zeros_like(local(parameter))
        return weights


@torch.no_grad()
def local(parameter: torch.Tensor) -> torch.Tensor:
    """This rank's shard of a parameter, without gradient; a DTensor's own ``detach`` takes longer than copying the shard."""
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter.detach()


def _shard(whole: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    whole = whole.to(device=like.device, dtype=like.dtype)
    if not isinstance(like, DTensor) or like.device_mesh.size() == 1:
        return whole
    return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None).to_local().clone()


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _like(tensor: torch.Tensor, parameter: torch.Tensor, key: str) -> Any:
    """A moment as Adam keeps it beside ``parameter``: sharded as it is; the step count is a plain scalar on the CPU."""
    if key == "step" or not isinstance(parameter, DTensor):
        return tensor
    return DTensor.from_local(
        tensor.to(local(parameter).device), parameter.device_mesh, parameter.placements, shape=parameter.shape, stride=parameter.stride()
    )
