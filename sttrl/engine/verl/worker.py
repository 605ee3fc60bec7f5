"""What the policy and the critic share: verl's TrainingWorker (FSDP2), extended by forks and by optimiser steps that can be undone."""

from __future__ import annotations

import hashlib
import importlib.resources
import math
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed
import yaml
from tensordict import TensorDict
from verl.trainer.config import CheckpointConfig
from verl.utils import tensordict_utils as tu
from verl.workers.config import FSDPEngineConfig, FSDPOptimizerConfig, HFModelConfig, TrainingWorkerConfig
from verl.workers.engine_workers import TrainingWorker

from sttrl.engine.base import EngineSettings, OptimizerName
from sttrl.engine.model_checks import for_verl, load_config
from sttrl.engine.verl.forks import Forks, ForkState, local
from sttrl.engine.verl.packing import distinct_inputs
from sttrl.engine.verl.rows import LONGEST_ROW, Total, longest_row, rows_of_rank, tensors_of
from sttrl.engine.verl.training_engine import BITSANDBYTES, PromptOnce
from sttrl.errors import DivergedError, EngineError, OutOfMemoryError
from sttrl.objectives.losses import CLIPPED, GAP_SUMS, KL, SAMPLER_WEIGHT, log_prob_gap
from sttrl.types import DeltaSpec, Objective, Row, TrainGroup

OUT_OF_MEMORY_RETRIES = 2
PASS_TOKENS = {"cpu": 1024, "cuda": 16384}
"""Row tokens of one pass where the user does not set them, chosen by measuring on CPU.

32 rows of 24 tokens, or 9 of 69, fit into one pass of 1024; passes of 448 took 1.2 times as long. In float32 passes of 512 took 1.2
times as long as passes of 1024. A token of a pass takes 1.3 MiB of memory with SmolLM2-135M, 2.6 MiB in float32."""
OPTIMIZERS: dict[OptimizerName, dict[str, Any]] = {
    "adamw": {},
    "adamw_8bit": {"optimizer": "AdamW8bit", "optimizer_impl": BITSANDBYTES, "override_optimizer_config": None},
}
"""What differs from the optimiser of the platform's YAML."""
PROBE = 12
PACKING_TOLERANCE = {"float32": 0.01, "bfloat16": 0.25}
"""How many nats a token the log-probs of packed rows may differ from those of separate rows.

Measured with SmolLM2 in bfloat16: 0.04 with a correct layout, 3 to 8 where rows see each other or do not see their prefix. In float32
rounding alone gives 3e-5."""
MAXIMA = ("gap_max", "finite")
ADDED = tuple(name for name in GAP_SUMS if name not in MAXIMA)
MEANS = (KL, CLIPPED, SAMPLER_WEIGHT)
"""Metrics whose values of all micro-batches add up to the mean over the step's tokens."""
MEMORY_ERRORS = (torch.OutOfMemoryError, MemoryError, RuntimeError)
"""Errors that `is_out_of_memory` looks at."""


class HalfStepError(Exception):
    """Memory ran out inside the optimiser's step, so that some tensors may have changed already."""


@dataclass(frozen=True)
class StepResult:
    """What one optimiser step measured on all ranks. ``sums``: `GAP_SUMS` and `MEANS`; ``clip_fraction``: of the ratios."""

    sums: dict[str, float]
    loss: float
    micro_batches: int
    grad_norm: float
    clip_fraction: float | None


def training_worker_config(settings: EngineSettings, model_type: Literal["language_model", "value_model"]) -> TrainingWorkerConfig:
    """verl's configuration of the worker. LoRA keeps the frozen base in the compute dtype, full weights in float32."""
    verl, short = verl_section(settings.device), {"bfloat16": "bf16", "float32": "fp32"}[settings.dtype]
    verl["model"]["override_config"] |= for_verl(load_config(Path(settings.model_folder), settings.trust_remote_code))
    most = settings.micro_batch_tokens or PASS_TOKENS[settings.device]
    model = HFModelConfig(
        path=settings.model_folder,
        load_tokenizer=False,
        lora_rank=settings.adapter.rank if settings.adapter else 0,
        lora=asdict(settings.adapter) if settings.adapter else {},
        trust_remote_code=settings.trust_remote_code,
        **verl["model"],
    )
    engine = FSDPEngineConfig(
        model_dtype=short if settings.adapter else "fp32",
        dtype=settings.dtype,
        max_token_len_per_gpu=most,  # every batch brings its own
        infer_max_token_len_per_gpu=most,
        mixed_precision={"param_dtype": short, "reduce_dtype": "fp32", "buffer_dtype": "fp32"},
        **verl["engine"],
    )
    return TrainingWorkerConfig(
        model_type=model_type,
        model_config=model,
        engine_config=engine,
        optimizer_config=FSDPOptimizerConfig(total_training_steps=1, **(verl["optimizer"] | OPTIMIZERS[settings.optimizer])),
        checkpoint_config=CheckpointConfig(),
    )


class ForkTrainer(TrainingWorker):
    """One rank. Every method is called on all ranks at once, and returns the same on each of them unless its docstring says otherwise."""

    MODEL_TYPE: Literal["language_model", "value_model"]
    OUTPUT: str
    """What the engine computes of each response token."""

    engine: PromptOnce

    def __init__(self, settings: EngineSettings) -> None:
        self.settings = settings
        if self.settings.device == "cpu" and not torch.distributed.is_initialized():
            # verl itself would ask for the backend "cpu:gloo,cpu:gloo", which torch rejects.
            rank, ranks = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE"))
            torch.distributed.init_process_group("gloo", os.environ["DIST_INIT_METHOD"], rank=rank, world_size=ranks)
        super().__init__(training_worker_config(settings, self.MODEL_TYPE))
        self.engine.initialize()
        self.forks = Forks(self.engine.module, self.engine.optimizer)
        self.forks.load_base()
        self.engine.packs = self._packing_agrees()

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

    def open_fork(self, name: str, spec: DeltaSpec) -> None:
        """A new state, equal to the base."""
        self.forks.open(name, spec)

    def close_fork(self, name: str) -> None:
        """Discard a state."""
        self.forks.close(name)

    def save_fork(self, name: str, folder: str) -> None:
        """Write everything the fork's next update depends on."""
        self.forks.save(name, Path(folder), self.rank)

    def restore_fork(self, name: str, folder: str) -> None:
        """Read what `save_fork` wrote."""
        self.forks.restore(name, Path(folder), self.rank)

    def fingerprint(self) -> str:
        """SHA-256 of this rank's base weights, as they are in the model when no fork is loaded."""
        self.forks.load_base()
        self.forks.reshard()
        digest = hashlib.sha256()
        for name, parameter in self.engine.module.named_parameters():
            if not (self.settings.adapter and parameter.requires_grad):
                digest.update(name.encode())
                # Copied, because numpy() would keep FSDP2 from resizing the storage.
                digest.update(local(parameter).to("cpu", copy=True).contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def load(self, name: str | None) -> None:
        """Put a fork into the model, or the base where ``name`` is None."""
        if name is None:
            self.forks.load_base()
        else:
            self.forks.load(name)

    def rows(self, groups: Sequence[TrainGroup], temperature: float) -> list[TensorDict]:
        """This rank's rows of every group, as verl wants them."""
        return [self._rows(group, temperature) for group in groups]

    def forward(self, data: TensorDict) -> dict[str, torch.Tensor]:
        """What the engine computes for every row's tokens with the weights now in the model, by name: nested ``[_G][_T]``."""
        with self.engine.eval_mode():
            output = self.engine.infer_batch(data)["model_output"]
        return {
            name: torch.nested.as_nested_tensor([row[:-1].float().cpu() for row in rows.unbind()], layout=torch.jagged)
            for name, rows in output.items()
        }

    def steps(
        self,
        name: str,
        before: ForkState | None,
        parts: list[tuple[list[TensorDict], Total]],
        objective: Objective,
        loss_of: Callable[..., Any],
        fresh: bool,
    ) -> list[StepResult]:
        """Every optimiser step of an update: all passes over all mini-batches. After an error the fork is again what it was ``before``.

        ``before`` may be None where the update is a single step: such a step is checked before it changes anything.
        ``loss_of(rows, total, objective)`` makes the loss function of one step. ``fresh``: the rows were sampled from the present weights,
        so the first step compares log-probs with the sampler's.

        Raises:
            EngineError: memory ran out inside the optimiser's step, and there is no copy of the fork to restore.
        """
        results: list[StepResult] = []
        with ExitStack() as undo:
            if before is not None:
                undo.callback(self.forks.roll_back, name, before)
            for _ in range(objective.ppo_epochs):
                for rows_P, total in parts:
                    try:
                        results.append(self.optimise(rows_P, loss_of(rows_P, total, objective), objective, fresh and not results))
                    except HalfStepError as error:
                        raise half_step(before is not None) from error
            undo.pop_all()
        return results

    def optimise(self, rows_P: Sequence[TensorDict], loss: Callable[..., Any], objective: Objective, fresh: bool) -> StepResult:
        """Compute gradients and take one step. Where memory runs out, try again with micro-batches of half the size, at most twice.

        Raises `DivergedError` (nothing applied) and `OutOfMemoryError`.
        """
        budget_P = [min(len(data["input_ids"].values()), int(tu.get_non_tensor_data(data, "max_token_len_per_gpu", 0))) for data in rows_P]
        for attempt in range(OUT_OF_MEMORY_RETRIES + 1):
            for data, budget in zip(rows_P, budget_P, strict=True):
                longest = int(tu.get_non_tensor_data(data, LONGEST_ROW, 0))
                tu.assign_non_tensor(data, max_token_len_per_gpu=max(longest, budget >> attempt))
            try:
                return self._step([data.clone(recurse=False) for data in rows_P], loss, objective, fresh)
            except MEMORY_ERRORS as error:
                if not is_out_of_memory(error):
                    raise
                self.engine.optimizer_zero_grad()
        raise OutOfMemoryError(
            "The learner ran out of memory twice with half the micro-batch.",
            "Use a smaller --micro_batch_tokens, --n_train or --max_response_tokens.",
        )

    def _rows(self, group: TrainGroup, temperature: float) -> TensorDict:
        mine, padding = rows_of_rank(group, self.rank, self.world_size)
        return tensors_of(mine, temperature, self._row_budget(group), longest_row(group), padding)

    def _row_budget(self, group: TrainGroup) -> int:
        """Row tokens of one micro-batch, at least those of the longest row of any rank. A packed prefix is not counted.

        If this rank's rows fit with shared prefixes counted once, keep them together; verl counts whole rows and would split them.
        """
        longest, (mine, _) = longest_row(group), rows_of_rank(group, self.rank, self.world_size)
        most = self.settings.micro_batch_tokens or PASS_TOKENS[self.settings.device]
        if self.engine.packs:
            if distinct_inputs([torch.tensor(row.token_T) for row in mine.row_G]) <= most:
                most = max(most, sum(1 + len(row.token_T) for row in mine.row_G))
            return max(longest, most)
        return longest * max(1, most // (len(group.prefix_T) + longest))

    def _step(self, rows_P: list[TensorDict], loss: Callable[..., Any], objective: Objective, fresh: bool) -> StepResult:
        with self.engine.train_mode():
            self.engine.optimizer_zero_grad()
            outputs = [self.engine.forward_backward_batch(data, loss) for data in rows_P]
            sums, total = self._reduce(outputs)
            self._gate(sums, total, objective.max_logprob_gap if fresh else None)
            grad_norm = self._apply()
        if not math.isfinite(grad_norm):
            raise DivergedError(f"The gradient's norm is {grad_norm}; the update was not applied.", "Lower --lr or --temp.")
        return StepResult(
            sums=sums,
            loss=total,
            micro_batches=sum(len(o["loss"]) for o in outputs),
            grad_norm=grad_norm,
            clip_fraction=sums.get(CLIPPED),
        )

    def _apply(self) -> float:
        """Clip the gradient and take the step; returns the gradient's norm before clipping."""
        try:
            return float(self.engine.optimizer_step())
        except MEMORY_ERRORS as error:
            if is_out_of_memory(error):
                raise HalfStepError from error
            raise

    def _gate(self, sums: dict[str, float], loss: float, max_gap: float | None) -> None:
        """Refuse the step if its loss or log-probs are not finite, or if they differ too much from the sampler's."""
        if not math.isfinite(loss) or sums["finite"] < 1:
            raise DivergedError(f"The loss is {loss}; the update was not applied.", "Lower --lr or --temp.")
        gap = log_prob_gap(sums)[0]
        if max_gap is not None and not gap <= max_gap:  # also refuses NaN, where a log-prob of the sampler is NaN
            raise DivergedError(
                f"Learner and sampler differ by {gap:.3f} nats a token on average; the update was not applied.",
                f"The gate is --max_logprob_gap {max_gap}; a gap this large means they do not hold the same weights.",
            )

    def _reduce(self, outputs: list[dict[str, Any]]) -> tuple[dict[str, float], float]:
        """Sums over micro-batches and ranks, and the loss. verl multiplies each micro-batch's loss by the number of ranks."""
        parts = [part for o in outputs for part in o["metrics"]["sums"]]
        means = {name: [float(o["metrics"][name].aggregate()) for o in outputs if name in o["metrics"]] for name in MEANS}
        scaled = {"loss": math.fsum(x for o in outputs for x in o["loss"])} | {name: math.fsum(x) for name, x in means.items() if x}
        added = torch.tensor([*(sum(p[k] for p in parts) for k in ADDED), *scaled.values()], dtype=torch.float64)
        worst = torch.tensor([max(p["gap_max"] for p in parts), -min(p["finite"] for p in parts)], dtype=torch.float64)
        device = next(self.engine.module.parameters()).device
        added, worst = added.to(device), worst.to(device)
        torch.distributed.all_reduce(added)
        torch.distributed.all_reduce(worst, op=torch.distributed.ReduceOp.MAX)
        sums = dict(zip(ADDED, added.tolist(), strict=False)) | {"gap_max": float(worst[0]), "finite": -float(worst[1])}
        mean = dict(zip(scaled, (added[len(ADDED) :] / self.world_size).tolist(), strict=True))
        return sums | mean, mean["loss"]

    def _packing_agrees(self) -> bool:
        """Whether the model computes packed rows correctly, found out by one trial.

        A row's log-probs must not change by one bit when the row beside it changes, and must be close to those of the row computed alone.
        Raises torch's error where memory runs out: an update would need more.
        """
        self.engine.packs = True
        words = self._words()
        try:
            first, second = (self._probe(words, neighbour) for neighbour in words[-2:])
        except (TypeError, ValueError, RuntimeError, AssertionError) as error:
            if is_out_of_memory(error):
                raise  # separate rows would need more memory
            return False
        self.engine.packs = False
        plain = self._probe(words, words[-2])
        alone = torch.equal(first[1], second[1])
        return alone and bool((first - plain).abs().mean() < PACKING_TOLERANCE[self.settings.dtype])

    def _words(self) -> tuple[int, ...]:
        """Tokens spread evenly over the first half of the vocabulary."""
        stride = max(1, int(self.engine.module.config.get_text_config().vocab_size) // (2 * PROBE))
        return tuple(stride * i for i in range(1, PROBE + 1))

    def _probe(self, words: tuple[int, ...], neighbour: int) -> torch.Tensor:
        """What the engine computes ``[2, _T]`` for two rows behind a prefix of ``words``.

        The first row is half of ``words`` and then ``neighbour`` repeated, the second is ``words`` again. A model that sees its prefix
        finds the repetition likely. With a wrong layout its log-probs are worse by whole nats, far more than rounding changes.
        """
        half = PROBE // 2
        tokens_G = [words[:half] + (neighbour,) * half] * self.world_size + [words] * self.world_size
        row_G = tuple(Row(token_T=t, weight_T=(1.0,) * len(t)) for t in tokens_G)
        (data,) = self.rows([TrainGroup(prefix_T=words, row_G=row_G)], temperature=1.0)
        return torch.stack(self.forward(data)[self.OUTPUT].unbind())


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: torch's own class on GPU, a plain RuntimeError from the CPU allocator."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


def half_step(undone: bool) -> EngineError:
    """The error of a step that ended half taken; ``undone``: the fork was restored from its copy."""
    if undone:
        return OutOfMemoryError("Memory ran out in the optimiser's step.", "Use a smaller --lora_rank or more --learner_ranks.")
    return EngineError(
        "Memory ran out in the optimiser's step, and the policy cannot be put back.",
        "Train an adapter (--lora_rank 16), or use more --learner_ranks.",
    )


def verl_section(device: Literal["cpu", "cuda"]) -> dict[str, dict[str, Any]]:
    """verl's part of the configuration: ``model``, ``engine`` and ``optimizer``."""
    file = importlib.resources.files("sttrl.engine.verl") / "config" / ("gpu.yaml" if device == "cuda" else "cpu.yaml")
    return dict(yaml.safe_load(file.read_text(encoding="utf-8")))
