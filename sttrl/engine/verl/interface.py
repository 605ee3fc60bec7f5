"""What the program's own process asks of a training worker, without importing what trains.

`sttrl.engine.verl.learner.Learner` is a `PolicyWorker`, `sttrl.engine.verl.critic.Critic` a `CriticWorker`. Every method is called on all
ranks at once. Rank r of n holds every n-th row of a group, from row r on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from sttrl.types import DeltaSpec, Measure, Objective, TokenStats, TrainGroup, UpdateStats


class ForkWorker(Protocol):
    """A worker that holds forks by name."""

    def describe(self) -> dict[str, Any]:
        """Process id, whether prompts are packed, number of trainable parameters, device, number of ranks."""
        ...

    def open_fork(self, name: str, spec: DeltaSpec) -> None:
        """A new fork, equal to the base."""
        ...

    def close_fork(self, name: str) -> None:
        """Discard a fork."""
        ...

    def save_fork(self, name: str, folder: str) -> None:
        """Write everything the fork's next update depends on."""
        ...

    def restore_fork(self, name: str, folder: str) -> None:
        """Read what `save_fork` wrote."""
        ...

    def fingerprint(self) -> str:
        """SHA-256 of this rank's base weights, as they are in the model when no fork is loaded."""
        ...


class PolicyWorker(ForkWorker, Protocol):
    """A rank of the learner, or of the reference."""

    def update(self, name: str, groups: Sequence[TrainGroup], objective: Objective) -> UpdateStats:
        """The optimiser steps of one update of a fork. Raises `DivergedError` and `OutOfMemoryError`, nothing applied."""
        ...

    def score(self, name: str | None, groups: Sequence[TrainGroup], measure: Measure) -> list[list[TokenStats]]:
        """Statistics of this rank's rows under a fork, or under the base where ``name`` is None."""
        ...

    def load_fork(self, name: str, folder: str) -> None:
        """Give an open fork what `export` wrote for a user. Raises `StepError` where it does not fit."""
        ...

    def export(self, name: str, folder: str, dtype: str) -> None:
        """Write a fork for vLLM or a user: PEFT's layout, all weights as safetensors, or the vector and its logit bias."""
        ...


class CriticWorker(ForkWorker, Protocol):
    """A rank of the critic."""

    def values(self, name: str, groups: Sequence[TrainGroup]) -> list[list[tuple[float, ...]]]:
        """Values before each token of this rank's rows."""
        ...

    def update(self, name: str, groups: Sequence[TrainGroup], objective: Objective) -> float:
        """As many passes and steps as the policy's; returns the mean value loss. Raises as the policy's does."""
        ...

    def take_back(self, name: str) -> None:
        """Make a fork what it was before the update that this critic took last."""
        ...
