"""A run whose one policy is trained on all questions (ttrl): evaluate, train step by step, evaluate, and only then finish the questions.

The policy's state is written after every ``checkpoint_every`` steps; an interrupted run goes on from the last one.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sttrl.engine.base import Policy
from sttrl.methods import DatasetMethod
from sttrl.run.evaluation import BASE, elected, evaluate, poll_record, vote_same_tokens
from sttrl.run.journal import read_journal
from sttrl.run.records import EvaluationRecord, PollName, PollRecord, QuestionRecord, StepRecord
from sttrl.run.rollouts import add_rollouts, write_rollouts
from sttrl.run.timing import Stopwatch, TimedPolicy
from sttrl.types import Poll, Problem, QuestionStatus

if TYPE_CHECKING:
    from sttrl.run.runner import Runner


class Training:
    """One training on the runner's engine, journal and folder."""

    def __init__(self, runner: Runner, method: DatasetMethod) -> None:
        self.runner, self.method, self.config = runner, method, runner.config
        self.content = read_journal(runner.folder)
        self.watch = Stopwatch()
        self.base: dict[str, PollRecord] = {}
        self.steps: dict[str, list[StepRecord]] = defaultdict(list)
        self.failure: tuple[QuestionStatus, str] | None = None

    async def run(self, problems: Sequence[Problem]) -> None:
        """From base evaluation to finished questions; where some are finished already, the training was over."""
        runner, trained = self.runner, self.content.trained
        for problem in problems:
            runner.start(problem, begins=not trained)
            self.steps[problem.id] += self.content.steps.get(problem.id, ())
            for evaluation in self.content.evaluations.get(problem.id, ()):
                if evaluation.step == 0:
                    self.base[problem.id] = evaluation.poll
        async with runner.engine.fork("base", BASE) as base:
            await runner.each([p for p in problems if p.id not in self.base], lambda problem: self._evaluate(problem, base, 0))
            async with runner.engine.fork("dataset", self.method.delta(None, runner.total)) as policy:
                if trained:
                    await policy.restore(self._state(trained))
                if not runner.done:
                    await self._train(problems, policy)
                await runner.each(problems, lambda problem: self._finish(problem, base, policy))

    async def _train(self, problems: Sequence[Problem], policy: Policy) -> None:
        """The steps that are left. An error that is not the engine's end stops the training; the base's answers stand then."""
        plan, every = self.method.plan(problems), self.config.eval_every
        for index in range(self.content.trained, len(plan)):
            try:
                await self._step(index, plan[index], policy)
            except Exception as failure:
                self.failure = self.runner.blame(failure, plan[index][0])
                return
            done = index + 1
            if done % self.config.checkpoint_every == 0 or done == len(plan):
                await self.runner.write(policy.checkpoint, self._state(done))
                self.runner.journal.trained(done)
                self._forget_states(done)
            self.runner.progress(f"step {done} of {len(plan)}: {len(plan[index])} questions")
            if every and done % every == 0 and done < len(plan):
                await self.runner.each(problems, lambda problem, done=done: self._evaluate(problem, policy, done))  # type: ignore[misc]

    async def _step(self, index: int, batch: Sequence[Problem], policy: Policy) -> None:
        """One step; its seconds are shared out among its questions before they are journalled."""
        held = self.runner.held_back = []
        try:
            await self.method.step(index, batch, TimedPolicy(policy, self.watch))
        finally:
            self.runner.held_back = None
        for name, seconds in self.watch.since_last().items():
            for problem in batch:
                self.runner.work[problem.id].watch.spent[name] += seconds / len(batch)
        for problem, step in held:
            self.steps[problem.id].append(self.runner.observe(problem, step))

    async def _evaluate(self, problem: Problem, policy: Policy, step: int) -> None:
        """A poll in between, or the base's."""
        poll = await evaluate(
            "adapted" if step else "base", problem, TimedPolicy(policy, self.runner.work[problem.id].watch), self.runner.tools
        )
        record = poll_record(poll)
        if not step:
            write_rollouts(self.runner.folder, problem.id, {"base": poll}, ())
            self.base[problem.id] = record
        self.runner.journal.evaluation(problem.id, EvaluationRecord(step=step, poll=record))

    async def _finish(self, problem: Problem, base: Policy, policy: Policy) -> None:
        """The last polls of a question, and its record."""
        runner, watch = self.runner, self.runner.work[problem.id].watch
        polls: dict[PollName, Poll] = {}
        status, error = self.failure or ("done", None)
        steps = self.steps[problem.id]
        if status == "done":
            polls["adapted"] = await evaluate("adapted", problem, TimedPolicy(policy, watch), runner.tools)
            if self.config.vote_same_tokens:
                budget = sum(s.tokens_sampled + s.tokens_trained for s in steps)
                polls["vote_same_tokens"] = await vote_same_tokens(problem, TimedPolicy(base, watch), budget, (), runner.tools)
        records: dict[str, PollRecord] = {"base": self.base[problem.id], **{name: poll_record(poll) for name, poll in polls.items()}}
        add_rollouts(runner.folder, problem.id, polls)
        source: PollName = "adapted" if status == "done" else "base"
        record = QuestionRecord(
            id=problem.id,
            index=problem.index,
            attempt=runner.attempt,
            status=status,
            stop="steps" if status == "done" else None,
            error=error,
            answer=elected(records[source]),
            answer_source=source,
            polls=records,
            steps=len(steps),
            tokens_sampled=sum(s.tokens_sampled for s in steps),
            tokens_trained=sum(s.tokens_trained for s in steps),
            tokens_evaluated=sum(poll.tokens for poll in records.values()),
            seconds=watch.total(),
        )
        if self.config.save_adapters and policy.version and not (target := runner.folder / "adapters" / "all").exists():
            await runner.write(policy.save, target)
        runner.finished(record, sum(dataclasses.asdict(record)["seconds"].values()))

    def _state(self, step: int) -> Path:
        return self.runner.folder / "state" / f"step_{step}"

    def _forget_states(self, step: int) -> None:
        for old in (self.runner.folder / "state").glob("step_*"):
            if int(old.name.removeprefix("step_")) < step:
                shutil.rmtree(old, ignore_errors=True)
