"""Pushes a run's checkpoint to the hub: weights, all_config.yaml, names of the puzzles, submission and a model card, in one commit."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sttrl.arc.submission import SUBMISSION
from sttrl.data.upload import Destination, Pushed, check_destination, upload
from sttrl.errors import DataError
from sttrl.trm.config import read_config
from sttrl.trm.data.format import IDENTIFIERS_FILE
from sttrl.trm.evaluation_files import SCORES
from sttrl.trm.model_card import model_card, weights_of
from sttrl.trm.train_config import ALL_CONFIG

CARD: Final = "README.md"
BESIDE: Final = (ALL_CONFIG, IDENTIFIERS_FILE)
"""Files beside the weights that belong to them: the settings, and whose row of the puzzle table is whose."""
VOTE_FILES: Final = (SUBMISSION, SCORES)
"""Files of an evaluation of this step."""
CHECKPOINT: Final = re.compile(r"step_(\d+)(?!\d)(?!.*_all_preds)")
"""The files of a checkpoint; saved arrays of evaluations are none."""


@dataclass(frozen=True, kw_only=True)
class CheckpointFiles:
    """What is pushed: the run's folder, the step if the files name one, and the files by their names there."""

    folder: Path
    step: int | None
    files: dict[str, Path]


def push(source: Path, to: Destination) -> Pushed:
    """Push a run's newest checkpoint, or a given one, to a model repository.

    Raises what `sttrl.data.upload.upload` raises, and DataError where there is no checkpoint.
    """
    check_destination(to)
    found = find_checkpoint(source)
    files: dict[str, Path | str] = {**found.files, CARD: card_of(found, to.repo_id.split("/")[1])}
    return upload(files, to, f"Upload {'a checkpoint' if found.step is None else f'step {found.step}'}")


def find_checkpoint(source: Path) -> CheckpointFiles:
    """The files of a run's newest checkpoint, or of the checkpoint to which a file belongs. Raises DataError where there is none."""
    if not source.exists():
        raise DataError(f"There is no {source}.", "Give a run folder, or a checkpoint such as RUN/step_1000.")
    folder = source if source.is_dir() else source.parent
    steps = {path: int(match[1]) for path in sorted(folder.iterdir()) if path.is_file() and (match := CHECKPOINT.match(path.name))}
    if source.is_dir() and not steps:
        raise DataError(f"{source} holds no checkpoint.", "Give a run folder with step_N files, or the file itself.")
    step = max(steps.values()) if source.is_dir() else steps.get(source)
    weights = [source] if step is None else [path for path, number in steps.items() if number == step]
    beside = [folder / name for name in BESIDE]
    votes = [] if step is None else [path for name in VOTE_FILES for path in folder.glob(f"evaluator_*_step_{step}/{name}")]
    files = {path.relative_to(folder).as_posix(): path for path in (*weights, *beside, *votes) if path.is_file()}
    return CheckpointFiles(folder=folder, step=step, files=files)


def card_of(checkpoint: CheckpointFiles, name: str) -> str:
    """The model card of a checkpoint. Raises UsageError for an all_config.yaml that cannot be read."""
    file = checkpoint.files.get(ALL_CONFIG)
    sizes = [weights for path in checkpoint.files.values() if (weights := weights_of(path)) is not None]
    largest = max(sizes, key=lambda weights: weights.trunk, default=None)
    return model_card(name, None if file is None else read_config(file), checkpoint.step, checkpoint.folder, largest)
