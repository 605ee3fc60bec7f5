"""Seeds, questions in flight, and where the run is kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from sttrl.config.rules import Group, at_least

Tracker = Literal["tensorboard", "wandb", "trackio"]


@dataclass(frozen=True, kw_only=True)
class RunSettings(Group):
    """Seeds, questions in flight, and where the run is kept."""

    seed: int = 0
    """Every sample's seed is a hash of this, the question's id, the step and the sample's number."""
    deterministic: bool = False
    """One question at a time, so that its batches are always the same: on one machine results.jsonl is then the same byte for byte."""
    parallel_problems: Annotated[int, at_least(1)] = 1
    """How many questions each lane works on at once."""
    lanes: Annotated[int, at_least(1)] = 1
    """Number of lanes. A lane is a sampler with its own learner; the questions are divided among the lanes."""
    gpus_per_lane: int | None = None
    """GPUs of a lane; unset: one for each learner rank, the first also for the sampler. With one more the sampler has its own."""
    output_dir: Path = Path("outputs")
    """Where run folders go."""
    run_name: str | None = None
    """The run's folder; unset: made from data set, model, method and a hash of the settings."""
    save_adapters: bool = True
    """Keep each question's adapter in the run folder."""
    track: tuple[Tracker, ...] = ()
    """Log the steps to these trackers too, through verl's tracking."""
