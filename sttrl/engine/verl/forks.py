"""The state of every fork on a learner rank. One model serves all forks: before its update a fork's tensors are copied into the model.

A fork holds every trainable parameter: LoRA's A and B, the modules trained whole beside them, or all weights. A new one has A from the
seeded initialisation, B zero, and of everything else the base's own values; moments start at zero inside Adam.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

from sttrl.types import DeltaSpec, ParameterGroup

LORA_B = ".lora_B."
DRAWN, ZERO = (".lora_A.", ".lora_embedding_B."), (LORA_B, ".lora_embedding_A.")
"""LoRA's factors that begin as random numbers, and those that begin as zero. PEFT begins with the other one at an embedding."""
STEP = "step"
"""What AdamW counts; torch's keeps a tensor, bitsandbytes' a number."""


@dataclass
class ForkState:
    """One fork on this rank: its shards of weights and its optimiser state, both by parameter name, and how many updates it took."""

    spec: DeltaSpec
    weights: dict[str, torch.Tensor]
    moments: dict[str, dict[str, Any]] = field(default_factory=dict)
    updates: int = 0


def learning_rate(spec: DeltaSpec, group: ParameterGroup, update: int) -> float:
    """Rate of a group at the update with 0-based index ``update``: linear warm-up, then constant or half a cosine to ``lowest_lr``."""
    rate, warmup = spec.lr[group], int(spec.warmup_ratio * spec.total_steps)
    if update < warmup:
        return rate * (update + 1) / (warmup + 1)
    if spec.schedule == "constant":
        return rate
    done = (update - warmup) / max(1, spec.total_steps - warmup)
    return rate * (spec.lowest_lr + (1 - spec.lowest_lr) * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


class Forks:
    """The forks of one learner rank, and which of them is in the model."""

    def __init__(self, module: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.module, self.optimizer = module, optimizer
        self.names = tuple(name for name, p in module.named_parameters() if p.requires_grad)
        # Found once, because walking through all modules takes longer than copying an adapter.
        self.parts = [part for part in module.modules() if isinstance(part, FSDPModule)]
        self.places = [(name, module.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2]) for name in self.names]
        self.states: dict[str, ForkState] = {}
        self.loaded: str | None = None
        self.base = {name: local(p).clone() for name, p in self._trainable() if not is_one_of(name, DRAWN + ZERO)}

    def open(self, name: str, spec: DeltaSpec) -> None:
        """A new fork, equal to the base."""
        assert name not in self.states, f"fork {name!r} is open already"
        weights = self._seeded(spec.seed) | {n: w.clone() for n, w in self.base.items()}
        self.states[name] = ForkState(spec, weights)

    def close(self, name: str) -> None:
        """Discard a fork and put the base back into the model."""
        del self.states[name]  # first, so that nothing is copied back to it
        if self.loaded == name:
            self.load_base()

    def load(self, name: str) -> ForkState:
        """Put a fork into the model and the optimiser; what another fork left there goes back to its state first."""
        state = self.states[name]
        if self.loaded != name:
            self._store()
            self._write(state.weights)
            for parameter_name, parameter in self._trainable():
                if parameter_name in state.moments:
                    self.optimizer.state[parameter] = state.moments[parameter_name]
            self.loaded = name
        for group in self.optimizer.param_groups:
            group["lr"], group["weight_decay"] = learning_rate(state.spec, group["name"], state.updates), state.spec.weight_decay
            group["eps"], group["betas"] = state.spec.adam_eps, state.spec.adam_betas
        return state

    def snapshot(self, name: str) -> ForkState:
        """A copy of the fork that is in the model, as it is now."""
        assert self.loaded == name, f"fork {name!r} is not in the model"
        state = self.states[name]
        weights, moments = {}, {}
        for n, parameter in self._trainable():
            weights[n] = local(parameter).clone()
            if own := self.optimizer.state.get(parameter):
                moments[n] = {key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in own.items()}
        return ForkState(state.spec, weights, moments, state.updates)

    def roll_back(self, name: str, before: ForkState) -> None:
        """Make a fork what it was when `snapshot` copied it."""
        if self.loaded == name:
            self.load_base()
        self.states[name] = before

    def load_base(self) -> None:
        """Put the base into the model: a factor of every product of LoRA zero, everything else the base's own bits."""
        self._store()
        for name, parameter in self._trainable():
            if is_one_of(name, ZERO):
                local(parameter).zero_()
            elif name in self.base:
                local(parameter).copy_(self.base[name])
        self.loaded = None

    def full_weights(self, name: str) -> Iterator[tuple[str, torch.Tensor]]:
        """The fork's trainable tensors, gathered from all ranks (every rank must call this)."""
        self.load(name)
        for parameter_name, parameter in self._trainable():
            yield parameter_name, parameter.full_tensor() if isinstance(parameter, DTensor) else parameter.detach()

    def save(self, name: str, folder: Path, rank: int) -> None:
        """Write this rank's part of a fork: weights, moments, number of updates."""
        self._store()
        state = self.states[name]
        tensors = {f"weight/{n}": w for n, w in state.weights.items()}
        for n, own in state.moments.items():
            tensors |= {f"{key}/{n}": _plain(value) for key, value in own.items()}
        folder.mkdir(parents=True, exist_ok=True)
        save_file({n: t.contiguous().clone() for n, t in tensors.items()}, folder / f"rank{rank}.safetensors")
        (folder / f"rank{rank}.json").write_text(json.dumps({"updates": state.updates}), encoding="utf-8")

    def restore(self, name: str, folder: Path, rank: int) -> None:
        """Read what `save` wrote into an open fork."""
        if self.loaded == name:
            self.load_base()
        state, tensors = self.states[name], load_file(folder / f"rank{rank}.safetensors")
        state.updates = int(json.loads((folder / f"rank{rank}.json").read_text(encoding="utf-8"))["updates"])
        parameters = dict(self._trainable())
        state.weights = {n: tensors[f"weight/{n}"].to(local(p).device) for n, p in parameters.items()}
        state.moments = {}
        for key, n in (name.split("/", 1) for name in tensors if not name.startswith("weight/")):
            state.moments.setdefault(n, {})[key] = self._moment(tensors[f"{key}/{n}"], parameters[n], key)

    def put(self, name: str, weights: Mapping[str, torch.Tensor]) -> None:
        """Give an open fork whole tensors by parameter name; what is not among them stays. Raises ValueError for another shape."""
        if self.loaded == name:
            self.load_base()
        state = self.states[name]
        for parameter_name, parameter in self._trainable():
            if (whole := weights.get(parameter_name)) is not None:
                if whole.shape != parameter.shape:
                    raise ValueError(f"{parameter_name} has the shape {list(whole.shape)}, not {list(parameter.shape)}")
                state.weights[parameter_name] = _shard(whole, parameter).clone()

    def _moment(self, tensor: torch.Tensor, parameter: torch.Tensor, key: str) -> Any:
        """A moment as the optimiser keeps it beside a parameter: sharded as it is; the step count is a scalar on the CPU, or a number."""
        if key == STEP:
            return tensor if isinstance(self.optimizer, torch.optim.AdamW) else int(tensor)
        if not isinstance(parameter, DTensor):
            return tensor.to(parameter.device)
        mesh, placements = parameter.device_mesh, parameter.placements
        return DTensor.from_local(tensor.to(local(parameter).device), mesh, placements, shape=parameter.shape, stride=parameter.stride())

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
        """Copy the loaded fork's weights back to its state; its moments are the optimiser's own tensors."""
        if self.loaded is not None and self.loaded in self.states:
            state = self.states[self.loaded]
            for name, parameter in self._trainable():
                state.weights[name].copy_(local(parameter))
                if self.optimizer.state.get(parameter):
                    state.moments[name] = dict(self.optimizer.state[parameter])
        self.optimizer.state.clear()
        self.loaded = None

    def _seeded(self, seed: int) -> dict[str, torch.Tensor]:
        """LoRA's matrices as PEFT begins with them: A uniform as ``kaiming_uniform_(a=sqrt(5))``, from a seed, B zero; at an embedding A
        zero, B normal."""
        generator = torch.Generator().manual_seed(seed)
        weights = {}
        for name, parameter in self._trainable():
            if is_one_of(name, DRAWN):
                bound, whole = 1 / math.sqrt(parameter.shape[1]), torch.empty(parameter.shape)
                of_linear = DRAWN[0] in name
                whole = whole.uniform_(-bound, bound, generator=generator) if of_linear else whole.normal_(generator=generator)
                weights[name] = _shard(whole, parameter)
            elif is_one_of(name, ZERO):
                weights[name] = torch.zeros_like(local(parameter))
        return weights


def is_one_of(name: str, parts: Sequence[str]) -> bool:
    """Whether a parameter's name has one of some parts."""
    return any(part in name for part in parts)


@torch.no_grad()
def local(parameter: torch.Tensor) -> torch.Tensor:
    """This rank's shard of a parameter, without gradient; a DTensor's own ``detach`` takes longer than copying the shard."""
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter.detach()


def _shard(whole: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    whole = whole.to(device=like.device, dtype=like.dtype)
    if not isinstance(like, DTensor) or like.device_mesh.size() == 1:
        return whole
    return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None).to_local().clone()


def _plain(value: torch.Tensor | float) -> torch.Tensor:
    if not isinstance(value, torch.Tensor):
        return torch.tensor(value)
    return value.to_local() if isinstance(value, DTensor) else value
