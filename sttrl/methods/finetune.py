"""Fine-tuning before test time: one policy, supervised on the rows of whole data sets (ARChitects 2024, marc, NVARC).

Each step is one AdamW step on the mean negative log-likelihood of ``ttt_batch`` rows. The problems of the run are held-out tasks: they are
only evaluated.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from sttrl.engine.base import Policy
from sttrl.methods.tools import Tools
from sttrl.types import DeltaSpec, Objective, Problem, RowSet, Step, whole_rows


class Finetune:
    """Supervised steps of one policy on the rows of a training set, in an order drawn anew for each epoch."""

    def __init__(self, tools: Tools) -> None:
        self.tools, self.config = tools, tools.config.ttt
        self.order = lru_cache(maxsize=1)(self.rows.order)

    @property
    def rows(self) -> RowSet:
        """The training set."""
        assert self.tools.training is not None, "this kind of problem has no training set"
        return self.tools.training

    @property
    def steps_of_an_epoch(self) -> int:
        """How many steps an epoch takes."""
        return -(-len(self.rows) // self.config.ttt_batch)

    def delta(self, problem: Problem | None, questions: int = 1) -> DeltaSpec:
        """A LoRA adapter or full weights; the schedule ends with the last step."""
        return self.tools.weights(None, len(self.plan(())))

    def plan(self, problems: Sequence[Problem]) -> Sequence[Sequence[Problem]]:
        """Steps without problems of the run."""
        return ((),) * min(self.tools.config.method_steps, self.steps_of_an_epoch * self.config.ttt_epochs)

    async def step(self, index: int, problems: Sequence[Problem], policy: Policy) -> None:
        """One step on the next rows. Rows that are too long are left out of it."""
        epoch, place = divmod(index, self.steps_of_an_epoch)
        numbers = self.order(epoch)[place * self.config.ttt_batch : (place + 1) * self.config.ttt_batch]
        rows = [row for number in numbers if (row := self.rows.row(number, epoch)) is not None]
        version = policy.version
        update = await policy.update(whole_rows(rows), Objective(loss="nll")) if rows else None
        self.tools.observe(None, Step(index=index, version=version, vote=None, update=update, gate=None if rows else "too_long"))
