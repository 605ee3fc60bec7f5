"""Training: steps over a data set, with evaluations, checkpoints, and a state from which an interrupted run goes on.

A full training, a fine-tuning of embeddings and a LoRA differ in the configuration only.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from sttrl.engine.environment import choose_device
from sttrl.errors import DataError
from sttrl.ledger.seeds import seed_of
from sttrl.trm.arch import Sizes
from sttrl.trm.checkpoints import Checkpoint, find_checkpoint
from sttrl.trm.data.orders import Position
from sttrl.trm.ema import EMA
from sttrl.trm.evaluate import PLAIN, Evaluator
from sttrl.trm.lora import adapter_state
from sttrl.trm.model import TinyRecursiveModel, build_model
from sttrl.trm.opened import Data, Say, open_data, unheard
from sttrl.trm.optimisers import OPTIMISERS, SignSGD
from sttrl.trm.prefetch import ahead
from sttrl.trm.ranks import Ranks
from sttrl.trm.run_files import RunFiles
from sttrl.trm.run_names import run_folder
from sttrl.trm.state import Reached, has_state, load_state, save_state
from sttrl.trm.steps import Learner, train_step
from sttrl.trm.train_config import TrainConfig
from sttrl.trm.weights import RowNames, load_into
from sttrl.trm.written import write_results

SAY_EVERY_S = 15.0
"""A line of progress every so many seconds."""


@dataclass(kw_only=True)
class Progress:
    """Says how far a training is and how long the rest will take."""

    say: Say
    total: int
    begun: int
    started: float = field(default_factory=time.monotonic)
    said: float = field(default_factory=time.monotonic)

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        """After a step."""
        now = time.monotonic()
        if now - self.said < SAY_EVERY_S and step < self.total:
            return
        self.said = now
        pace = (now - self.started) / max(step - self.begun, 1)
        left = timedelta(seconds=round(pace * (self.total - step)))
        shown = ", ".join(f"{name} {metrics['train/' + name]:.3f}" for name in ("lm_loss", "exact_accuracy"))
        self.say(f"step {step} of {self.total}: {shown}; {pace:.3f} s a step, about {left} left")


def train(config: TrainConfig, say: Say, checkpoint: Checkpoint | None = None) -> Path:
    """Train as the configuration says; go on where an earlier attempt was interrupted. Returns the run folder.

    ``checkpoint``: that of ``load_checkpoint``, if it was found already.
    Raises DataError, UsageError, DivergedError and JournalError.
    """
    ranks = Ranks.begin(choose_device(config.device))
    folder = run_folder(config)
    try:
        with RunFiles(folder, config, writes=ranks.is_first) as files:
            run(config, files, ranks, say if ranks.is_first else unheard, checkpoint)
    finally:
        ranks.end()
    return folder


def run(config: TrainConfig, files: RunFiles, ranks: Ranks, say: Say, checkpoint: Checkpoint | None) -> None:
    """The training proper, with the run folder open."""
    data = open_data(config, ranks, say)
    if checkpoint is None and config.load_checkpoint is not None:
        checkpoint = find_checkpoint(Path(config.load_checkpoint))
    learner = make_learner(config, data, checkpoint, ranks, say)
    if learner.total_steps < 1:
        raise DataError(
            f"{config.epochs} epochs of {', '.join(config.data_paths)} fill no batch of {config.global_batch_size} examples.",
            "Use a smaller global_batch_size, or more epochs.",
        )
    evaluator = None if data.test is None else Evaluator(config, data.test, data.votes, ranks)
    files.claim()
    files.names(data.identifiers)
    reached = Reached()
    if has_state(files.folder, ranks):
        reached, votes = load_state(files.folder, learner, ranks)
        if evaluator is not None:
            evaluator.restore(votes)
        say(f"{files.folder}: going on after step {learner.step} of {learner.last_step}")
    files.cut(reached.lines)
    if learner.step == 0:
        files.log(0, {"num_params": sum(parameter.numel() for _, parameter in learner.model.trunk_parameters())})
    if learner.step == 0 and config.evaluate_before and evaluator is not None:
        evaluate(learner, data, evaluator, files, say)
    loop(learner, data, reached, evaluator, files, ranks, say)


def loop(learner: Learner, data: Data, reached: Reached, evaluator: Evaluator | None, files: RunFiles, ranks: Ranks, say: Say) -> None:
    """Steps until the configured epochs are over. An iteration is the epochs between two evaluations."""
    config = learner.config
    iterations = config.epochs // config.epochs_per_iteration
    progress = Progress(say=say, total=learner.last_step, begun=learner.step)

    def save(reached: Reached) -> None:
        votes = {} if evaluator is None else evaluator.votes_to_keep()
        save_state(files.folder, learner, replace(reached, lines=files.settle()), ranks, votes)

    while reached.position.iteration < iterations and not (learner.step >= learner.last_step and reached.finished == learner.step):
        iteration, is_over = reached.position.iteration, False
        prefetched = config.dataloader_prefetch_factor if config.dataloader_num_workers else 0
        with ahead(data.train.train(reached.position), prefetched) as batches:
            for after, arrays in batches:
                is_over = after.iteration > iteration
                if is_over or learner.step >= learner.last_step:
                    break
                metrics = train_step(learner, moved(arrays, config, ranks), ranks)
                files.log(learner.step, metrics)
                progress.step(learner.step, metrics)
                reached = replace(reached, position=after)
                if learner.step % config.state_every_n_steps == 0:
                    save(reached)
                if config.checkpoint_every_n_steps and learner.step % config.checkpoint_every_n_steps == 0:
                    files.checkpoint(learner.step, learner.model.state_dict())
        last = learner.step >= learner.last_step or iteration + 1 == iterations
        if iteration >= config.min_eval_interval or last:
            finish_iteration(learner, data, evaluator, files, say, last=last)
        # Where max_steps ends the run within an iteration, a later run with more steps goes on there.
        reached = Reached(position=Position(iteration=iteration + 1) if is_over else reached.position, finished=learner.step)
        save(reached)


def moved(arrays: Mapping[str, Any], config: TrainConfig, ranks: Ranks) -> dict[str, torch.Tensor]:
    """A batch on the device."""
    batch = {name: torch.from_numpy(value) for name, value in arrays.items()}
    if ranks.device.type == "cuda" and config.dataloader_pin_memory:
        batch = {name: value.pin_memory() for name, value in batch.items()}
    return {name: value.to(ranks.device, non_blocking=True) for name, value in batch.items()}


def finish_iteration(learner: Learner, data: Data, evaluator: Evaluator | None, files: RunFiles, say: Say, *, last: bool) -> None:
    """Evaluate, and keep a checkpoint."""
    if evaluator is not None:
        evaluate(learner, data, evaluator, files, say)
    if learner.config.checkpoint_every_eval or last:
        state = averaged(learner)
        files.checkpoint(learner.step, state)
        if learner.config.arch.lora_rank:
            files.adapter(learner.step, {name: state[name] for name in adapter_state(learner.model)})


def evaluate(learner: Learner, data: Data, evaluator: Evaluator, files: RunFiles, say: Say) -> None:
    """Evaluate the averaged weights, where there are some, and write what was found."""
    begun = time.monotonic()
    if learner.ema is None:
        rows, kept = evaluator.evaluate(learner.model, learner.step)
    else:
        with learner.ema.applied(learner.model):
            rows, kept = evaluator.evaluate(learner.model, learner.step)
    kept.write(files.folder, learner.step, evaluator.ranks.rank)
    remarks = []
    if files.writes:
        remarks = write_results(files, learner.step, rows, data.test_puzzles, data.identifiers, seconds=time.monotonic() - begun)
    files.log(learner.step, rows[PLAIN].metrics)
    for row, found in rows.items():
        numbers = [f"{name} {value:.3f}" for name, value in found.metrics.items() if name.endswith(("exact_accuracy", "pass@1", "pass@2"))]
        say(f"evaluated after step {learner.step}, {row}: {', '.join(numbers) or 'no answer is known'}")
    for remark in remarks:
        say(f"  {remark}")


def averaged(learner: Learner) -> dict[str, torch.Tensor]:
    """The weights that a checkpoint holds: the average where there is one, and what is not averaged as it is."""
    state = dict(learner.model.state_dict())
    return state if learner.ema is None else state | learner.ema.state_dict()


def make_learner(config: TrainConfig, data: Data, checkpoint: Checkpoint | None, ranks: Ranks, say: Say) -> Learner:
    """A model, new or from a checkpoint, with its optimisers. Raises DataError for a checkpoint that does not fit."""
    model = make_model(config, data, ranks)
    if checkpoint is not None:
        load(model, checkpoint, config, data.identifiers, say)
    metadata = data.train.metadata
    learner = learner_of(model, config, config.total_steps(metadata.total_groups, metadata.mean_puzzle_examples))
    learner.task_of = torch.from_numpy(data.train.task_of_identifier()).to(ranks.device)
    learner.blank_identifier_id = metadata.blank_identifier_id
    return learner


def learner_of(model: TinyRecursiveModel, config: TrainConfig, total_steps: int) -> Learner:
    """A learner with the optimisers that the configuration asks for."""
    named = [(name, parameter) for name, parameter in model.trunk_parameters() if parameter.requires_grad]
    frozen = config.frozen_steps(total_steps)
    betas = (config.beta1, config.beta2)
    for _, parameter in named:
        parameter.requires_grad_(frozen == 0)
    return Learner(
        model=model,
        config=config,
        table=None if model.table is None else SignSGD(model.table, weight_decay=config.puzzle_emb_weight_decay),
        trunk=OPTIMISERS[config.optimiser](named, betas=betas, weight_decay=config.weight_decay) if frozen < total_steps else None,
        trunk_parameters=[parameter for _, parameter in named],
        ema=EMA(model, config.ema_rate, [name for name, _ in named]) if config.ema else None,
        generator=generator_of(config, "steps"),
        total_steps=total_steps,
        frozen_until=frozen,
    )


def make_model(config: TrainConfig, data: Data, ranks: Ranks) -> TinyRecursiveModel:
    """A new model of the data's sizes."""
    metadata = data.train.metadata
    sizes = Sizes(vocab_size=metadata.vocab_size, seq_len=metadata.seq_len, num_puzzle_identifiers=metadata.num_puzzle_identifiers)
    arch = replace(config.model_arch, forward_dtype=forward_dtype(config, ranks.device.type))
    model = build_model(arch, sizes, generator=generator_of(config, "weights"), device=ranks.device)
    if config.compile:
        model.compile_recursion()
    return model


def forward_dtype(config: TrainConfig, device: str) -> str:
    """The number type of the forward pass: that of the architecture on a GPU, float32 on a CPU, or what ``dtype`` says."""
    if config.dtype != "auto":
        return config.dtype
    return "float32" if device == "cpu" else config.arch.forward_dtype


def load(model: TinyRecursiveModel, checkpoint: Checkpoint, config: TrainConfig, identifiers: list[str], say: Say) -> None:
    """Load a checkpoint, with its puzzles found by name where it has names, and say what became of it."""
    loaded = load_into(
        model,
        checkpoint.state(),
        reinit=config.puzzle_emb_reinit_strategy,
        generator=generator_of(config, "rows"),
        names=None if checkpoint.identifiers is None else RowNames(old=checkpoint.identifiers, new=identifiers),
        lora_alpha=checkpoint.lora_alpha,
    )
    say(f"begins from {checkpoint.file}{f', trained on {checkpoint.base}' if checkpoint.base else ''}")
    for line in loaded.lines:
        say(f"  {line}")


def generator_of(config: TrainConfig, purpose: str) -> torch.Generator:
    """A generator of its own for each purpose."""
    return torch.Generator().manual_seed(seed_of(config.seed, "trm", purpose, 0, 0))
