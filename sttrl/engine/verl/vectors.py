"""SLOT's forks: a vector added to the last hidden state (arXiv 2505.12392).

Added there, it is a constant bias ``lm_head @ delta`` on the logits: the base's weights are never touched, and vLLM adds the
bias to the requests of its fork alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.distributed.tensor import DTensor

from sttrl.engine.names import BIAS, BIAS_FILE
from sttrl.engine.verl.forks import Forks, learning_rate
from sttrl.engine.verl.training_engine import PromptOnceEngine
from sttrl.errors import DivergedError, EngineError
from sttrl.types import DeltaSpec, Objective, Row, TrainGroup, UpdateStats

DELTA = "delta"
SOFTCAPPED = ("final_logit_softcapping", "logit_scale", "logits_scaling")
"""Settings of models whose logits are no linear map of the hidden state, or a scaled one."""


@dataclass
class VectorState:
    """One fork: delta ``[D]`` in float32, its optimiser, updates taken; the same on every rank."""

    spec: DeltaSpec
    delta_D: torch.Tensor
    optimizer: torch.optim.AdamW
    updates: int = 0


class Vectors:
    """The vector forks of one learner rank."""

    def __init__(self, engine: PromptOnceEngine, forks: Forks) -> None:
        self.engine, self.forks = engine, forks
        self.states: dict[str, VectorState] = {}
        self.hidden: tuple[tuple[int, ...], torch.Tensor] | None = None

    def __contains__(self, name: str) -> bool:
        return name in self.states

    def open(self, name: str, spec: DeltaSpec) -> None:
        """A new fork: delta is zero. Raises `EngineError` for a model whose logits a bias cannot stand for."""
        config = self.engine.model_config.hf_config.get_text_config(decoder=True)
        for setting in SOFTCAPPED:
            if getattr(config, setting, None) not in (None, 1.0):
                raise EngineError(f"slot cannot adapt this model: its {setting} changes the logits.", "Use another --adaptation_method.")
        delta = torch.zeros(config.hidden_size, device=self._head().weight.device, requires_grad=True)
        optimizer = torch.optim.AdamW([delta], lr=spec.lr["main"], weight_decay=spec.weight_decay, eps=spec.adam_eps, betas=spec.adam_betas)
        self.states[name] = VectorState(spec, delta, optimizer)

    def close(self, name: str) -> None:
        """Discard a fork."""
        del self.states[name]
        self.hidden = None

    def update(self, name: str, groups: Sequence[TrainGroup], objective: Objective) -> UpdateStats:
        """One AdamW step on the weighted mean of the tokens' negative log-likelihood. Raises `DivergedError`, nothing applied."""
        assert objective.loss == "nll", f"a vector has no loss {objective.loss!r}"
        state = self.states[name]
        nll_R = [self._nll(state.delta_D, g.prefix_T, row, objective.temperature) for g in groups for row in g.row_G]
        loss = torch.stack(nll_R).sum() / sum(weight for g in groups for row in g.row_G for weight in row.weight_T)
        (gradient,) = torch.autograd.grad(loss, state.delta_D)
        norm = float(gradient.norm())
        if not (math.isfinite(float(loss)) and math.isfinite(norm)):
            raise DivergedError(f"The loss is {float(loss)}; the update was not applied.", "Lower --lr.")
        lr = learning_rate(state.spec, "main", state.updates)
        state.optimizer.param_groups[0]["lr"] = lr
        state.delta_D.grad = gradient
        state.optimizer.step()
        state.updates += 1
        return UpdateStats(
            loss=float(loss),
            grad_norm=norm,
            lr=lr,
            kl_to_base=None,
            logprob_gap_mean=None,
            logprob_gap_max=None,
            logprob_correlation=None,
            tokens=sum(g.n_tokens for g in groups),
            micro_batches=len(nll_R),
            seconds=0.0,
        )

    @torch.no_grad()
    def logit_bias(self, name: str) -> torch.Tensor:
        """``lm_head @ delta``, ``[V]`` in float32."""
        return self._head_weight() @ self.states[name].delta_D

    def export(self, name: str, folder: Path, rank: int) -> None:
        """Write the vector, and the logit bias for the sampler."""
        bias = self.logit_bias(name)
        if rank == 0:
            folder.mkdir(parents=True, exist_ok=True)
            save_file({DELTA: self.states[name].delta_D.detach().cpu(), BIAS: bias.cpu()}, folder / BIAS_FILE)

    def save(self, name: str, folder: Path, rank: int) -> None:
        """Write everything the next update depends on."""
        state = self.states[name]
        moments = {key: value.cpu() for key, value in state.optimizer.state.get(state.delta_D, {}).items()}
        folder.mkdir(parents=True, exist_ok=True)
        save_file({DELTA: state.delta_D.detach().cpu(), **moments}, folder / f"vector{rank}.safetensors")
        (folder / f"vector{rank}.json").write_text(json.dumps({"updates": state.updates}), encoding="utf-8")

    @torch.no_grad()
    def restore(self, name: str, folder: Path, rank: int) -> None:
        """Read what `save` wrote."""
        state, tensors = self.states[name], load_file(folder / f"vector{rank}.safetensors")
        state.delta_D.copy_(tensors.pop(DELTA))
        state.optimizer.state[state.delta_D] = {k: v if k == "step" else v.to(state.delta_D.device) for k, v in tensors.items()}
        state.updates = int(json.loads((folder / f"vector{rank}.json").read_text(encoding="utf-8"))["updates"])
        if not tensors:
            state.optimizer.state.clear()

    def _nll(self, delta_D: torch.Tensor, prefix_T: tuple[int, ...], row: Row, temperature: float) -> torch.Tensor:
        """Sum over a row's tokens of weight times -log p, under the base with delta added to every hidden state."""
        hidden_TD = self._hidden((*prefix_T, *row.token_T))[len(prefix_T) - 1 : -1]
        logits = (hidden_TD + delta_D) @ self._head_weight().T / temperature
        label_T, weight_T = torch.tensor(row.token_T, device=logits.device), torch.tensor(row.weight_T, device=logits.device)
        return (weight_T * torch.nn.functional.cross_entropy(logits, label_T, reduction="none")).sum()

    def _hidden(self, token_T: tuple[int, ...]) -> torch.Tensor:
        """The base's last hidden states ``[T, D]`` in float32, what goes into the head; those of the last tokens asked for are kept."""
        if self.hidden is None or self.hidden[0] != token_T:
            self.forks.load_base()
            seen: list[torch.Tensor] = []

            def look(module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
                seen.append(inputs[0].detach())

            hook = self._head().register_forward_pre_hook(look)
            device, dtype = self._head().weight.device, self.engine._autocast_dtype
            tokens = torch.tensor([token_T], device=device)
            try:
                with (
                    torch.no_grad(),
                    torch.autocast(device.type, dtype, enabled=dtype != torch.float32),
                ):
                    self.engine.module(input_ids=tokens, position_ids=torch.arange(len(token_T), device=device)[None], use_cache=False)
            finally:
                hook.remove()
            self.hidden = (token_T, seen[0][0].float())
        return self.hidden[1]

    def _head(self) -> torch.nn.Module:
        head = self.engine.module.get_output_embeddings()
        assert isinstance(head, torch.nn.Module)
        return head

    @torch.no_grad()
    def _head_weight(self) -> torch.Tensor:
        """The head's whole weight ``[V, D]`` in float32, gathered from all ranks."""
        weight = self._head().weight
        return (weight.full_tensor() if isinstance(weight, DTensor) else weight).detach().float()
