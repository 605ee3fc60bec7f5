"""The training of one policy on all problems of a scope (ttrl): step by step, with states on disk to go on from.

The policy's state is written after every ``checkpoint_every`` steps; an interrupted run goes on from the last one. A training that
ended early by an error is over: that is journalled.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from sttrl.config import RunConfig
from sttrl.engine.base import Policy
from sttrl.ledger.journal import Journal, JournalContent
from sttrl.ledger.records import EndRecord
from sttrl.methods import DatasetMethod
from sttrl.run.boundary import Boundary, Failure
from sttrl.run.states import States
from sttrl.run.work import Work
from sttrl.types import Problem

STATE = "step"
"""States of a training are named after its steps."""


class Training:
    """What is left of a training. ``before``: what the journal says of it."""

    def __init__(
        self,
        config: RunConfig,
        method: DatasetMethod,
        *,
        journal: Journal,
        states: States,
        boundary: Boundary,
        before: JournalContent,
        progress: Callable[[str], None],
    ) -> None:
        self.config, self.method, self.journal = config, method, journal
        self.states, self.boundary, self.before, self.progress = states, boundary, before, progress

    @property
    def has_begun(self) -> bool:
        """Whether an attempt before this one got as far as the first state, or the end."""
        return bool(self.before.trained) or self.before.ended is not None

    def recall(self, work: Work) -> None:
        """What an interrupted attempt found of a problem: the base's evaluation, and the steps up to the state that is kept."""
        if self.has_begun:
            work.taken += self.before.steps.get(work.problem.id, ())
        for evaluation in self.before.evaluations.get(work.problem.id, ()):
            if evaluation.step == 0:
                work.evaluated_before("base", evaluation.poll)

    async def run(
        self,
        problems: Sequence[Problem],
        policy: Policy,
        stepped: Callable[[], object],
        evaluate: Callable[[int], Awaitable[object]],
    ) -> Failure | None:
        """The steps that are left. An error that is not the engine's end stops the training for good, and is returned.

        ``stepped`` is called after every step; ``evaluate`` evaluates the policy on all problems, between two steps.
        """
        if self.before.ended is not None:
            return Failure(self.before.ended.status, self.before.ended.error)
        if self.before.trained:
            await self.states.restore(policy, STATE, self.before.trained)
        plan, every = self.method.plan(problems), self.config.ttrl.eval_every
        for index in range(self.before.trained, len(plan)):
            failure = await self.boundary.guard(plan[index][0].id, self.method.step(index, plan[index], policy))
            if failure is not None:
                self.journal.ended(EndRecord(step=index, status=failure.status, error=failure.error))
                return failure
            stepped()
            done = index + 1
            if done % self.config.ttrl.checkpoint_every == 0 or done == len(plan):
                await self.states.checkpoint(policy, STATE, done)
                self.journal.trained(done)
                self.states.forget(STATE, done)
            self.progress(f"step {done} of {len(plan)}: {len(plan[index])} questions")
            if every and done % every == 0 and done < len(plan):
                await evaluate(done)
        return None
