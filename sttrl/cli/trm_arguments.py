"""Arguments of the commands of the recursive model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

Mode = Literal["full", "embeddings", "embeddings_then_full", "lora"]


@dataclass(frozen=True, kw_only=True)
class AdaptArguments:
    """Adapt a checkpoint to puzzles that it has never seen, answer them, and say what the adaptation gained.

    Settings of the training follow as KEY=VALUE, such as lr=1e-3; `trm train --help` lists them.
    """

    checkpoint: Annotated[Path, tyro.conf.Positional]
    """The checkpoint, or the folder of a run. It is not changed."""
    data: Annotated[str, tyro.conf.Positional]
    """A data set of `trm build`, or ARC tasks: a file, a folder, or a name such as arc-demo."""
    mode: Mode = "full"
    """What is trained: all weights, the puzzle embeddings only, these first and then all weights, or a LoRA with the embeddings."""
    steps: int = 500
    """Optimiser steps of each adaptation."""
    chunk: int | None = None
    """Tasks that share an adaptation; 1: one for each task. Unset: all tasks share one."""
    num_aug: int = 100
    """Variants of each task, where the data set is built from tasks."""
    out: Path | None = None
    """The folder for the runs and for submission.json. Unset: below outputs/."""
    config: Path | None = None
    """The settings of the checkpoint, where no all_config.yaml lies beside it."""


@dataclass(frozen=True, kw_only=True)
class SolveArguments:
    """Adapt a checkpoint to one task that it has never seen, and print its answers.

    Settings of the training follow as KEY=VALUE, such as global_batch_size=32.
    """

    checkpoint: Annotated[Path, tyro.conf.Positional]
    """The checkpoint, or the folder of a run. It is not changed."""
    task: Annotated[str, tyro.conf.Positional]
    """The task: a JSON file with "train" and "test"."""
    mode: Mode = "full"
    """What is trained."""
    steps: int = 200
    """Optimiser steps."""
    num_aug: int = 100
    """Variants of the task, which train and vote."""
    out: Path | None = None
    """The folder for the run. Unset: below outputs/."""
    config: Path | None = None
    """The settings of the checkpoint, where no all_config.yaml lies beside it."""


@dataclass(frozen=True, kw_only=True)
class EvaluateArguments:
    """Evaluate a checkpoint on the test split of a data set.

    Settings follow as KEY=VALUE, such as rollouts=8 or shuffle_identities=true.
    """

    checkpoint: Annotated[Path, tyro.conf.Positional]
    """The checkpoint, or the folder of a run."""
    data: Annotated[Path, tyro.conf.Positional]
    """A data set of `trm build`."""
    out: Path | None = None
    """The folder for the results. Unset: below outputs/."""
    config: Path | None = None
    """The settings of the checkpoint, where no all_config.yaml lies beside it."""


@dataclass(frozen=True, kw_only=True)
class MergeWeightsArguments:
    """Write a checkpoint with its LoRA added to the weights."""

    checkpoint: Annotated[Path, tyro.conf.Positional]
    """The checkpoint, or the folder of a run."""
    out: Path
    """The file to write; a safetensors file is written beside it."""
    config: Path | None = None
    """The settings of the checkpoint, where no all_config.yaml lies beside it."""


@dataclass(frozen=True, kw_only=True)
class PushArguments:
    """Upload a checkpoint to the hub, with its settings and a model card that has the run's own numbers."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run's folder, or a checkpoint in it."""
    repo: Annotated[str, tyro.conf.Positional]
    """The repository: ORG/NAME."""
    private: bool = True
    """Whether a new repository is private."""
    token: str | None = None
    """The hub's token. Unset: HF_TOKEN, or that of `hf auth login`."""
    commit_message: str | None = None
    """The message of the commit."""
    path_in_repo: str = ""
    """A folder in the repository."""
    branch: str | None = None
    """A branch, which is made if need be."""


@dataclass(frozen=True, kw_only=True)
class DemoArguments:
    """Sudoku 4x4 from nothing, then 20 rules, then adaptation to 4 rules that were never seen; a few minutes on 2 cores."""

    out: Path = Path("outputs/trm-demo")
    """The folder for data sets and runs."""
    seed: int = 0
    """Seed of the data and of the trainings."""
