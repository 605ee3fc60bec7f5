"""The learner: verl's TrainingWorker (FSDP2) with a slot for every fork. Each rank trains its share of the responses."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from safetensors.torch import save_file
from tensordict import TensorDict
from verl.single_controller.base.decorator import Dispatch, register
from verl.trainer.config import CheckpointConfig
from verl.utils import tensordict_utils as tu
from verl.workers.config import FSDPEngineConfig, FSDPOptimizerConfig, HFModelConfig, TrainingWorkerConfig
from verl.workers.engine_workers import TrainingWorker

from sttrl.engine.base import EngineSettings
from sttrl.engine.merge import ADAPTER_WEIGHTS
from sttrl.engine.slots import Slots, local, reshard
from sttrl.engine.training_engine import SHARED_PROMPT, PromptOnceEngine
from sttrl.errors import DivergedError, OutOfMemoryError
from sttrl.objectives.losses import GAP_SUMS, actor_config, agreement, policy_loss
from sttrl.types import DeltaSpec, Objective, Rollout, TrainBatch, UpdateStats

OUT_OF_MEMORY_RETRIES = 2
PACKING_TOLERANCE = 0.1


@dataclass(frozen=True)
class LearnerConfig:
    """What every rank is built from: the engine's settings, and verl's own section of the configuration."""

    settings: EngineSettings
    verl: dict[str, dict[str, Any]]


def training_worker_config(config: LearnerConfig) -> TrainingWorkerConfig:
    """verl's configuration of the worker. LoRA keeps the frozen base in the compute dtype, full weights in float32."""
    settings, short = config.settings, {"bfloat16": "bf16", "float32": "fp32"}[config.settings.dtype]
    model = HFModelConfig(
        path=settings.model_folder,
        load_tokenizer=False,
        lora_rank=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        trust_remote_code=settings.trust_remote_code,
        **config.verl["model"],
    )
    engine = FSDPEngineConfig(
        model_dtype=short if settings.lora_rank else "fp32",
        dtype=settings.dtype,
        max_token_len_per_gpu=settings.micro_batch_tokens,
        infer_max_token_len_per_gpu=settings.micro_batch_tokens,
        mixed_precision={"param_dtype": short, "reduce_dtype": "fp32", "buffer_dtype": "fp32"},
        **config.verl["engine"],
    )
    return TrainingWorkerConfig(
        model_type="language_model",
        model_config=model,
        engine_config=engine,
        optimizer_config=FSDPOptimizerConfig(total_training_steps=1, **config.verl["optimizer"]),
        checkpoint_config=CheckpointConfig(),
    )


class Learner(TrainingWorker):
    """One rank. Every method is called on all ranks at once; what it returns is the same on each, unless it says so."""

    engine: PromptOnceEngine

    def __init__(self, config: LearnerConfig) -> None:
        self.settings = config.settings
        if self.settings.device == "cpu" and not torch.distributed.is_initialized():
            # verl would ask for "cpu:gloo,cpu:gloo", which torch rejects.
            torch.distributed.init_process_group("gloo")
        super().__init__(training_worker_config(config))
        self.engine.initialize()
        self.slots = Slots(self.engine.module, self.engine.optimizer, lora=self.settings.lora_rank > 0)
        self.slots.load_base()
        self.engine.packs = self._packing_agrees()

    @register(dispatch_mode=Dispatch.ONE_TO_ALL, blocking=False)
    def describe(self) -> dict[str, Any]:
        """Process id, whether prompts are packed, number of trainable parameters, device, number of ranks."""
        trainable = sum(p.numel() for p in self.engine.module.parameters() if p.requires_grad)
        return {
            "pid": os.getpid(),
            "packs": self.engine.packs,
            "trainable": trainable,
            "device": self.device_name,
            "world_size": self.world_size,
        }

    @register(dispatch_mode=Dispatch.ONE_TO_ALL, blocking=False)
    def open_fork(self, name: str, spec: DeltaSpec) -> None:
        """A new slot, equal to the base."""
        self.slots.open(name, spec)

    @register(dispatch_mode=Dispatch.ONE_TO_ALL, blocking=False)
    def close_fork(self, name: str) -> None:
        """Discard a slot."""
        self.slots.close(name)

    @register(dispatch_mode=Dispatch.ONE_TO_ALL, blocking=False)
    def update(self, name: str, batch: TrainBatch, objective: Objective, base_G: Sequence[Sequence[float]] | None = None) -> UpdateStats:
        """One optimiser step of a fork on ``batch``. Raises `DivergedError` (nothing applied) and `OutOfMemoryError`.

        ``base_G``: the base's log-probs of the whole batch, where a reference worker has computed them.
        """
        started = time.perf_counter()
        slot = self.slots.load(name)
        data = self._rows(batch)
        if base_G is not None:
            mine = [torch.tensor(row) for row in base_G[self.rank :: self.world_size]]
            data["ref_log_prob"] = torch.nested.as_nested_tensor(mine, layout=torch.jagged)
        elif objective.kl_coef > 0 and slot.updates > 0:
            data["ref_log_prob"] = self._base_logprobs(name, data)
        loss = partial(policy_loss, actor_config(objective, len(batch.rollout_G)))
        sums, total_loss, micro_batches, grad_norm = self._backward(data, loss, objective)
        slot.updates += 1
        gap_mean, gap_max, correlation = agreement(sums)
        return UpdateStats(
            loss=total_loss,
            grad_norm=grad_norm,
            lr=self.engine.optimizer.param_groups[0]["lr"],
            kl_to_base=sums.get("kl"),
            logprob_gap_mean=gap_mean,
            logprob_gap_max=gap_max,
            logprob_correlation=correlation,
            tokens=int(sums["count"]),
            micro_batches=micro_batches,
            seconds=time.perf_counter() - started,
        )

    @register(dispatch_mode=Dispatch.ONE_TO_ALL, blocking=False)
    def score(self, name: str | None, batch: TrainBatch) -> list[list[float]]:
        """Log-probs of this rank's share of the responses under a fork, or under the base where ``name`` is None."""
        if name is None:
            self.slots.load_base()
        else:
            self.slots.load(name)
        return [row.tolist() for row in self._logprobs(self._rows(batch)).unbind()]

    @register(dispatch_mode=Dispatch.ONE_TO_ALL, blocking=False)
    def export(self, name: str, folder: str, dtype: str) -> None:
        """Write a fork for vLLM or a user: PEFT's layout, or all weights as safetensors."""
        tensors = {_checkpoint_name(n): w.to("cpu", getattr(torch, dtype)).contiguous() for n, w in self.slots.full_weights(name)}
        if self.rank == 0:
            target = Path(folder)
            target.mkdir(parents=True, exist_ok=True)
            if self.settings.lora_rank:
                self.engine.module.peft_config["default"].save_pretrained(folder)
                save_file(tensors, target / ADAPTER_WEIGHTS, metadata={"format": "pt"})
            else:
                save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
        torch.distributed.barrier()

    @register(dispatch_mode=Dispatch.ONE_TO_ALL, blocking=False)
    def save_fork(self, name: str, folder: str) -> None:
        """Write everything the fork's next update depends on."""
        self.slots.save(name, Path(folder), self.rank)

    @register(dispatch_mode=Dispatch.ONE_TO_ALL, blocking=False)
    def restore_fork(self, name: str, folder: str) -> None:
        """Read what `save_fork` wrote."""
        self.slots.restore(name, Path(folder), self.rank)

    @register(dispatch_mode=Dispatch.ONE_TO_ALL, blocking=False)
    def fingerprint(self) -> str:
        """SHA-256 of this rank's base weights, as they are in the model when no fork is loaded."""
        self.slots.load_base()
        reshard(self.engine.module)
        digest = hashlib.sha256()
        for name, parameter in self.engine.module.named_parameters():
            if not (self.settings.lora_rank and parameter.requires_grad):
                digest.update(name.encode())
                # A copy: numpy() would pin a storage that FSDP2 must be free to resize.
                digest.update(local(parameter).to("cpu", copy=True).contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def _rows(self, batch: TrainBatch) -> TensorDict:
        """This rank's share as verl wants it: nested rows of the last prompt token and the response."""
        mine = slice(self.rank, None, self.world_size)
        rollouts, advantages = batch.rollout_G[mine], batch.advantage_G[mine]
        assert rollouts, "every rank needs a response"
        last, start = batch.prompt_T[-1], len(batch.prompt_T) - 1
        columns = {
            "input_ids": [torch.tensor([last, *r.token_T]) for r in rollouts],
            "position_ids": [torch.arange(start, start + 1 + len(r.token_T)) for r in rollouts],
            "prompts": [torch.tensor([last])] * len(rollouts),
            "responses": [torch.tensor(r.token_T) for r in rollouts],
            "response_mask": [torch.ones(len(r.token_T)) for r in rollouts],
            "loss_mask": [torch.ones(len(r.token_T)) for r in rollouts],
            "rollout_log_probs": [torch.tensor(r.logprob_T) for r in rollouts],
            "advantages": [torch.full((len(r.token_T),), a) for r, a in zip(rollouts, advantages, strict=True)],
        }
        nested = {name: torch.nested.as_nested_tensor(rows, layout=torch.jagged) for name, rows in columns.items()}
        data = TensorDict(nested, batch_size=[len(rollouts)])
        tu.assign_non_tensor(
            data,
            temperature=batch.temperature,
            global_batch_size=len(batch.rollout_G),
            use_dynamic_bsz=True,
            use_remove_padding=False,
            use_fused_kernels=False,
            calculate_entropy=False,
            max_token_len_per_gpu=self._row_budget(batch),
        )
        tu.assign_non_tensor_data(data, SHARED_PROMPT, tuple(batch.prompt_T[:-1]))
        return data

    def _row_budget(self, batch: TrainBatch, shrink: int = 1) -> int:
        """Row tokens of one micro-batch, the prompt's own taken off; never less than the longest row."""
        longest = 1 + max(len(r.token_T) for r in batch.rollout_G)
        prompts = 1 if self.engine.packs else len(batch.rollout_G)
        return max(longest, (self.settings.micro_batch_tokens - prompts * len(batch.prompt_T)) // shrink)

    def _logprobs(self, data: TensorDict) -> torch.Tensor:
        """Nested log-probs ``[_G][_T]`` of the responses under what is in the model now."""
        with self.engine.eval_mode():
            output = self.engine.infer_batch(data)
        rows = output["model_output"]["log_probs"].unbind()
        return torch.nested.as_nested_tensor([row[:-1].float().cpu() for row in rows], layout=torch.jagged)

    def _base_logprobs(self, name: str, data: TensorDict) -> torch.Tensor:
        """The base's log-probs: its weights in the fork's place for one pass.

        PEFT's ``disable_adapter`` is not used: it changes ``requires_grad`` of the parameters that FSDP2 has in place.
        """
        self.slots.load_base()
        try:
            return self._logprobs(data)
        finally:
            self.slots.load(name)

    def _backward(self, data: TensorDict, loss: Any, objective: Objective) -> tuple[dict[str, float], float, int, float]:
        """Gradients and one step; out of memory halves the micro-batch, never the batch (at most twice)."""
        rows = len(data["input_ids"].values())
        budget = min(rows, int(tu.get_non_tensor_data(data, "max_token_len_per_gpu", 0)))
        longest = int(data["input_ids"].offsets().diff().max())
        for attempt in range(OUT_OF_MEMORY_RETRIES + 1):
            tu.assign_non_tensor(data, max_token_len_per_gpu=max(longest, budget >> attempt))
            try:
                return self._step(data.clone(recurse=False), loss, objective)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                self.engine.optimizer_zero_grad()
        raise OutOfMemoryError(
            "The learner ran out of memory twice with half the micro-batch.",
            "Use a smaller --micro_batch_tokens, --n_train or --max_response_tokens.",
        )

    def _step(self, data: TensorDict, loss: Any, objective: Objective) -> tuple[dict[str, float], float, int, float]:
        with self.engine.train_mode():
            self.engine.optimizer_zero_grad()
            outputs = self.engine.forward_backward_batch(data, loss)
            sums, total = self._reduce(outputs)
            self._gate(sums, total, objective)
            grad_norm = self.engine.optimizer_step()
        if not math.isfinite(grad_norm):
            raise DivergedError(f"The gradient's norm is {grad_norm}; the update was not applied.", "Lower --lr or --temp.")
        return sums, total, len(outputs["loss"]), grad_norm

    def _gate(self, sums: dict[str, float], loss: float, objective: Objective) -> None:
        """Refuse a step before it is taken: nothing that is not finite, and no learner that disagrees with the sampler."""
        gap = agreement(sums)[0]
        if not math.isfinite(loss) or sums["finite"] < 1:
            raise DivergedError(f"The loss is {loss}; the update was not applied.", "Lower --lr or --temp.")
        if not gap <= objective.max_logprob_gap:  # NaN, too: a sampler's log-prob that is no number
            raise DivergedError(
                f"Learner and sampler differ by {gap:.3f} nats a token on average; the update was not applied.",
                f"The gate is --max_logprob_gap {objective.max_logprob_gap}; a gap this large means they do not hold the same weights.",
            )

    def _reduce(self, outputs: dict[str, Any]) -> tuple[dict[str, float], float]:
        """Sums over micro-batches and ranks. The loss of a micro-batch is scaled by the number of ranks (verl)."""
        parts = outputs["metrics"]["sums"]
        kl = outputs["metrics"].get("kl_loss")
        mine = [sum(p[k] for p in parts) for k in GAP_SUMS if k not in ("gap_max", "finite")]
        added = torch.tensor([*mine, math.fsum(outputs["loss"]), float(kl.aggregate()) if kl is not None else 0.0], dtype=torch.float64)
        worst = torch.tensor([max(p["gap_max"] for p in parts), -min(p["finite"] for p in parts)], dtype=torch.float64)
        added, worst = added.to(self.engine.module.device), worst.to(self.engine.module.device)
        torch.distributed.all_reduce(added)
        torch.distributed.all_reduce(worst, op=torch.distributed.ReduceOp.MAX)
        names = [k for k in GAP_SUMS if k not in ("gap_max", "finite")]
        sums = dict(zip(names, added.tolist(), strict=False)) | {"gap_max": float(worst[0]), "finite": -float(worst[1])}
        if kl is not None:
            sums["kl"] = float(added[-1]) / self.world_size
        return sums, float(added[-2]) / self.world_size

    def _packing_agrees(self) -> bool:
        """Try packing once: a response must not feel its neighbours (to the bit), and must score as it does spelled out."""
        self.engine.packs = True
        try:
            first, second = (self._probe(neighbour) for neighbour in (7, 11))
        except (TypeError, ValueError, RuntimeError, AssertionError):
            return False
        self.engine.packs = False
        plain = self._probe(7)
        alone = torch.equal(first[1], second[1])
        return alone and bool((first - plain).abs().mean() < PACKING_TOLERANCE)

    def _probe(self, neighbour: int) -> torch.Tensor:
        """Log-probs ``[2, _T]`` of two responses on this rank, the first of them made of ``neighbour`` tokens."""
        tokens_G = [(neighbour,) * 6] * self.world_size + [(5, 6, 8, 9, 5, 6)] * self.world_size
        rollout_G = tuple(Rollout(seed=0, version=0, token_T=t, logprob_T=(0.0,) * len(t), finish="stop", text="") for t in tokens_G)
        batch = TrainBatch(prompt_T=(3, 4, 5, 6), rollout_G=rollout_G, advantage_G=(0.0,) * len(rollout_G), temperature=1.0)
        return torch.stack(self._logprobs(self._rows(batch)).unbind())


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: torch's own class on GPU, a plain RuntimeError from the CPU allocator."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


def _checkpoint_name(parameter_name: str) -> str:
    """A parameter's name in PEFT's files: without the adapter's name."""
    return parameter_name.replace(".default.weight", ".weight")


def load_verl_section(file: Path) -> dict[str, dict[str, Any]]:
    """The verl side of the configuration: ``model``, ``engine`` and ``optimizer``."""
    import yaml

    section = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert {"model", "engine", "optimizer"} <= set(section), f"{file} lacks a section: {json.dumps(list(section))}"
    return dict(section)
