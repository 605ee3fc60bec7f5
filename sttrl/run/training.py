"""The training of one policy on all problems of a scope (ttrl, and ttt with ``--scope dataset``).

The policy's state is written after every ``checkpoint_every`` steps, and an interrupted run is resumed from the last one. If an error ends
the training early, that is journalled, and the training is not resumed.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta

from sttrl.config import RunConfig
from sttrl.config.extensions import run_by
from sttrl.config.method import METHOD
from sttrl.engine.base import Policy
from sttrl.ledger.journal import Journal, JournalContent
from sttrl.ledger.records import EndRecord
from sttrl.methods import DatasetMethod
from sttrl.run.boundary import Boundary, Failure
from sttrl.run.states import States
from sttrl.run.work import Work
from sttrl.types import Problem, StopReason

STATE = "step"
"""The prefix of the states of a training: ``step_10`` is the state after ten steps."""


class Training:
    """A training, or what is left of it. ``before``: the journal's content when this attempt began. ``out_of_time``: whether to end it.

    ``stop``: why it ended.
    """

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
        out_of_time: Callable[[], bool],
    ) -> None:
        self.config, self.method, self.journal = config, method, journal
        self.states, self.boundary, self.before, self.progress = states, boundary, before, progress
        self.out_of_time = out_of_time
        self.stop: StopReason = "steps"
        self.plan: Sequence[Sequence[Problem]] = ()

    @property
    def has_begun(self) -> bool:
        """Whether an earlier attempt wrote a state or ended the training."""
        return bool(self.before.trained) or self.before.ended is not None

    @property
    def answered(self) -> StopReason | None:
        """Why the training ended, if a problem was answered after it; all others are answered by the same policy."""
        return next((f.record.stop or "steps" for f in self.before.finished if "adapted" in f.record.polls), None)

    def recall(self, work: Work) -> None:
        """Add to a problem's work what earlier attempts did: the base's evaluation, and the steps before the last state."""
        if self.has_begun:
            work.taken += self.before.steps.get(work.problem.id, ())
        for evaluation in self.before.evaluations.get(work.problem.id, ()):
            if evaluation.step == 0:
                work.evaluated_before("base", evaluation.poll)

    def make_plan(self, problems: Sequence[Problem]) -> None:
        """Plan the steps. This comes before the fork is made, whose schedule is over the planned steps."""
        with run_by(METHOD, self.config.method.adaptation_method, "plan its steps"):
            self.plan = self.method.plan(problems)

    async def run(
        self,
        policy: Policy,
        stepped: Callable[[], object],
        evaluate: Callable[[int], Awaitable[object]],
    ) -> Failure | None:
        """Do the steps of the plan that are left. An error ends the training for good and is returned as a failure, unless it ends the
        run. A training that is out of time goes on in the next attempt, unless a problem was answered after it.

        ``stepped`` is called after every step; ``evaluate`` evaluates the policy on all problems, between two steps.
        """
        if self.before.ended is not None:
            return Failure(self.before.ended.status, self.before.ended.error)
        if self.before.trained:
            await self.states.restore(policy, STATE, self.before.trained)
        if (stop := self.answered) is not None:
            self.stop = stop
            return None
        plan, every, first = self.plan, self.config.evaluate_every, self.before.trained
        kept, started = first, time.monotonic()
        for index in range(first, len(plan)):
            if self.out_of_time():
                self.progress(f"the training is out of time after {index} of {len(plan)} steps")
                self.stop = "time"
                if index > kept:
                    await self._keep(policy, index)
                return None
            named = plan[index][0].id if plan[index] else STATE
            failure = await self.boundary.guard(named, self.method.step(index, plan[index], policy))
            if failure is not None:
                self.journal.ended(EndRecord(step=index, status=failure.status, error=failure.error))
                return failure
            stepped()
            done = index + 1
            if done % self.config.training.checkpoint_every == 0 or done == len(plan):
                await self._keep(policy, done)
                kept = done
            left = timedelta(seconds=round((time.monotonic() - started) / (done - first) * (len(plan) - done)))
            self.progress(f"step {done} of {len(plan)}, about {left} left")
            if every and done % every == 0 and done < len(plan):
                await evaluate(done)
        return None

    async def _keep(self, policy: Policy, steps: int) -> None:
        """Write the policy's state after so many steps."""
        await self.states.checkpoint(policy, STATE, steps)
        self.journal.trained(steps)
        self.states.forget(STATE, steps)
