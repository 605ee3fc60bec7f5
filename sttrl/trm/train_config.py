"""All settings of a training run of the tiny recursive model: every top-level key of the originals by its name, and ours.

"TRM" marks a default of TinyRecursiveModels' config/cfg_pretrain.yaml (arXiv 2510.04871), "Trelis" one of its fork, "derived" a choice of
this project. Paths and counts are those of a whole run; batch sizes are global, summed over the processes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Final, Literal

from sttrl.config.rules import ABOVE_ZERO, FRACTION, NOT_NEGATIVE, OPTIONAL_COUNT, Group, Rule, at_least
from sttrl.config.run import Tracker
from sttrl.errors import UsageError
from sttrl.trm.arch import ArchConfig, check_arch

Adaptation = Literal["full", "embeddings", "embeddings_then_full", "lora", "embeddings_then_lora"]
ADAPTATIONS: Final[dict[Adaptation, str]] = {
    "full": "all weights",
    "embeddings": "the puzzle embeddings only",
    "embeddings_then_full": "the puzzle embeddings first, then all weights",
    "lora": "a LoRA on every linear layer, and the embeddings",
    "embeddings_then_lora": "the puzzle embeddings first, then a LoRA on every linear layer too",
}
"""What is trained, in words."""
SavedOutput = Literal["inputs", "labels", "puzzle_identifiers", "preds", "logits", "q_halt_logits", "q_continue_logits"]
ALL_CONFIG, METRICS = "all_config.yaml", "metrics.jsonl"
"""Files of a run folder: its settings, and the numbers of each step and evaluation."""
DECAY = Rule(lambda value: 0 <= value < 1, "Use a number from 0 to below 1.")
PATHS = Rule(lambda value: len(value) > 0, "Name one folder of a data set or more.")
RANKS = Rule(lambda value: len(value) > 0 and min(value) >= 1, "Use numbers of 1 or more.")


@dataclass(frozen=True, kw_only=True)
class EvaluatorConfig(Group):
    """An evaluator of ``evaluators``."""

    name: Literal["arc@ARC"] = "arc@ARC"
    """The vote on ARC tasks; there is no other. Exact accuracy is measured without any."""
    submission_K: Annotated[int, at_least(1)] = 2
    """Attempts for each test input in submission.json (TRM)."""
    pass_Ks: Annotated[tuple[int, ...], RANKS] = (1, 2, 5, 10, 100, 1000)
    """The K of ``ARC/pass@K`` (TRM)."""
    aggregated_voting: bool = False
    """Count the votes of earlier evaluations too: later results are then an ensemble of checkpoints (derived; TRM: true)."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Group):
    """The settings of a training run, or of an adaptation, which is training from a checkpoint."""

    arch: ArchConfig = field(default_factory=ArchConfig)
    """The architecture: ``arch.KEY``, or the name of a preset of configs/trm/arch."""
    data_paths: Annotated[tuple[str, ...], PATHS] = ("data/arc-aug-1000",)
    """Folders of data sets to train on (TRM)."""
    data_paths_test: tuple[str, ...] = ()
    """Folders of data sets to evaluate on; empty: the test splits of ``data_paths`` (TRM)."""
    evaluators: tuple[EvaluatorConfig, ...] = (EvaluatorConfig(),)
    """What is evaluated beside accuracies; ``[]`` for data without ARC tasks (TRM)."""
    aggregated_voting: bool | None = None
    """In place of that of every evaluator: count the votes of earlier evaluations too; unset: as the evaluator says (derived)."""
    global_batch_size: Annotated[int, at_least(1)] = 768
    """Sequences of an optimiser step, over all processes (TRM)."""
    eval_global_batch_size: Annotated[int | None, OPTIONAL_COUNT] = None
    """Sequences of an evaluation's batch; unset: ``global_batch_size`` (Trelis)."""
    epochs: Annotated[int, at_least(1)] = 100000
    """Epochs; one takes a single variant of each puzzle (TRM; 50,000 for Sudoku and mazes)."""
    eval_interval: int | None = 10000
    """Epochs between evaluations, a divisor of ``epochs``; unset: one evaluation at the end (TRM)."""
    min_eval_interval: Annotated[int, at_least(0)] = 0
    """Evaluations to leave out at first, with their checkpoints (TRM)."""
    checkpoint_every_eval: bool = True
    """Keep a checkpoint at every evaluation, not only at the last one (TRM)."""
    checkpoint_every_n_steps: Annotated[int | None, OPTIONAL_COUNT] = None
    """Also keep a checkpoint every so many optimiser steps, of the weights without EMA (Trelis)."""
    eval_max_augmentations: Annotated[int | None, at_least(0, ", or null for all")] = None
    """Variants of each test task that vote beside the task itself; unset: all (Trelis)."""
    halt_max_steps_eval: Annotated[int | None, OPTIONAL_COUNT] = None
    """Supervision steps in evaluation; unset: ``arch.halt_max_steps_eval``, else ``arch.halt_max_steps`` (Trelis)."""
    max_examples_per_puzzle: Annotated[int | None, OPTIONAL_COUNT] = None
    """Most examples of a puzzle to train on; unset: all (Trelis)."""
    max_eval_examples_per_puzzle: Annotated[int | None, OPTIONAL_COUNT] = None
    """Most examples of a puzzle to evaluate; unset: all (Trelis)."""
    lr: Annotated[float, NOT_NEGATIVE] = 1e-4
    """Learning rate of the trunk (TRM)."""
    lr_min_ratio: Annotated[float, FRACTION] = 1.0
    """Where the cosine ends, as a fraction of the learning rate; 1: constant (TRM)."""
    lr_warmup_steps: Annotated[int, at_least(0)] = 2000
    """Optimiser steps over which both learning rates rise (TRM)."""
    beta1: Annotated[float, DECAY] = 0.9
    """Decay of the gradient's average (TRM)."""
    beta2: Annotated[float, DECAY] = 0.95
    """Decay of the squared gradient's average (TRM)."""
    weight_decay: Annotated[float, NOT_NEGATIVE] = 0.1
    """Weight decay of the trunk (TRM; 1.0 for Sudoku and mazes)."""
    puzzle_emb_lr: Annotated[float, NOT_NEGATIVE] = 1e-2
    """Learning rate of the puzzle embeddings, by sign-SGD (TRM; 1e-4 for Sudoku and mazes)."""
    puzzle_emb_weight_decay: Annotated[float, NOT_NEGATIVE] = 0.1
    """Weight decay of the puzzle embeddings (TRM; 1.0 for Sudoku and mazes)."""
    puzzle_emb_reinit_strategy: Literal["mean", "normal"] = "mean"
    """Rows of puzzles that a loaded checkpoint does not know: the mean of its rows, or normal numbers (Trelis)."""
    ema: bool = False
    """Evaluate and keep an exponential moving average of the weights (TRM's commands set it)."""
    ema_rate: Annotated[float, DECAY] = 0.999
    """Decay of the moving average at each step (TRM)."""
    freeze_weights: bool = False
    """Train the puzzle embeddings only (TRM)."""
    freeze_weights_epochs: Annotated[int | None, OPTIONAL_COUNT] = None
    """With ``freeze_weights``: train everything after so many epochs; unset: never (Trelis)."""
    freeze_weights_steps: Annotated[int | None, OPTIONAL_COUNT] = None
    """With ``freeze_weights``: train everything after so many optimiser steps, in place of epochs; unset: never (derived)."""
    grid_noise_prob: Annotated[float | None, FRACTION] = None
    """Instead of ``arch.grid_noise_prob``; unset: that one (Trelis)."""
    grid_noise_fraction: Annotated[float | None, FRACTION] = None
    """Instead of ``arch.grid_noise_fraction``; unset: that one (Trelis)."""
    seed: Annotated[int, at_least(0)] = 0
    """Seed of weights, data order, halting and dropout (TRM)."""
    load_checkpoint: str | None = None
    """A checkpoint to begin from: a file of the original, of its fork or of ours, or a run folder (TRM)."""
    checkpoint_path: str | None = None
    """The run's folder; unset: ``output_dir`` / ``run_name`` (TRM: checkpoints/PROJECT/RUN)."""
    project_name: str | None = None
    """Project for wandb and trackio; unset: from the first data set's name (TRM)."""
    run_name: str | None = None
    """The run's name; unset: from data set, mode and a hash of the settings, so that the same command finds its run again."""
    entity: str | None = None
    """Team for wandb (Trelis)."""
    eval_save_outputs: tuple[SavedOutput, ...] = ()
    """Arrays of an evaluation to keep in ``step_N_all_preds`` files (TRM)."""
    dataloader_num_workers: Annotated[int, at_least(0)] = 1
    """0: the training prepares its batches itself; else a thread does, whatever the number (Trelis: processes)."""
    dataloader_prefetch_factor: Annotated[int, at_least(1)] = 8
    """Batches that the thread prepares ahead (Trelis)."""
    dataloader_pin_memory: bool = True
    """Copy batches to a GPU from pinned memory, while it computes (Trelis)."""
    dataloader_persistent_workers: bool = True
    """Read and without effect: the threads stay (Trelis)."""

    optimiser: Literal["adam_atan2", "adam_atan2_pytorch", "adamw"] = "adam_atan2"
    """Optimiser of the trunk: adam_atan2 is TRM's kernel; adam_atan2_pytorch the package of the fork, with steps up to 27 % larger."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto: a GPU where there is one (derived)."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number type of the forward pass; auto: ``arch.forward_dtype`` on a GPU, float32 on a CPU (derived)."""
    compile: bool = False
    """Compile the model by torch.compile: slow to begin, then faster on a GPU (derived; TRM: on)."""
    gradient_accumulation: Annotated[int, at_least(1)] = 1
    """Parts in which an optimiser step's batch is computed, for less memory; the result is the same (derived)."""
    max_steps: Annotated[int | None, OPTIONAL_COUNT] = None
    """End after so many optimiser steps, with an evaluation; learning rates still follow ``epochs`` (derived)."""
    state_every_n_steps: Annotated[int, at_least(1)] = 1000
    """Optimiser steps between saved states, from which the same command goes on (derived; TRM cannot go on)."""
    output_dir: Path = Path("outputs")
    """Where run folders go."""
    track: tuple[Tracker, ...] = ()
    """Log to these trackers too (derived; TRM: wandb)."""
    rollouts: Annotated[int, at_least(0)] = 0
    """Noisy rollouts of each evaluated sequence, the best by the halting head (PTRM, arXiv 2605.19943); 0: none."""
    rollout_noise: Annotated[float, ABOVE_ZERO] = 0.1
    """Standard deviation of the noise on the answer latent in ``rollouts`` (derived)."""
    evaluate_before: bool = False
    """Evaluate before the first step too (derived)."""
    shuffle_identities: bool = False
    """Control: evaluate also with puzzle identities exchanged among tasks, which shows what is memorised (derived)."""
    tasks: tuple[str, ...] = ()
    """Train and evaluate on the puzzles of these tasks only; empty: on all (derived)."""
    leave_out_test_demos: bool = False
    """Control: do not train on the demonstrations of the tasks that are evaluated (derived)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_arch()
        self._check_intervals()
        self._check_freezing()
        if self.global_batch_size % self.gradient_accumulation:
            raise UsageError(
                f"--gradient_accumulation {self.gradient_accumulation} does not divide --global_batch_size {self.global_batch_size}.",
                "Use a divisor.",
            )
        if len({evaluator.name for evaluator in self.evaluators}) < len(self.evaluators):
            raise UsageError("--evaluators names one evaluator twice.", "Name it once; pass_Ks takes several numbers.")

    def _check_arch(self) -> None:
        arch = self.model_arch
        check_arch(arch)
        for name in ("expansion", "rms_norm_eps", "rope_theta"):
            if not ABOVE_ZERO.allows(value := getattr(arch, name)):
                raise UsageError(f"arch.{name} is {value}.", ABOVE_ZERO.remedy)
        if arch.grid_noise_prob and not arch.grid_noise_fraction:
            raise UsageError(
                f"grid_noise_prob {arch.grid_noise_prob} with grid_noise_fraction 0 changes no cell.", "Give both, or neither."
            )

    def _check_intervals(self) -> None:
        if self.eval_interval is None:
            return
        if self.eval_interval < 1:
            remedy = "Use the number of epochs between evaluations, or null for a single one at the end."
            raise UsageError(f"--eval_interval is {self.eval_interval}.", remedy)
        if self.epochs % self.eval_interval:
            near = _nearest_divisors(self.epochs, self.eval_interval)
            raise UsageError(
                f"--eval_interval {self.eval_interval} does not divide --epochs {self.epochs}.",
                f"Use {' or '.join(map(str, near))}, or null for a single evaluation at the end.",
            )

    def _check_freezing(self) -> None:
        if self.freeze_weights_epochs is not None and not self.freeze_weights:
            raise UsageError(
                f"--freeze_weights_epochs {self.freeze_weights_epochs} does nothing without --freeze_weights.",
                "Add freeze_weights=true, or leave it out.",
            )
        if self.freeze_weights_epochs is not None and self.freeze_weights_epochs >= self.epochs:
            raise UsageError(
                f"--freeze_weights_epochs {self.freeze_weights_epochs} is not below --epochs {self.epochs}.",
                "Use fewer, or null to train the embeddings only.",
            )
        if self.freeze_weights and self.arch.row_size == 0:
            raise UsageError("--freeze_weights with --arch.puzzle_emb_ndim 0 leaves nothing to train.", "Leave one of them out.")
        if self.freeze_weights_steps is not None and (not self.freeze_weights or self.freeze_weights_epochs is not None):
            raise UsageError(
                f"--freeze_weights_steps {self.freeze_weights_steps} needs --freeze_weights, and no --freeze_weights_epochs.",
                "Add freeze_weights=true, and leave the epochs out.",
            )
        if self.freeze_weights and not self.thaws and self.arch.lora_rank:
            raise UsageError(
                f"--freeze_weights with --arch.lora_rank {self.arch.lora_rank} trains no LoRA.",
                "Leave freeze_weights out, or give --freeze_weights_epochs.",
            )

    @property
    def votes_aggregate(self) -> bool:
        """Whether the votes of earlier evaluations count too."""
        if self.aggregated_voting is None:
            return any(evaluator.aggregated_voting for evaluator in self.evaluators)
        return self.aggregated_voting

    @property
    def thaws(self) -> bool:
        """Whether weights that are frozen at first are trained later."""
        return self.freeze_weights_epochs is not None or self.freeze_weights_steps is not None

    @property
    def model_arch(self) -> ArchConfig:
        """The architecture with the top-level keys that stand for keys of it."""
        names = ("halt_max_steps_eval", "grid_noise_prob", "grid_noise_fraction")
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        return replace(self.arch, **given)

    @property
    def adaptation(self) -> Adaptation:
        """What is trained, as one word."""
        then: Literal["full", "lora"] = "lora" if self.arch.lora_rank else "full"
        if not self.freeze_weights:
            return then
        if not self.thaws:
            return "embeddings"
        return "embeddings_then_lora" if then == "lora" else "embeddings_then_full"

    @property
    def epochs_per_iteration(self) -> int:
        """Epochs between evaluations."""
        return self.eval_interval or self.epochs

    @property
    def eval_batch_size(self) -> int:
        """Sequences of an evaluation's batch, over all processes."""
        return self.eval_global_batch_size or self.global_batch_size

    def total_steps(self, total_groups: int, mean_puzzle_examples: float) -> int:
        """Optimiser steps of the whole run over a data set with these numbers (its dataset.json)."""
        return int(self.epochs * total_groups * mean_puzzle_examples / self.global_batch_size)

    def frozen_steps(self, total_steps: int) -> int:
        """How many optimiser steps, from the first, train the puzzle embeddings only."""
        if not self.freeze_weights:
            return 0
        if self.freeze_weights_steps is not None:
            return min(self.freeze_weights_steps, total_steps)
        return total_steps if self.freeze_weights_epochs is None else math.ceil(total_steps * self.freeze_weights_epochs / self.epochs)


def _nearest_divisors(number: int, wanted: int) -> list[int]:
    """The divisors of a number next to another number, below and above it."""
    divisors = [d for low in range(1, math.isqrt(number) + 1) if number % low == 0 for d in (low, number // low)]
    below, above = [d for d in divisors if d < wanted], [d for d in divisors if d > wanted]
    return [*([max(below)] if below else []), *([min(above)] if above else [])]
