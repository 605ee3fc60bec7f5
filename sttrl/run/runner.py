"""The runner: up to ``in_flight`` questions at once, each from base evaluation to journal; one failure stays one question."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import shutil
import time
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sttrl.answers import Judge
from sttrl.config import RunConfig
from sttrl.data import folder_name
from sttrl.engine.base import Engine, Policy
from sttrl.errors import DivergedError, EngineError, JournalError, OutOfMemoryError, SttrlError
from sttrl.methods import METHODS, Tools
from sttrl.run.evaluation import elected, evaluate, poll_record, step_record, vote_same_tokens
from sttrl.run.files import unwritable, write_text
from sttrl.run.journal import Journal
from sttrl.run.records import PollName, QuestionRecord, StepRecord
from sttrl.run.rollouts import write_rollouts
from sttrl.run.seeds import seed_source
from sttrl.run.timing import Stopwatch, TimedPolicy
from sttrl.types import Ballots, DeltaSpec, Group, Poll, Problem, QuestionStatus, Step, StopReason

BASE = DeltaSpec(kind="none")
STATUS: Mapping[type[SttrlError], QuestionStatus] = {DivergedError: "diverged", OutOfMemoryError: "oom"}

Progress = Callable[[str], None]
"""Told what happens, a line at a time."""

Track = Callable[[StepRecord], None]
"""Told of every finished step."""


@dataclass
class Work:
    """One question under way. ``steps`` fill up as the method goes, so a failure keeps them."""

    problem: Problem
    watch: Stopwatch = field(default_factory=Stopwatch)
    steps: list[Step] = field(default_factory=list)
    polls: dict[PollName, Poll] = field(default_factory=dict)


class Runner:
    """Runs the questions of one attempt on one engine."""

    def __init__(
        self,
        config: RunConfig,
        *,
        engine: Engine,
        judge: Judge,
        journal: Journal,
        folder: Path,
        attempt: int,
        progress: Progress,
        track: Track,
    ) -> None:
        self.config, self.engine, self.judge, self.journal = config, engine, judge, journal
        self.folder, self.attempt, self.progress, self.track = folder, attempt, progress, track
        self.work: dict[str, Work] = {}
        self.tools = Tools(config=config, ballots=self.ballots, seeds=seed_source(config.seed), observe=self.observe)
        self.method = METHODS[config.adaptation_method](self.tools)
        self.total = self.done = 0

    async def run(self, problems: Sequence[Problem], finished: int) -> None:
        """Work through ``problems``, the ones not finished yet; ``finished`` are done. Raises `EngineError` when the engine is lost."""
        self.total, self.done = len(problems) + finished, finished
        if self.config.continuous and self.config.adaptation_method != "none":
            await self._run_continuous(problems)
            return
        gate = asyncio.Semaphore(self.config.in_flight)

        async def guarded(problem: Problem) -> None:
            async with gate:
                await self._question(problem, self.engine.fork(f"q{problem.index}", self.method.delta(problem)))

        try:
            async with asyncio.TaskGroup() as group:
                for problem in problems:
                    group.create_task(guarded(problem))
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None

    async def _run_continuous(self, problems: Sequence[Problem]) -> None:
        """One fork for all; its state is on disk before the question that led to it counts as finished."""
        async with self.engine.fork("continuous", self.method.delta(None, self.total)) as policy:
            if self.done:
                await policy.restore(self._state(self.done))
            for problem in problems:
                await self._question(problem, contextlib.nullcontext(policy), lasting=policy)

    async def _question(
        self, problem: Problem, fork: contextlib.AbstractAsyncContextManager[Policy], lasting: Policy | None = None
    ) -> None:
        """One question to its end. The per-question boundary: only a lost engine or journal goes further.

        ``lasting`` is the policy that goes on to the next question, if one does; it is kept before the question counts.
        """
        work = self.work[problem.id] = Work(problem)
        self.journal.begin(problem.id, problem.index, self.attempt)
        started = time.perf_counter()
        status: QuestionStatus = "done"
        stop: StopReason | None = None
        error: str | None = None
        try:
            async with fork as policy:
                stop = await self._adapt(work, policy)
        except (EngineError, JournalError) as problem_of_run:
            if not isinstance(problem_of_run, OutOfMemoryError):
                raise
            status, error = "oom", str(problem_of_run)
        except SttrlError as failure:
            status, error = STATUS.get(type(failure), "failed"), str(failure)
        except Exception as failure:
            status, error = "failed", " ".join(f"{type(failure).__name__}: {failure}".split())
            self._keep_trace(problem)
        if lasting is not None:
            await self._write(lasting.checkpoint, self._state(self.done + 1))
        record = self._record(work, status, stop, error)
        write_rollouts(self.folder, problem.id, work.polls, work.steps)
        self.journal.question(record)
        self.done += 1
        self._forget_states()
        del self.work[problem.id]
        self.progress(self._line(record, time.perf_counter() - started))

    async def _adapt(self, work: Work, policy: Policy) -> StopReason:
        problem = work.problem
        async with self.engine.fork(f"base{problem.index}", BASE) as plain:
            base = TimedPolicy(plain, work.watch)
            work.polls["base"] = await evaluate("base", problem, base, self.tools)
            timed = TimedPolicy(policy, work.watch)
            outcome = await self.method.adapt(problem, timed)
            if outcome.stop != "no_adaptation":
                work.polls["adapted"] = await self._after(work, timed)
                if self.config.save_adapters and work.steps and policy.version:
                    await self._write(timed.save, self.folder / "adapters" / folder_name(problem.id))
            if work.steps:
                work.polls["vote_same_tokens"] = await vote_same_tokens(problem, base, work.steps, self.tools)
        return outcome.stop

    async def _write(self, write: Callable[[Path], Awaitable[None]], target: Path) -> None:
        """Let a policy write to the run folder. Raises `JournalError` where that cannot be done."""
        try:
            await write(target)
        except OSError as error:
            raise unwritable(target, error) from error

    async def _after(self, work: Work, policy: Policy) -> Poll:
        """The adapted policy's evaluation. A policy that was never updated is the base, whose seeds are the same."""
        if policy.version == 0:
            return dataclasses.replace(work.polls["base"], name="adapted")
        return await evaluate("adapted", work.problem, policy, self.tools)

    async def ballots(self, problem: Problem, group: Group) -> Ballots:
        """Judge a group on the question's clock."""
        with self.work[problem.id].watch.on("judge"):
            return await self.judge.ballots(problem.kind, [(r.text, r.finish) for r in group.rollout_G])

    def observe(self, problem: Problem, step: Step) -> None:
        """Journal a finished step and say so."""
        work = self.work[problem.id]
        work.steps.append(step)
        record = step_record(step, work.watch.since_last())
        self.journal.step(problem.id, record)
        self.track(record)
        self.progress(f"    {problem.id}, step {step.index + 1}: {_vote_line(step)}")

    def _record(self, work: Work, status: QuestionStatus, stop: StopReason | None, error: str | None) -> QuestionRecord:
        source: PollName | None = "adapted" if status == "done" and "adapted" in work.polls else "base" if "base" in work.polls else None
        return QuestionRecord(
            id=work.problem.id,
            index=work.problem.index,
            attempt=self.attempt,
            status=status,
            stop=stop,
            error=error,
            answer=elected(work.polls[source]) if source else None,
            answer_source=source,
            polls={name: poll_record(poll) for name, poll in work.polls.items()},
            steps=len(work.steps),
            tokens_sampled=sum(s.group.n_tokens for s in work.steps),
            tokens_trained=sum(s.update.tokens for s in work.steps if s.update),
            tokens_evaluated=_evaluation_tokens(work),
            seconds=work.watch.total(),
        )

    def _line(self, record: QuestionRecord, seconds: float) -> str:
        end = record.error if record.status != "done" else record.stop
        return f"[{self.done}/{self.total}] {record.id}: {record.answer!r} after {record.steps} steps ({end}), {seconds:.1f} s"

    def _keep_trace(self, problem: Problem) -> None:
        target = self.folder / "logs" / f"attempt_{self.attempt}" / f"{folder_name(problem.id)}.traceback"
        write_text(target, traceback.format_exc())

    def _state(self, count: int) -> Path:
        return self.folder / "state" / f"after_{count}"

    def _forget_states(self) -> None:
        for old in (self.folder / "state").glob("after_*"):
            if int(old.name.removeprefix("after_")) < self.done:
                shutil.rmtree(old, ignore_errors=True)


def _evaluation_tokens(work: Work) -> int:
    """Response tokens sampled for the polls alone: what a poll took over from a step or another poll was paid for there."""
    counted = {id(r) for step in work.steps for r in step.group.rollout_G}
    sampled = {id(r): r for p in work.polls.values() for r in (*p.group.rollout_G, *([p.greedy] if p.greedy else []))}
    return sum(len(r.token_T) for key, r in sampled.items() if key not in counted)


def _vote_line(step: Step) -> str:
    """A step in one line: who won, by how much, what it led to; or why nobody voted."""
    election, reasons = step.election, Counter(a.invalid for a in step.ballots.answer_G if a.invalid)
    if not election.voters:
        return f"none of {election.samples} samples has an answer ({', '.join(f'{n} {reason}' for reason, n in reasons.items())})"
    update = f"loss {step.update.loss:+.4f}, gap {step.update.logprob_gap_mean:.3f}" if step.update else "no update"
    if election.answer is None:
        return f"a tie of {len(election.tied_C)} answers among {election.samples} samples; {update}"
    return f"{election.answer!r} has {election.majority_ratio:.0%} of {election.samples} samples; {update}"
