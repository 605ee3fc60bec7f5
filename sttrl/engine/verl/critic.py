"""The critic of PPO (``--adv_estimator gae``): verl's value model in a worker of its own, with a state for every fork."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from statistics import fmean
from typing import Any

from tensordict import TensorDict

from sttrl.engine.base import EngineSettings
from sttrl.engine.verl.forks import ForkState
from sttrl.engine.verl.rows import Total, mini_batches, total_of
from sttrl.engine.verl.training_engine import PromptOnceCritic
from sttrl.engine.verl.worker import ForkTrainer
from sttrl.objectives.losses import value_loss
from sttrl.types import Objective, TrainGroup

VALUE_CLIP = 0.5
"""verl's ``cliprange_value``."""


class Critic(ForkTrainer):
    """What each response token's state is worth."""

    MODEL_TYPE = "value_model"
    OUTPUT = "values"

    engine: PromptOnceCritic

    def __init__(self, settings: EngineSettings) -> None:
        super().__init__(settings)
        self.before: ForkState | None = None

    def values(self, name: str, groups: Sequence[TrainGroup]) -> list[list[tuple[float, ...]]]:
        """Values before each token of this rank's rows."""
        self.forks.load(name)
        return [[tuple(row.tolist()) for row in self.forward(data)["values"].unbind()] for data in self.rows(groups, 1.0)]

    def update(self, name: str, groups: Sequence[TrainGroup], objective: Objective) -> float:
        """As many passes and steps as the policy's; returns the mean value loss. `take_back` undoes it.

        Raises `DivergedError` and `OutOfMemoryError`, nothing applied.
        """
        state = self.forks.load(name)
        parts = [(self.rows(part, objective.temperature), total_of(part)) for part in mini_batches(groups, objective.mini_batches)]
        self.before = None  # its memory is free before the next copy is made
        self.before = self.forks.snapshot(name)
        results = self.steps(name, self.before, parts, objective, self._loss, fresh=False)
        state.updates += 1
        return fmean(result.loss for result in results)

    def take_back(self, name: str) -> None:
        """Make a fork what it was before the update that this critic took last, because the policy's was refused."""
        assert self.before is not None, "no update to take back"
        self.forks.roll_back(name, self.before)
        self.before = None

    def _loss(self, rows_P: list[TensorDict], total: Total, objective: Objective) -> Any:
        """The loss function of one optimiser step."""
        return partial(value_loss, total.rows, total.weight, VALUE_CLIP)
