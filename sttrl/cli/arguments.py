"""What each subcommand takes. The string under a field is its ``--help``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from sttrl.config.arc import SELECTION, SelectionName


@dataclass(frozen=True, kw_only=True)
class DataArguments:
    """Show and check a data set: where it is, its columns, how many rows and labels, what looks wrong."""

    dataset: Annotated[str, tyro.conf.Positional]
    """A named data set, a file, or hf:org/name[@revision][:config][:split]."""
    data_dir: Path | None = None
    """Where named data sets are looked for first."""
    model: str | None = None
    """Show one whole prompt as this model sees it: a hub id, a local folder, or builtin/<name>."""
    question_column: tuple[str, ...] = ()
    """Column of the question; several are joined in this order."""
    answer_column: str | None = None
    """Column of the label."""
    id_column: str | None = None
    """Column of the id."""
    answer_kind: Literal["math", "number", "choice"] | None = None
    """How answers are read, for data sets without a name."""
    on_bad_row: Literal["stop", "skip"] = "stop"
    """What a row that cannot be used does: stop and name the row, or skip and count it."""
    prompt_format: str | None = None
    """A template holding {question}, for models without a chat template."""
    system_prompt: str | None = None
    """System message of the prompt; it replaces the row's own, and '' removes the row's own."""
    chat_template_kwargs: str | None = None
    """Settings of the model's chat template, as a JSON object."""
    trust_remote_code: bool = False
    """Let a model's repository bring its own code."""


@dataclass(frozen=True, kw_only=True)
class ScoreArguments:
    """Score a submission to ARC by every rule in use, and count what is missing in it."""

    submission: Annotated[Path, tyro.conf.Positional]
    """The submission: two attempts for each test input, in Kaggle's format."""
    solutions: Annotated[Path, tyro.conf.Positional]
    """The solutions, such as arc-agi_evaluation_solutions.json."""
    detail: bool = False
    """Print what marc's evaluation prints too: accuracy and Hamming distance of each prediction, Competition Accuracy."""
    levels: Path | None = None
    """A CSV file with the columns task_id and level, such as marc's tasks_info.csv: print the same by level."""
    compare: Path | None = None
    """Another submission to the same tasks: compare the two, paired."""


@dataclass(frozen=True, kw_only=True)
class PoolArguments:
    """Pool the candidates of several runs of ARC tasks, select again, and write a submission. It needs no model and no GPU."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders, finished or not, and files of marc's predictions (all_predictions.json)."""
    out: Path
    """The folder for submission.json."""
    selection: Annotated[SelectionName | str | None, SELECTION.flag] = None
    """How the attempts are chosen. Unset: mul_all_prob; probsum if a run has no product of experts, marc with predictions of marc. Or
    package.module:Name, a selection of your own."""
    stage: Literal["adapted", "base"] = "adapted"
    """The policy whose candidates are taken."""
    dataset: str | None = None
    """The data set that predictions of marc are about. Unset: that of the runs."""
    data_dir: Path | None = None
    """Where named data sets are looked for first."""


@dataclass(frozen=True, kw_only=True)
class SweepArguments:
    """Do many runs from a YAML file of axes, and print one table of all; docs/sweeps.md has the format.

    The flags of a run may follow the file; the program's own --help lists them. They hold for all runs and win over the file.
    """

    file: Annotated[Path, tyro.conf.Positional]
    """The YAML file."""


@dataclass(frozen=True, kw_only=True)
class EnvArguments:
    """Show versions, devices, and which engine would run here. `python requirements/gpu_names.py CACHE`, in the repository, checks the GPU
    environment's packages without a GPU."""


@dataclass(frozen=True, kw_only=True)
class ShrinkArguments:
    """Cut a model's vocabulary to the tokens that a codec for grids needs: a model folder with small embeddings and head."""

    model: Annotated[str, tyro.conf.Positional]
    """A hub id, a local folder, or builtin/<name>."""
    codec: str
    """The codec, one whose texts need only a few tokens: cells, cells_16, cells_kaggle or dialogue."""
    out: Path
    """The folder to write; it must be new or empty."""
    untie: bool = False
    """Give a model whose head is tied to its embeddings a head of its own."""


@dataclass(frozen=True, kw_only=True)
class MergeArguments:
    """Write a model folder with what was learned in its weights, in bfloat16: any run takes it as a model, and so does transformers."""

    source: Annotated[Path, tyro.conf.Positional]
    """A run folder that has one adapter, or the folder of an adapter (PEFT's layout) or of full weights."""
    out: Path
    """The folder to write; it must be new or empty. If it holds this very merge, nothing is done."""
    model: str | None = None
    """The base, instead of the one that the run or the adapter names: a hub id, a local folder, or builtin/<name>."""
