"""Adaptation: a checkpoint is trained on the demonstrations of puzzles that it has never seen, and answers their test inputs.

All puzzles share one adaptation, or each chunk of tasks has its own, down to one task. The checkpoint itself is never changed.
Modes: Trelis' fork of TinyRecursiveModels (full, embeddings only, embeddings and then everything, LoRA with embeddings).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from sttrl.arc.submission import SUBMISSION
from sttrl.engine.environment import choose_device
from sttrl.errors import DataError, UsageError
from sttrl.ledger.files import make_folder, write_text
from sttrl.ledger.folder import folder_name
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
WITHOUT_AVERAGE: Final = ("embeddings", "lora")
"""The modes that keep no average of the weights (Trelis)."""
EMA_SPANS: Final = 10
"""An average of the weights is used if the adaptation is at least so many times as long as its memory, 1 / (1 - ema_rate) steps."""


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
    asked = settings_of(wish, checkpoint)
    subset = None if is_data_set(Path(wish.data)) else read_subset(wish.data)
    out = wish.out or Path("outputs") / default_name(wish, checkpoint, subset)
    ranks = Ranks.begin(choose_device(asked.device))
    heard = say if ranks.is_first else unheard
    data = Path(wish.data) if subset is None else out / "data" / "set"
    if subset is not None and ranks.is_first:
        built_tasks(subset, out / "data", wish.num_aug, heard)
    ranks.wait()
    votes = {} if subset is None or asked.evaluators else {"evaluators": (EvaluatorConfig(),)}
    chunks = chunks_of(sorted(tested_tasks([data])), wish.chunk)
    folders = []
    for number, tasks in enumerate(chunks):
        name = "all" if len(chunks) == 1 else f"chunk_{number + 1}"
        own = {"checkpoint_path": str(out / name), "tasks": tasks if wish.chunk is not None else (), **votes}
        if len(chunks) > 1:
            heard(f"{name} of {len(chunks)}: {', '.join(tasks[:5])}{', ...' if len(tasks) > 5 else ''}")
        folders.append(train(config_for(wish, asked, data, own, ranks.count), heard, checkpoint))
    return Adapted(folders=tuple(folders), submission=joined_submission(out, folders) if ranks.is_first else None)


def default_name(wish: Wish, checkpoint: Checkpoint, subset: Subset | None) -> str:
    """The name of an adaptation's folder: the same command finds it again, and another one makes another folder."""
    tasks = str(Path(wish.data).resolve()) if subset is None else content_hash(subset)
    chosen = [str(checkpoint.file.resolve()), tasks, str(wish.config), wish.steps, wish.chunk, wish.num_aug, *wish.settings]
    return folder_name(("trm", "adapt", Path(wish.data).resolve().stem, wish.mode), chosen)


def is_data_set(path: Path) -> bool:
    """Whether a path is a data set that `trm build` has made."""
    return path.is_dir() and has_split(path, "train")


def chunks_of(tasks: Sequence[str], size: int | None) -> list[tuple[str, ...]]:
    """The tasks in chunks of a size. Raises `DataError` without tasks."""
    if not tasks:
        raise DataError("The data set has no test puzzles to adapt to.", "Build it with a test set.")
    step = size or len(tasks)
    return [tuple(tasks[start : start + step]) for start in range(0, len(tasks), step)]


def settings_of(wish: Wish, checkpoint: Checkpoint) -> TrainConfig:
    """The settings of the checkpoint's run, without what a mode decides, and the user's over them. Raises `UsageError` and `DataError`."""
    for name, value in (("steps", wish.steps), ("chunk", wish.chunk)):
        if value is not None and value < 1:
            raise UsageError(f"--{name} is {value}.", "Use 1 or more.")
    base = replace(checkpoint.known_config, arch=replace(checkpoint.arch, lora_rank=0))
    base = replace(base, freeze_weights=False, freeze_weights_epochs=None, freeze_weights_steps=None, tasks=(), eval_interval=None)
    base = replace(base, load_checkpoint=str(checkpoint.file))
    user = config_of(as_mapping(base), wish.settings) if wish.settings else base
    return user if wish.mode != "lora" else replace(user, arch=with_lora(user.arch, checkpoint.arch))


def with_lora(arch: ArchConfig, old: ArchConfig) -> ArchConfig:
    """The user's architecture with a LoRA: the user's, the checkpoint's, or one of rank 1 and alpha 16 (Trelis)."""
    if arch.lora_rank:
        return arch
    if old.lora_rank:
        return replace(arch, lora_rank=old.lora_rank)
    return replace(arch, lora_rank=1, lora_alpha=16.0)


def config_for(wish: Wish, asked: TrainConfig, data: Path, own: Mapping[str, Any], processes: int = 1) -> TrainConfig:
    """The settings of one chunk's training. ``asked``: what `settings_of` gave.

    The user's settings win. Next come ``own``, those of this chunk, and what the mode and the number of steps require. Everything else is
    as in the checkpoint's run.
    """
    given = names_of(wish.settings)
    examples, largest = examples_of(data, own["tasks"])
    batch = min(asked.global_batch_size, examples)
    batch = asked.global_batch_size if "global_batch_size" in given else max(batch - batch % processes, processes)
    derived: dict[str, Any] = {
        "data_paths": (str(data),),
        "data_paths_test": (),
        "run_name": None,
        "project_name": None,
        "global_batch_size": batch,
        # A batch uses up at most so many examples, those that it cuts off included. More epochs than are needed end with max_steps.
        "epochs": max(2, math.ceil(wish.steps * (batch + largest - 1) / examples) + 1),
        "max_steps": wish.steps,
        "lr_warmup_steps": min(asked.lr_warmup_steps, wish.steps // 10),
        "ema": asked.ema and wish.mode not in WITHOUT_AVERAGE and wish.steps * (1 - asked.ema_rate) >= EMA_SPANS,
        "freeze_weights": wish.mode in ("embeddings", "embeddings_then_full"),
        "freeze_weights_steps": max(1, wish.steps // 4) if wish.mode == "embeddings_then_full" else None,
        "evaluate_before": True,
        "rollouts": 0,
        "shuffle_identities": False,
        "eval_save_outputs": (),
        "leave_out_test_demos": False,
        **own,
    }
    return replace(asked, **{name: value for name, value in derived.items() if name not in given})


def names_of(settings: Sequence[str]) -> frozenset[str]:
    """The settings that KEY=VALUE arguments name."""
    return frozenset(setting.partition("=")[0].lstrip("+") for setting in settings)


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
