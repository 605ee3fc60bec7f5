"""The learner: the policy's worker. Each rank trains its part of the rows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from safetensors.torch import save_file
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu

from sttrl.engine.base import EngineSettings
from sttrl.engine.learned import check_alike, check_names, find_learned
from sttrl.engine.merge import ADAPTER_WEIGHTS
from sttrl.engine.verl.forks import ZERO, is_one_of
from sttrl.engine.verl.rows import Total, mark_forks, mini_batches, nested, total_of
from sttrl.engine.verl.training_engine import FINAL_LOGITS, JUST_LOGPROBS, MEASURE, PromptOnceEngine
from sttrl.engine.verl.vectors import Vectors
from sttrl.engine.verl.worker import ForkTrainer, StepResult
from sttrl.errors import EngineError, StepError, UsageError
from sttrl.objectives.losses import (
    BAND_HIGH,
    BAND_LOW,
    ENTROPY,
    FORKS,
    KL,
    SAMPLER_WEIGHT,
    carries_loss,
    log_prob_gap,
    marginal_entropy_loss,
    nll_loss,
    policy_loss,
)
from sttrl.types import DeltaSpec, Forking, Measure, Objective, TokenStats, TrainGroup, UpdateStats

ENTROPIES = Measure(want=frozenset({"entropy"}))


class Learner(ForkTrainer):
    """The policy. A fork holds trainable weights, or a vector that is added to the base's last hidden state."""

    MODEL_TYPE = "language_model"
    OUTPUT = "log_probs"

    engine: PromptOnceEngine

    def __init__(self, settings: EngineSettings) -> None:
        super().__init__(settings)
        self.vectors = Vectors(self.engine, self.forks)

    def open_fork(self, name: str, spec: DeltaSpec) -> None:
        """A new fork, equal to the base."""
        if spec.kind == "vector":
            self.vectors.open(name, spec)
        else:
            self.forks.open(name, spec)

    def close_fork(self, name: str) -> None:
        """Discard a fork."""
        if name in self.vectors:
            self.vectors.close(name)
        else:
            self.forks.close(name)

    def update(self, name: str, groups: Sequence[TrainGroup], objective: Objective) -> UpdateStats:
        """The optimiser steps of one update of a fork. Raises `DivergedError` and `OutOfMemoryError`, nothing applied."""
        started = time.perf_counter()
        if name in self.vectors:
            return replace(self.vectors.update(name, groups, objective), seconds=time.perf_counter() - started)
        check_weights(groups, objective)
        state = self.forks.load(name)
        parts = [(self.rows(part, objective.temperature), total_of(part)) for part in mini_batches(groups, objective.mini_batches)]
        several = len(parts) * objective.ppo_epochs > 1
        if several:
            self._add_logprobs(name, [data for rows_P, _ in parts for data in rows_P], "old_log_probs")
        if objective.loss == "policy" and objective.kl_coef > 0 and state.updates > 0:
            rows = [data for rows_P, _ in parts for data in rows_P if "ref_log_prob" not in data.keys()]
            self._add_logprobs(None, rows, "ref_log_prob")
            self.forks.load(name)
        if objective.forking is not None:
            parts = [(rows_P, replace(total, forks=self._mark_forks(rows_P, objective.forking))) for rows_P, total in parts]
        # An adapter is small; a copy of all weights is made where it is sure to be needed.
        before = self.forks.snapshot(name) if several or self.settings.adapter else None
        results = self.steps(name, before, parts, objective, self._loss, fresh(groups))
        state.updates += 1
        share = sum(total.forks for _, total in parts) / sum(total.weight for _, total in parts) if objective.forking else None
        return replace(self._stats(results, groups, objective), forking_share=share, seconds=time.perf_counter() - started)

    def score(self, name: str | None, groups: Sequence[TrainGroup], measure: Measure) -> list[list[TokenStats]]:
        """Statistics of this rank's rows under a fork, or under the base where ``name`` is None."""
        if name is not None and name in self.vectors:
            self.forks.load_base()
            self.engine.logit_bias = self.vectors.logit_bias(name)
        else:
            self.load(name)
        try:
            return [self._measured(data, measure) for data in self.rows(groups, measure.temperature)]
        finally:
            self.engine.logit_bias = None

    def _measured(self, data: TensorDict, measure: Measure) -> list[TokenStats]:
        tu.assign_non_tensor_data(data, MEASURE, measure)
        found = self.forward(data)
        found["logprob"] = found.pop("log_probs")
        columns = {f"{stat}_T": [tuple(row.tolist()) for row in found[stat].unbind()] for stat in measure.want}
        return [TokenStats(**{name: rows[i] for name, rows in columns.items()}) for i in range(len(data))]

    def export(self, name: str, folder: str, dtype: str) -> None:
        """Write a fork for vLLM or a user: PEFT's layout, all weights as safetensors, or the vector and its logit bias."""
        target = Path(folder)
        if name in self.vectors:
            self.vectors.export(name, target, self.rank)
        else:
            tensors = {_checkpoint_name(n): w.to("cpu", getattr(torch, dtype)).contiguous() for n, w in self.forks.full_weights(name)}
            if self.rank == 0:
                self._write(tensors, target)
        torch.distributed.barrier()

    def load_fork(self, name: str, folder: str) -> None:
        """Give a fork an adapter or full weights that were kept. Raises `StepError` where they do not fit this engine."""
        try:
            learned = find_learned(Path(folder))
            check_alike(learned, self.settings.adapter)
            tensors, names = learned.tensors(), {_checkpoint_name(n): n for n in self.forks.names}
            check_names(learned.file, tensors)
        except (EngineError, UsageError) as error:
            raise StepError(error.message, error.hint) from error
        spare = {_checkpoint_name(n) for n in tied_names(self.engine.module)}
        if unknown := sorted(tensors.keys() - names.keys() - spare):
            raise StepError(f"{learned.file}: the model has no {unknown[0]} to load.", "Give adapters of this model.")
        if learned.settings is None and (missing := sorted(names.keys() - tensors.keys())):
            raise StepError(f"{learned.file}: {missing[0]} is missing.", "Give complete weights.")
        if learned.settings is not None and not any(is_one_of(names.get(key, ""), ZERO) for key in tensors):
            raise StepError(f"{learned.file}: it holds nothing of this adapter.", "Give a complete adapter.")
        try:
            self.forks.put(name, {names[key]: tensor for key, tensor in tensors.items() if key in names})
        except ValueError as error:
            raise StepError(f"{learned.file}: {error}.", "Give adapters of this model.") from error

    def save_fork(self, name: str, folder: str) -> None:
        """Write everything the fork's next update depends on."""
        if name in self.vectors:
            self.vectors.save(name, Path(folder), self.rank)
        else:
            self.forks.save(name, Path(folder), self.rank)

    def restore_fork(self, name: str, folder: str) -> None:
        """Read what `save_fork` wrote."""
        if name in self.vectors:
            self.vectors.restore(name, Path(folder), self.rank)
        else:
            self.forks.restore(name, Path(folder), self.rank)

    def _write(self, tensors: dict[str, torch.Tensor], target: Path) -> None:
        target.mkdir(parents=True, exist_ok=True)
        if self.settings.adapter:
            self.engine.module.peft_config["default"].save_pretrained(str(target))
            # PEFT reads a head that is tied to trained embeddings by its own name too.
            tensors |= {
                _checkpoint_name(n): tensors[_checkpoint_name(first)].clone() for n, first in tied_names(self.engine.module).items()
            }
            save_file(tensors, target / ADAPTER_WEIGHTS, metadata={"format": "pt"})
        else:
            save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})

    def _add_logprobs(self, name: str | None, rows: list[TensorDict], column: str) -> None:
        """Score rows under a fork or the base.

        The base's tensors take the fork's place: PEFT's ``disable_adapter`` changes ``requires_grad`` of the parameters that
        FSDP2 has in place.
        """
        if rows:
            self.load(name)
        for data in rows:
            data[column] = self.forward(data)["log_probs"].to(data["input_ids"].device)

    def _mark_forks(self, rows_P: list[TensorDict], forking: Forking) -> float:
        """Add the forking tokens and the bands of their entropy, under the weights now in the model. Returns their number on all ranks.

        With a band the passes of the steps compute entropies too.
        """
        for data in rows_P:
            tu.assign_non_tensor_data(data, MEASURE, ENTROPIES)
            entropy_G, mask_G = self.forward(data)[ENTROPY].unbind(), data["response_mask"].unbind()
            found = [mark_forks(entropy_T, mask_T.cpu(), forking) for entropy_T, mask_T in zip(entropy_G, mask_G, strict=True)]
            for column, rows in zip((FORKS, BAND_LOW, BAND_HIGH), zip(*found, strict=True), strict=True):
                data[column] = nested(rows).to(data["input_ids"].device)
            tu.assign_non_tensor_data(data, MEASURE, JUST_LOGPROBS if forking.band is None else ENTROPIES)
        count = torch.stack([data[FORKS].values().sum() for data in rows_P]).sum().double().to(next(self.engine.module.parameters()).device)
        torch.distributed.all_reduce(count)
        return float(count)

    def _loss(self, rows_P: list[TensorDict], total: Total, objective: Objective) -> Any:
        """The loss function of one optimiser step."""
        if objective.loss == "nll":
            return partial(nll_loss, total.rows, total.weight)
        if objective.loss == "policy":
            return partial(policy_loss, objective, total.rows, total.weight, forks=total.forks)
        assert objective.loss == "marginal_entropy", f"weights have no loss {objective.loss!r}"
        log_marginal_V = self._log_marginal(rows_P, total)

        def loss(model_output: dict[str, torch.Tensor], data: TensorDict, dp_group: Any = None) -> Any:
            return marginal_entropy_loss(log_marginal_V, total.rows, model_output, model_output.pop(FINAL_LOGITS), data)

        return loss

    def _log_marginal(self, rows_P: list[TensorDict], total: Total) -> torch.Tensor:
        """Log of the next-token distribution averaged over the rows of all ranks, ``[V]``; also makes later passes show theirs."""
        found: list[torch.Tensor] = []

        def collect(model_output: dict[str, torch.Tensor], data: TensorDict, dp_group: Any = None) -> Any:
            share_GV = model_output.pop(FINAL_LOGITS).softmax(dim=-1)
            found.append((share_GV * carries_loss(data)[:, None]).sum(dim=0))
            return torch.zeros(()), {}

        with self.engine.eval_mode():
            for data in rows_P:
                tu.assign_non_tensor(data, **{FINAL_LOGITS: True})
                self.engine.infer_batch(data, collect)
        marginal_V = torch.stack(found).sum(dim=0)
        torch.distributed.all_reduce(marginal_V)
        return (marginal_V / total.rows).log()

    def _stats(self, results: list[StepResult], groups: Sequence[TrainGroup], objective: Objective) -> UpdateStats:
        first, steps = results[0], len(results)
        rates = {group["name"]: group["lr"] for group in self.engine.optimizer.param_groups}
        gap_mean, gap_max, correlation = log_prob_gap(first.sums) if fresh(groups) else (None, None, None)
        weights = [r.sums[SAMPLER_WEIGHT] for r in results if SAMPLER_WEIGHT in r.sums]
        clipped = [r.clip_fraction for r in results if r.clip_fraction is not None]
        return UpdateStats(
            loss=sum(r.loss for r in results) / steps,
            grad_norm=sum(r.grad_norm for r in results) / steps,
            lr=rates["main"],
            embedding_lr=rates.get("embedding"),
            kl_to_base=first.sums.get(KL),
            logprob_gap_mean=gap_mean,
            logprob_gap_max=gap_max,
            logprob_correlation=correlation,
            tokens=sum(group.n_tokens for group in groups) * objective.ppo_epochs,
            micro_batches=sum(r.micro_batches for r in results),
            seconds=0.0,
            optimizer_steps=steps,
            tis_weight=sum(weights) / len(weights) if weights else None,
            clip_fraction=sum(clipped) / len(clipped) if clipped else None,
        )


def fresh(groups: Sequence[TrainGroup]) -> bool:
    """Whether all rows were sampled from the weights that are updated: the learner's log-probs must then be the sampler's."""
    return all(row.sampler_logprob_T is not None for group in groups for row in group.row_G)


def check_weights(groups: Sequence[TrainGroup], objective: Objective) -> None:
    """verl's policy losses take tokens or leave them."""
    weights = {weight for group in groups for row in group.row_G for weight in row.weight_T}
    assert min(weights) >= 0 and max(weights) > 0, "weights are not negative, and some token carries loss"
    assert objective.loss == "nll" or weights <= {0.0, 1.0}, f"the loss {objective.loss!r} takes weights of 0 and 1"


def tied_names(module: torch.nn.Module) -> dict[str, str]:
    """Further names of trained parameters that the model uses in two places, each with the first name."""
    first = {id(parameter): name for name, parameter in module.named_parameters() if parameter.requires_grad}
    everywhere = module.named_parameters(remove_duplicate=False)
    return {name: first[id(p)] for name, p in everywhere if first.get(id(p), name) != name}


def _checkpoint_name(parameter_name: str) -> str:
    """A parameter's name in PEFT's files: without the adapter's name, and without its wrapper where it is trained whole."""
    plain = parameter_name.replace(".modules_to_save.default.", ".").replace(".default.weight", ".weight")
    return plain.removesuffix(".default")  # the factors of an embedding
