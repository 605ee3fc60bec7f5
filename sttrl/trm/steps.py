"""One optimiser step: a supervision step of the model on the batch in flight, its gradient, and one step of each optimiser.

Source: TinyRecursiveModels (arXiv 2510.04871). The batch in flight is carried from step to step; sequences that halted are replaced by new
ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from sttrl.errors import DivergedError
from sttrl.ledger.seeds import seed_of
from sttrl.trm.diagnostics import step_diagnostics
from sttrl.trm.ema import EMA
from sttrl.trm.losses import act_loss, logged_train
from sttrl.trm.model import Batch, Carry, TinyRecursiveModel
from sttrl.trm.optimisers import Optimiser, SignSGD, learning_rate
from sttrl.trm.ranks import Ranks
from sttrl.trm.train_config import TrainConfig


@dataclass(kw_only=True)
class Learner:
    """A model in training.

    ``total_steps``: those that the learning rate is planned for. ``table`` and ``trunk``: the optimisers of the puzzle embeddings and of
    everything else; None where there is nothing to train. ``frozen_until``: the last step in which the trunk is frozen. ``carries``: the
    batch in flight, in as many parts as gradients are accumulated over; empty before the first step. ``generator``: draws which sequences
    may not halt early, and dropout. ``task_of``: the task of each row of the puzzle table, for metrics.
    ``blank_identifier_id``: the row of the puzzle table that padding has.
    """

    model: TinyRecursiveModel
    config: TrainConfig
    table: SignSGD | None
    trunk: Optimiser | None
    trunk_parameters: Sequence[torch.nn.Parameter]
    ema: EMA | None
    generator: torch.Generator
    total_steps: int
    frozen_until: int = 0
    step: int = 0
    carries: list[Carry] = field(default_factory=list)
    task_of: torch.Tensor | None = None
    blank_identifier_id: int = 0

    @property
    def last_step(self) -> int:
        """The step after which training ends."""
        limit = self.config.max_steps
        return self.total_steps if limit is None else min(limit, self.total_steps)

    @property
    def trunk_learns(self) -> bool:
        """Whether the step that is being taken trains the trunk."""
        return self.trunk is not None and self.step > self.frozen_until


def train_step(learner: Learner, batch: Batch, ranks: Ranks) -> dict[str, float]:
    """Take one step, and return its metrics under the original's names (``train/...``).

    ``batch``: this process's share. Raises DivergedError for a loss or a gradient that is not finite; nothing is changed then.
    """
    learner.step += 1
    learner.model.train()
    for parameter in learner.trunk_parameters:
        parameter.requires_grad_(learner.trunk_learns)
    global_batch = len(batch["inputs"]) * ranks.count
    random_state = learner.generator.get_state()
    sums, carries = accumulated(learner, batch, global_batch, ranks)
    trained = [parameter.grad for parameter in learner.trunk_parameters if parameter.grad is not None]
    ranks.sum(trained)
    if not is_finite(learner, sums, trained, ranks):
        zero_gradients(learner)
        learner.generator.set_state(random_state)
        learner.step -= 1
        raise DivergedError(
            f"Step {learner.step + 1}: the loss or a gradient is not finite. The step was not applied.",
            "Use smaller learning rates (lr, puzzle_emb_lr) or dtype=float32 in a new run; checkpoints so far are kept.",
        )
    logged = logged_train(sums, global_batch) | diagnosed(learner, batch, ranks)
    learner.carries = carries
    return {**logged, "train/lr": apply_gradients(learner)}


def diagnosed(learner: Learner, batch: Batch, ranks: Ranks) -> dict[str, float]:
    """The fork's metrics of a step, of the batches of all processes together."""
    ids = ranks.joined(batch["puzzle_identifiers"])
    tasks = None if learner.task_of is None else learner.task_of[ids.long()]
    found = step_diagnostics(learner.model, ids, tasks, blank=learner.blank_identifier_id)
    if ranks.count > 1:
        # The trunk's gradients are summed over the processes already; each has only its own rows of the table.
        squared = found["grad_embed_norm"].square()
        ranks.sum([squared])
        found["grad_embed_norm"] = squared.sqrt()
    return {f"train/{name}": float(value) for name, value in found.items()}


def accumulated(learner: Learner, batch: Batch, global_batch: int, ranks: Ranks) -> tuple[dict[str, float], list[Carry]]:
    """Add up the gradients of all parts of the batch. Returns the metrics' sums over all processes, and the carries that follow."""
    parts, model = learner.config.gradient_accumulation, learner.model
    pieces = [{name: value.chunk(parts)[number] for name, value in batch.items()} for number in range(parts)]
    if not learner.carries:
        learner.carries = [model.initial_carry(piece) for piece in pieces]
    least: Sequence[torch.Tensor | None] = [None] * parts
    if model.explores:
        # Drawn for the whole batch, so that the draws do not depend on how many processes and parts there are.
        whole = model.draw_least(global_batch, learner.generator).to(ranks.device)
        least = whole.chunk(ranks.count)[ranks.rank].chunk(parts)
    masks = torch.Generator(device=ranks.device).manual_seed(seed_of(learner.config.seed, "trm", "dropout", learner.step, ranks.rank))
    carries: list[Carry] = []
    sums: dict[str, torch.Tensor] = {}
    for piece, carry, own in zip(pieces, learner.carries, least, strict=True):
        after, outputs = model(carry, piece, generator=masks, least=own)
        loss, metrics, _ = act_loss(outputs, after, learner.config.arch.loss.loss_type)
        (loss / global_batch).backward()
        carries.append(after)
        for name, value in metrics.items():
            sums[name] = sums[name] + value if name in sums else value.double()
    packed = torch.stack(list(sums.values())).to(ranks.device)
    ranks.sum([packed])
    return dict(zip(sums, packed.tolist(), strict=True)), carries


def is_finite(learner: Learner, sums: Mapping[str, float], trained: Sequence[torch.Tensor], ranks: Ranks) -> bool:
    """Whether losses and gradients of all processes are finite."""
    rows = [] if learner.model.table is None else [rows.grad for _, rows in learner.model.table.pending if rows.grad is not None]
    gradients = [*trained, *rows]
    bad = torch.zeros(1, device=ranks.device)
    if gradients:
        bad += (~torch.isfinite(torch.stack(torch._foreach_norm(gradients)))).any()
    ranks.sum([bad])
    return not bad.item() and all(map(math.isfinite, sums.values()))


def apply_gradients(learner: Learner) -> float:
    """One step of each optimiser, and of the average of the weights. Returns the learning rate of the last optimiser that stepped."""
    config, rate = learner.config, 0.0
    steps = ((learner.table, config.puzzle_emb_lr, True), (learner.trunk, config.lr, learner.trunk_learns))
    for optimiser, base, now in steps:
        if optimiser is not None and now:
            rate = learning_rate(
                learner.step,
                base=base,
                warmup_steps=config.lr_warmup_steps,
                total_steps=learner.total_steps,
                min_ratio=config.lr_min_ratio,
            )
            optimiser.step(rate)
    zero_gradients(learner)
    if learner.ema is not None:
        learner.ema.update(learner.model)
    return rate


def zero_gradients(learner: Learner) -> None:
    """Forget all gradients."""
    for optimiser in (learner.table, learner.trunk):
        if optimiser is not None:
            optimiser.zero_grad()
