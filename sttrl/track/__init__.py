"""Experiment trackers: tensorboard, wandb and trackio, through verl's tracking. metrics.jsonl is written without them."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sttrl.errors import EngineError


class Tracker:
    """Logs the metrics of each finished step to the trackers that the user chose."""

    def __init__(self, names: Sequence[str], run_folder: Path, config: Mapping[str, Any], project: str = "sttrl") -> None:
        self.step, self.tracking = 0, None
        if not names:
            return
        for name in names:
            if importlib.util.find_spec(name) is None:
                raise EngineError(f"--track {name} needs the package {name}.", f"pip install {name}")
        os.environ.setdefault("TENSORBOARD_DIR", str(run_folder / "tensorboard"))
        # Imported late: verl reads its platform from the environment when it is first imported.
        from verl.utils.tracking import Tracking

        self.tracking = Tracking(project, run_folder.name, list(names), {"trainer": {}, **config})

    def log(self, metrics: Mapping[str, float | int | None], step: int | None = None) -> None:
        """One row. Without a ``step`` rows are numbered in the order in which steps finish."""
        if self.tracking is not None:
            self.step = self.step + 1 if step is None else step
            self.tracking.log(data={name: value for name, value in metrics.items() if value is not None}, step=self.step)

    def close(self) -> None:
        """Flush the trackers."""
        if self.tracking is not None:
            self.tracking.finish()
