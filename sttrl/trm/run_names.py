"""How a training run is called and where it is kept: by its settings, so that the same command finds the same folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from sttrl.ledger.folder import folder_name
from sttrl.trm.config import as_mapping
from sttrl.trm.train_config import TrainConfig

FREE: Final = frozenset({
    "output_dir", "checkpoint_path", "run_name", "project_name", "entity", "track", "device", "compile", "gradient_accumulation",
    "dataloader_num_workers", "dataloader_prefetch_factor", "dataloader_pin_memory", "dataloader_persistent_workers",
    "state_every_n_steps", "max_steps", "checkpoint_every_eval", "checkpoint_every_n_steps", "eval_save_outputs",
})  # fmt: skip
"""Settings that may be changed when a run goes on: they say where and how fast it runs and what it keeps, not what it computes."""


def identity(config: TrainConfig) -> dict[str, Any]:
    """The settings that must be the same when a run goes on."""
    return {name: value for name, value in as_mapping(config).items() if name not in FREE}


def project_name(config: TrainConfig) -> str:
    """The project of the trackers: given, or the original's name from the first data set, such as ``Arc1concept-aug-1000-ACT-torch``."""
    return config.project_name or f"{Path(config.data_paths[0]).name.capitalize()}-ACT-torch"


def run_name(config: TrainConfig) -> str:
    """The run's name: given, or data set, what is trained, and a hash of every setting that matters."""
    return config.run_name or folder_name(("trm", Path(config.data_paths[0]).name, config.adaptation), identity(config))


def run_folder(config: TrainConfig) -> Path:
    """The run's folder: ``checkpoint_path``, or the run's name below ``output_dir``."""
    return Path(config.checkpoint_path) if config.checkpoint_path else config.output_dir / run_name(config)


def named(config: TrainConfig) -> TrainConfig:
    """The settings with the names that are used, as all_config.yaml has them."""
    return replace(config, project_name=project_name(config), run_name=run_name(config), checkpoint_path=str(run_folder(config)))
