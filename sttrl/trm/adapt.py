"""Adaptation: a checkpoint is trained on the demonstrations of puzzles that it has never seen, and answers their test inputs.

All puzzles share one adaptation, or each chunk of tasks has its own, down to one task. The checkpoint itself is never changed.
Modes: Trelis' fork of TinyRecursiveModels (full, embeddings only, embeddings and then everything, LoRA with embeddings).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from sttrl.engine.environment import choose_device
from sttrl.errors import DataError, UsageError
from sttrl.ledger.files import make_folder, write_text
from sttrl.trm.arch import ArchConfig
from sttrl.trm.checkpoints import Checkpoint, find_checkpoint
from sttrl.trm.config import as_mapping, config_of
from sttrl.trm.data.arc_tasks import Subset
from sttrl.trm.data.format import has_split
from sttrl.trm.data.sources import Tasks, read_sources
from sttrl.trm.evaluation_files import evaluation_folder, merge_submissions
from sttrl.trm.opened import Say, tested_tasks, unheard
from sttrl.trm.ranks import Ranks
from sttrl.trm.task_data import built_tasks, content_hash, read_subset
from sttrl.trm.train import train
from sttrl.trm.train_config import EvaluatorConfig, TrainConfig

Mode = Literal["full", "embeddings", "embeddings_then_full", "lora"]
MODES: Final[dict[Mode, str]] = {
    "full": "all weights",
    "embeddings": "the puzzle embeddings only",
    "embeddings_then_full": "the puzzle embeddings in the first quarter of the steps, then all weights",
    "lora": "a LoRA on every linear layer, and the embeddings",
}
"""What is trained, in words."""
EMA_SPANS: Final = 10
"""An average of the weights is used if the adaptation is at least so many times as long as its memory, 1 / (1 - ema_rate) steps."""
SUBMISSION: Final = "submission.json"


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What to adapt, to what, and how. ``chunk``: tasks that share an adaptation; None: all. ``settings``: KEY=VALUE over the rest."""

    checkpoint: Path
    data: str
    mode: Mode
    steps: int
    chunk: int | None
    num_aug: int
    out: Path | None
    config: Path | None
    settings: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Adapted:
    """The run folder of each chunk, and the submission to all tasks together; None where there is no vote."""

    folders: tuple[Path, ...]
    submission: Path | None


def adapt(wish: Wish, say: Say) -> Adapted:
    """Adapt a checkpoint, one chunk after the other. What is finished is found again by the same command.

    Raises DataError, UsageError, DivergedError and JournalError.
    """
    checkpoint = find_checkpoint(wish.checkpoint, wish.config)
    subset = None if is_data_set(Path(wish.data)) else read_subset(wish.data)
    out = wish.out or Path("outputs") / default_name(wish, checkpoint, subset)
    ranks = Ranks.begin(choose_device((checkpoint.config or TrainConfig()).device))
    heard = say if ranks.is_first else unheard
    data = Path(wish.data) if subset is None else out / "data" / "set"
    if subset is not None and ranks.is_first:
        built_tasks(subset, out / "data", wish.num_aug, heard)
    ranks.wait()
    votes = {} if subset is None or (checkpoint.config and checkpoint.config.evaluators) else {"evaluators": (EvaluatorConfig(),)}
    chunks = chunks_of(sorted(tested_tasks([data])), wish.chunk)
    folders = []
    for number, tasks in enumerate(chunks):
        name = "all" if len(chunks) == 1 else f"chunk_{number + 1}"
        own = {"checkpoint_path": str(out / name), "tasks": tasks if wish.chunk is not None else (), **votes}
        if len(chunks) > 1:
            heard(f"{name} of {len(chunks)}: {', '.join(tasks[:5])}{', ...' if len(tasks) > 5 else ''}")
        folders.append(train(config_for(wish, checkpoint, data, own, ranks.count), heard, checkpoint))
    return Adapted(folders=tuple(folders), submission=joined_submission(out, folders) if ranks.is_first else None)


def default_name(wish: Wish, checkpoint: Checkpoint, subset: Subset | None) -> str:
    """The name of an adaptation's folder: the same command finds it again, and another one makes another folder."""
    tasks = str(Path(wish.data).resolve()) if subset is None else content_hash(subset)
    chosen = [str(checkpoint.file.resolve()), tasks, str(wish.config), wish.steps, wish.chunk, wish.num_aug, *wish.settings]
    digest = hashlib.sha256(json.dumps(chosen).encode()).hexdigest()[:8]
    return f"trm-adapt-{Path(wish.data).stem}-{wish.mode}-{digest}"


def is_data_set(path: Path) -> bool:
    """Whether a path is a data set that `trm build` has made."""
    return path.is_dir() and has_split(path, "train")


def chunks_of(tasks: Sequence[str], size: int | None) -> list[tuple[str, ...]]:
    """The tasks in chunks of a size. Raises `UsageError` for a size below 1, `DataError` without tasks."""
    if size is not None and size < 1:
        raise UsageError(f"--chunk is {size}.", "Use 1 or more tasks, or leave it out.")
    if not tasks:
        raise DataError("The data set has no test puzzles to adapt to.", "Build it with a test set.")
    step = size or len(tasks)
    return [tuple(tasks[start : start + step]) for start in range(0, len(tasks), step)]


def config_for(wish: Wish, checkpoint: Checkpoint, data: Path, own: Mapping[str, Any], processes: int = 1) -> TrainConfig:
    """The settings of one chunk's training.

    The user's settings win. Next come ``own``, those of this chunk, and what the mode and the number of steps require. Everything else is
    as in the checkpoint's run. Raises `UsageError` for settings that contradict each other.
    """
    if wish.steps < 1:
        raise UsageError(f"--steps is {wish.steps}.", "Use 1 or more.")
    base, given = replace(checkpoint.config or TrainConfig(), arch=replace(checkpoint.arch, lora_rank=0)), names_of(wish.settings)
    base = replace(base, freeze_weights=False, freeze_weights_epochs=None, freeze_weights_steps=None, tasks=(), eval_interval=None)
    user = config_of(as_mapping(base), wish.settings) if wish.settings else base
    examples, largest = examples_of(data, own["tasks"])
    batch = min(user.global_batch_size, examples)
    batch = user.global_batch_size if "global_batch_size" in given else max(batch - batch % processes, processes)
    derived: dict[str, Any] = {
        "data_paths": (str(data),),
        "data_paths_test": (),
        "load_checkpoint": str(checkpoint.file),
        "run_name": None,
        "project_name": None,
        "global_batch_size": batch,
        # A batch uses up at most so many examples, those that it cuts off included. More epochs than are needed end with max_steps.
        "epochs": max(2, math.ceil(wish.steps * (batch + largest - 1) / examples) + 1),
        "max_steps": wish.steps,
        "lr_warmup_steps": min(user.lr_warmup_steps, wish.steps // 10),
        "ema": user.ema and wish.steps * (1 - user.ema_rate) >= EMA_SPANS,
        "evaluate_before": True,
        "rollouts": 0,
        "shuffle_identities": False,
        "eval_save_outputs": (),
        "leave_out_test_demos": False,
        **CHANGES[wish.mode](user.arch, checkpoint.arch, wish.steps),
        **own,
    }
    return replace(user, **{name: value for name, value in derived.items() if name not in given})


def names_of(settings: Sequence[str]) -> frozenset[str]:
    """The settings that KEY=VALUE arguments name."""
    return frozenset(setting.partition("=")[0].lstrip("+") for setting in settings)


CHANGES: Final[dict[Mode, Callable[[ArchConfig, ArchConfig, int], dict[str, Any]]]] = {
    "full": lambda arch, old, steps: {},
    "embeddings": lambda arch, old, steps: {"freeze_weights": True, "ema": False},
    "embeddings_then_full": lambda arch, old, steps: {"freeze_weights": True, "freeze_weights_steps": max(1, steps // 4)},
    "lora": lambda arch, old, steps: {
        "arch": replace(
            arch, lora_rank=arch.lora_rank or old.lora_rank or 1, lora_alpha=arch.lora_alpha if arch.lora_rank or old.lora_rank else 16.0
        ),
        "ema": False,
    },
}
"""What each mode changes in the settings, given the user's architecture, the checkpoint's, and the steps.

Trelis: LoRA of rank 1 and alpha 16, no average with it nor with embeddings only."""


def examples_of(data: Path, tasks: Sequence[str]) -> tuple[int, int]:
    """The demonstrations to train on in an epoch, which has one variant of each task, and those of the largest variant."""
    sources = read_sources([data], "train", None, Tasks(only=tasks or None))
    largest = max(int(np.diff(source.arrays.puzzle_indices).max()) for source in sources.sets.values())
    return max(1, round(sources.metadata.total_groups * sources.metadata.mean_puzzle_examples)), largest


def joined_submission(out: Path, folders: Sequence[Path]) -> Path | None:
    """Write one submission of those of all chunks; None where there are none."""
    files = [newest for folder in folders if (newest := newest_submission(folder)) is not None]
    if not files:
        return None
    make_folder(out)
    write_text(out / SUBMISSION, json.dumps(merge_submissions(files)) + "\n")
    return out / SUBMISSION


def newest_submission(folder: Path) -> Path | None:
    """The submission of a run's last evaluation."""
    steps = [int(path.name.rpartition("_")[2]) for path in folder.glob("evaluator_ARC_step_*") if path.name.rpartition("_")[2].isdigit()]
    return evaluation_folder(folder, "ARC", max(steps)) / SUBMISSION if steps else None
