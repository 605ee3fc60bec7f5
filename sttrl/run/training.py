"""A run whose one policy is trained on all questions (ttrl): evaluate, train step by step, evaluate, and only then finish the questions.

The policy's state is written after every ``checkpoint_every`` steps; an interrupted run goes on from the last one. A training that
ended early by an error is over: that is journalled.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sttrl.engine.base import Policy
from sttrl.ledger.journal import read_journal
from sttrl.ledger.records import EndRecord, EvaluationRecord, PollName, PollRecord, QuestionRecord, StepRecord, elected
from sttrl.ledger.rollouts import add_rollouts, write_rollouts
from sttrl.methods import DatasetMethod
from sttrl.run.evaluation import BASE, evaluate, poll_record, vote_same_tokens
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
        self.ended = self.content.ended

    async def run(self, problems: Sequence[Problem]) -> None:
        """From base polls to finished questions. A question that cannot be polled is finished at once and is not trained on."""
        runner, trained = self.runner, self.content.trained
        begins = not trained and self.ended is None
        if not begins:
            runner.journal.resumed(runner.attempt)
        for problem in problems:
            runner.start(problem, begins)
            self.steps[problem.id] += self.content.steps.get(problem.id, ())
            for evaluation in self.content.evaluations.get(problem.id, ()):
                if evaluation.step == 0:
                    self.base[problem.id] = evaluation.poll
        async with runner.engine.fork("base", BASE) as base:
            await runner.each([p for p in problems if p.id not in self.base], lambda problem: self._ask_base(problem, base))
            polled = [problem for problem in problems if problem.id in self.base]
            async with runner.engine.fork("dataset", self.method.delta(None, runner.total)) as policy:
                if self.ended is None:
                    if trained:
                        await runner.read(policy.restore, self._state(trained))
                    await self._train(polled, policy)
                if self.ended is None:
                    await self._save(policy)
                await runner.each(polled, lambda problem: self._finish(problem, base, policy))

    async def _ask_base(self, problem: Problem, base: Policy) -> None:
        """The poll of the base, or a question that ends here."""
        try:
            poll = await evaluate("base", problem, self._timed(problem, base), self.runner.tools)
        except Exception as failure:
            self._end(problem, *self.runner.blame(failure, problem.id), {})
            return
        write_rollouts(self.runner.folder, problem.id, {"base": poll}, ())
        self._evaluated(problem, poll, 0)
        self.base[problem.id] = poll_record(poll)

    async def _train(self, problems: Sequence[Problem], policy: Policy) -> None:
        """The steps that are left. An error that is not the engine's end stops the training, for good; the base's answers stand then."""
        plan, every = self.method.plan(problems), self.config.ttrl.eval_every
        for index in range(self.content.trained, len(plan)):
            try:
                await self._step(index, plan[index], policy)
            except Exception as failure:
                status, error = self.runner.blame(failure, plan[index][0].id)
                self.ended = EndRecord(step=index, status=status, error=error)
                self.runner.journal.ended(self.ended)
                return
            done = index + 1
            if done % self.config.ttrl.checkpoint_every == 0 or done == len(plan):
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
        """A poll in between. One that fails is said and left out: the question goes on."""
        try:
            poll = await evaluate("adapted", problem, self._timed(problem, policy), self.runner.tools)
        except Exception as failure:
            _, error = self.runner.blame(failure, problem.id)
            self.runner.progress(f"    {problem.id} was not evaluated after step {step}: {error}")
            return
        self._evaluated(problem, poll, step)

    def _evaluated(self, problem: Problem, poll: Poll, step: int) -> None:
        self.runner.journal.evaluation(problem.id, EvaluationRecord(step=step, poll=poll_record(poll)))

    async def _save(self, policy: Policy) -> None:
        """Keep the trained policy's adapter, once. One that cannot be saved is said: the answers do not depend on it."""
        target = self.runner.folder / "adapters" / "all"
        if not self.config.run.save_adapters or not policy.version or target.exists():
            return
        try:
            await self.runner.write(policy.save, target)
        except Exception as failure:
            _, error = self.runner.blame(failure, "all")
            self.runner.progress(f"{target} was not saved: {error}")

    async def _finish(self, problem: Problem, base: Policy, policy: Policy) -> None:
        """The last polls of a question, and its record."""
        polls: dict[PollName, Poll] = {}
        status: QuestionStatus = self.ended.status if self.ended else "done"
        error = self.ended.error if self.ended else None
        if status == "done":
            try:
                await self._last_polls(problem, base, policy, polls)
            except Exception as failure:
                status, error = self.runner.blame(failure, problem.id)
        add_rollouts(self.runner.folder, problem.id, polls)
        self._end(problem, status, error, polls)

    async def _last_polls(self, problem: Problem, base: Policy, policy: Policy, polls: dict[PollName, Poll]) -> None:
        """The adapted poll and the vote with the same tokens, each as soon as it is there."""
        tools = self.runner.tools
        polls["adapted"] = await evaluate("adapted", problem, self._timed(problem, policy), tools)
        if self.config.evaluation.vote_same_tokens:
            budget = sum(s.tokens_sampled + s.tokens_trained for s in self.steps[problem.id])
            polls["vote_same_tokens"] = await vote_same_tokens(problem, self._timed(problem, base), budget, (), tools)

    def _end(self, problem: Problem, status: QuestionStatus, error: str | None, polls: dict[PollName, Poll]) -> None:
        """Journal how a question ended; where it is not done, its base answer stands."""
        runner, steps, base = self.runner, self.steps[problem.id], self.base.get(problem.id)
        records: dict[str, PollRecord] = {"base": base} if base is not None else {}
        records |= {name: poll_record(poll) for name, poll in polls.items()}
        source: PollName | None = "adapted" if status == "done" else "base" if base is not None else None
        seconds = runner.work[problem.id].watch.total()
        record = QuestionRecord(
            id=problem.id,
            index=problem.index,
            attempt=runner.attempt,
            status=status,
            stop="steps" if status == "done" else None,
            error=error,
            answer=elected(records[source]) if source is not None else None,
            answer_source=source,
            polls=records,
            steps=len(steps),
            tokens_sampled=sum(s.tokens_sampled for s in steps),
            tokens_trained=sum(s.tokens_trained for s in steps),
            tokens_evaluated=sum(poll.tokens for poll in records.values()),
            seconds=seconds,
        )
        runner.finished(record, sum(seconds.values()))

    def _timed(self, problem: Problem, policy: Policy) -> TimedPolicy:
        return TimedPolicy(policy, self.runner.work[problem.id].watch)

    def _state(self, step: int) -> Path:
        return self.runner.folder / "state" / f"step_{step}"

    def _forget_states(self, step: int) -> None:
        for old in (self.runner.folder / "state").glob("step_*"):
            if int(old.name.removeprefix("step_")) < step:
                shutil.rmtree(old, ignore_errors=True)
