"""Finds a checkpoint: a file, or the last one of a run folder, with the settings and the names of the puzzles that lie beside it."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass
from pathlib import Path

import torch

from sttrl.errors import DataError
from sttrl.ledger.files import write_text
from sttrl.trm.arch import ArchConfig
from sttrl.trm.config import as_yaml, read_config
from sttrl.trm.data.format import IDENTIFIERS_FILE, read_identifiers
from sttrl.trm.lora import FACTOR_A, merge_state
from sttrl.trm.train_config import ALL_CONFIG, TrainConfig
from sttrl.trm.weights import SAFETENSORS, plain_name, read_weights, weight_names, write_weights

STEP = re.compile(r"step_(\d+)")
"""The name of a checkpoint."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint. ``config``: the settings of its run, None where none lie beside it. ``identifiers``: the names of its puzzles.

    ``base``: the checkpoint that it was trained on, where it holds the LoRA and the embeddings only.
    """

    file: Path
    config: TrainConfig | None
    identifiers: list[str] | None
    has_lora: bool
    base: Path | None

    @property
    def lora_alpha(self) -> float | None:
        """The alpha of its LoRA, as far as it is known."""
        return None if self.config is None else self.config.arch.lora_alpha

    @property
    def known_config(self) -> TrainConfig:
        """The settings of its run. Raises DataError where nothing says what they are."""
        if self.config is None:
            raise DataError(
                f"{self.file} has no all_config.yaml beside it, so its architecture is not known.",
                "Give its configuration with --config, such as configs/trm/arc1.yaml.",
            )
        return self.config

    @property
    def arch(self) -> ArchConfig:
        """The architecture. Raises DataError where nothing says what it is."""
        return self.known_config.arch

    def state(self) -> dict[str, torch.Tensor]:
        """The weights; those of the base too, where the file holds only what was trained on it."""
        own = read_weights(self.file)
        if self.base is None:
            return own
        base = find_checkpoint(self.base).state()
        return {plain_name(name): value for part in (base, own) for name, value in part.items()}


def find_checkpoint(path: Path, config: Path | None = None) -> Checkpoint:
    """The checkpoint that a path names. ``config``: its settings, where none lie beside it. Raises DataError if there is none."""
    file = last_of(path) if path.is_dir() else path
    if not file.is_file():
        raise DataError(f"{path}: there is no such checkpoint.", "Give a file step_N, or the folder of a run that has one.")
    own = file.with_name(ALL_CONFIG)
    beside = config or (own if own.is_file() else None)
    weights = weight_names(file)
    settings = None if beside is None else read_config(beside)
    is_part = not any(name.endswith("lm_head.weight") for name in weights)
    if is_part and (settings is None or settings.load_checkpoint is None):
        raise DataError(f"{file} has no whole model, and nothing beside it says what its base is.", "Give the whole checkpoint step_N.")
    return Checkpoint(
        file=file,
        config=settings,
        identifiers=read_identifiers(file.parent) if file.with_name(IDENTIFIERS_FILE).is_file() else None,
        has_lora=any(name.endswith(FACTOR_A) for name in weights),
        base=Path(str(settings.load_checkpoint)) if is_part and settings is not None else None,
    )


def last_of(folder: Path) -> Path:
    """The checkpoint of a run folder with the highest step. Raises DataError if it has none."""
    names = sorted(folder.iterdir(), key=lambda path: path.suffix != SAFETENSORS)  # of both forms the original's is named
    found = {int(match[1]): path for path in names if (match := STEP.fullmatch(path.name.removesuffix(SAFETENSORS)))}
    if not found:
        raise DataError(f"{folder} has no checkpoint step_N.", "Give a file, or the folder of a run that has finished an evaluation.")
    return found[max(found)]


def merge_checkpoint(path: Path, out: Path, config: Path | None = None) -> str:
    """Write a checkpoint with its LoRA in the weights, and say so. Raises DataError for one without a LoRA, or of unknown alpha."""
    found = find_checkpoint(path, config)
    if not found.has_lora:
        raise DataError(f"{found.file} has no LoRA.", "It needs no merge.")
    if found.lora_alpha is None:
        raise DataError(f"{found.file} has no all_config.yaml beside it, so the LoRA's alpha is not known.", "Give it with --config.")
    write_weights(out, merge_state(found.state(), found.lora_alpha))
    if found.identifiers is not None:
        write_text(out.with_name(IDENTIFIERS_FILE), json.dumps(found.identifiers))
    if found.config is not None:
        arch = dataclasses.replace(found.config.arch, lora_rank=0)
        write_text(out.with_name(ALL_CONFIG), as_yaml(dataclasses.replace(found.config, arch=arch)))
    return f"{out}: {found.file} with its LoRA in the weights"
