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

from sttrl.config import RunConfig
from sttrl.data import folder_name
from sttrl.engine.base import Engine, Policy
from sttrl.errors import DivergedError, EngineError, JournalError, LaneLostError, OutOfMemoryError, StepError, SttrlError, disk_fault
from sttrl.ledger.files import make_folder, settle_folder, unwritable, write_text
from sttrl.ledger.journal import Journal
from sttrl.ledger.records import PollName, PollRecord, QuestionRecord, StepRecord, elected
from sttrl.ledger.rollouts import write_rollouts
from sttrl.ledger.seeds import seed_source
from sttrl.methods import METHODS, DatasetMethod, Method, Tools
from sttrl.questions.answers import Judge
from sttrl.run.evaluation import BASE, budget_of, evaluate, poll_record, samples_of_base, step_record, vote_same_tokens
from sttrl.run.seats import Seats
from sttrl.run.timing import Stopwatch, TimedPolicy
from sttrl.run.training import Training
from sttrl.types import Ballots, Group, Poll, Problem, QuestionStatus, Step, StopReason

STATUS: Mapping[type[SttrlError], QuestionStatus] = {DivergedError: "diverged", OutOfMemoryError: "oom"}

UNFINISHED = ".unfinished"
"""Where a folder of ``adapters/`` or ``state/`` is until it is whole."""

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
    """Runs the questions of one attempt on the lanes of an engine; one policy for all questions lives on the first of them."""

    def __init__(
        self,
        config: RunConfig,
        *,
        engines: Sequence[Engine],
        judge: Judge,
        journal: Journal,
        folder: Path,
        attempt: int,
        progress: Progress,
        track: Track,
    ) -> None:
        self.config, self.engine, self.judge, self.journal = config, engines[0], judge, journal
        self.seats = Seats(engines, config.in_flight)
        self.folder, self.attempt, self.progress, self.track = folder, attempt, progress, track
        self.work: dict[str, Work] = {}
        self.tools = Tools(config=config, ballots=self.ballots, seeds=seed_source(config.run.seed), observe=self.observe)
        method = METHODS[config.method.adaptation_method](self.tools)
        self.method: Method | None = None if isinstance(method, DatasetMethod) else method
        self.dataset_method = method if isinstance(method, DatasetMethod) else None
        self.held_back: list[tuple[Problem, Step]] | None = None
        self.total = self.done = 0

    async def run(self, problems: Sequence[Problem], finished: int) -> None:
        """Work through ``problems``, the ones not finished yet; ``finished`` are done. Raises `EngineError` when the engine is lost."""
        self.total, self.done = len(problems) + finished, finished
        for left_by_a_kill in self.folder.glob(f"*/{UNFINISHED}"):
            shutil.rmtree(left_by_a_kill, ignore_errors=True)
        if self.dataset_method is not None:
            await Training(self, self.dataset_method).run(problems)
        elif self.config.method.continuous and self.config.method.adaptation_method != "none":
            await self._run_continuous(problems)
        else:
            await self.each(problems, self._alone)

    async def each(self, problems: Sequence[Problem], work: Callable[[Problem], Awaitable[None]]) -> None:
        """Do something for every question, with as many of them under way as there are seats."""
        gate = asyncio.Semaphore(self.seats.count)

        async def guarded(problem: Problem) -> None:
            async with gate:
                await work(problem)

        try:
            async with asyncio.TaskGroup() as group:
                for problem in problems:
                    group.create_task(guarded(problem))
        except BaseExceptionGroup as several:
            first = several.exceptions[0]
            raise first from first.__cause__

    async def _alone(self, problem: Problem) -> None:
        """A question on a fork of its own. Where its lane dies it is done again on another, from the base."""
        assert self.method is not None
        while True:
            try:
                async with self.seats.take() as lane:
                    return await self._question(problem, lane, lane.fork(f"q{problem.index}", self.method.delta(problem)))
            except LaneLostError as lost:
                self.work.pop(problem.id, None)
                self.progress(f"    {problem.id} goes to another lane. {lost}")

    async def _run_continuous(self, problems: Sequence[Problem]) -> None:
        """One fork for all; its state is on disk before the question that led to it counts as finished."""
        assert self.method is not None
        async with self.engine.fork("continuous", self.method.delta(None, self.total)) as policy:
            if self.done:
                await self.read(policy.restore, self._state(self.done))
            for problem in problems:
                await self._question(problem, self.engine, contextlib.nullcontext(policy), lasting=policy)

    def start(self, problem: Problem, begins: bool = True) -> Work:
        """Work on a question starts, or, where a training on all goes on, starts again where it was."""
        if begins:
            self.journal.begin(problem.id, problem.index, self.attempt)
        return self.work.setdefault(problem.id, Work(problem))

    async def _question(
        self, problem: Problem, lane: Engine, fork: contextlib.AbstractAsyncContextManager[Policy], lasting: Policy | None = None
    ) -> None:
        """One question to its end. The per-question boundary: only a lost engine or journal goes further.

        ``lasting`` is the policy that goes on to the next question, if one does; it is kept before the question counts.
        """
        work = self.start(problem)
        started = time.perf_counter()
        status: QuestionStatus = "done"
        stop: StopReason | None = None
        error: str | None = None
        try:
            async with fork as policy:
                stop = await self._adapt(work, lane, policy)
        except Exception as failure:
            status, error = self.blame(failure, problem.id)
        if lasting is not None:
            await self.write(lasting.checkpoint, self._state(self.done + 1))
        record = self._record(work, status, stop, error)
        write_rollouts(self.folder, problem.id, work.polls, work.steps)
        self.finished(record, time.perf_counter() - started)
        self._forget_states()
        del self.work[problem.id]

    def finished(self, record: QuestionRecord, seconds: float) -> None:
        """Journal a finished question and say so."""
        self.journal.question(record)
        self.done += 1
        self.progress(self._line(record, seconds))

    def blame(self, failure: Exception, name: str) -> tuple[QuestionStatus, str]:
        """How a question ends that met this error, and its one line, which names the file that holds the rest.

        A lost engine or journal ends the run, and so does a disk that cannot be written: the next question would meet it too.
        """
        if isinstance(failure, (EngineError, JournalError)) and not isinstance(failure, OutOfMemoryError):
            raise failure
        if (fault := disk_fault(failure)) is not None:
            raise unwritable(Path(fault.filename or self.folder), fault) from failure
        status, said = how_it_ends(failure)
        if isinstance(failure, SttrlError) and failure.__cause__ is None:
            return status, said
        return status, f"{said.rstrip('.')}. The whole story is in {self._keep_trace(failure, name)}."

    async def _adapt(self, work: Work, lane: Engine, policy: Policy) -> StopReason:
        problem = work.problem
        async with lane.fork(f"base{problem.index}", BASE) as plain:
            base = TimedPolicy(plain, work.watch)
            work.polls["base"] = await evaluate("base", problem, base, self.tools)
            timed = TimedPolicy(policy, work.watch)
            assert self.method is not None
            outcome = await self.method.adapt(problem, timed)
            if outcome.stop != "no_adaptation":
                work.polls["adapted"] = await self._after(work, timed)
                if self.config.run.save_adapters and work.steps and policy.version:
                    await self.write(timed.save, self.folder / "adapters" / folder_name(problem.id))
            if work.steps and self.config.evaluation.vote_same_tokens:
                budget, reused = budget_of(work.steps), samples_of_base(work.steps)
                work.polls["vote_same_tokens"] = await vote_same_tokens(problem, base, budget, reused, self.tools)
        return outcome.stop

    async def write(self, write: Callable[[Path], Awaitable[None]], target: Path) -> None:
        """Let a policy write a folder of the run: whole and on disk, or not at all. Raises `JournalError` where that cannot be done."""
        beside = target.parent / UNFINISHED / target.name
        try:
            make_folder(beside)
            await write(beside)
            await asyncio.to_thread(settle_folder, beside, target)
        except Exception as error:
            shutil.rmtree(beside, ignore_errors=True)  # not when the run is interrupted: the thread may still be at work there
            fault = error if isinstance(error, OSError) else disk_fault(error)
            if fault is None:
                raise
            raise unwritable(target, fault) from error
        finally:
            with contextlib.suppress(OSError):  # another is being written there
                beside.parent.rmdir()

    async def read(self, read: Callable[[Path], Awaitable[None]], folder: Path) -> None:
        """Let a policy read what it wrote. Raises `JournalError` where that is gone or damaged."""
        try:
            await read(folder)
        except (OSError, ValueError, StepError) as error:
            reason = " ".join(str(error).split())
            raise JournalError(f"Cannot read {folder}: {reason}.", "Restore it, or start over with another --run_name.") from error

    async def _after(self, work: Work, policy: Policy) -> Poll:
        """The adapted policy's evaluation. A policy that was never updated is the base, whose seeds are the same."""
        if policy.version == 0:
            return dataclasses.replace(work.polls["base"], name="adapted")
        return await evaluate("adapted", work.problem, policy, self.tools)

    async def ballots(self, problem: Problem, group: Group) -> Ballots:
        """Judge a group on the question's clock."""
        with self.work[problem.id].watch.on("judge"):
            texts_and_finishes = [(r.text, r.finish) for r in group.rollout_G]
            return await self.judge.ballots(problem.kind, texts_and_finishes, problem.option_count)

    def observe(self, problem: Problem, step: Step) -> StepRecord:
        """Journal a finished step and say so; or hold it back, where its seconds are not known yet."""
        work = self.work[problem.id]
        if self.held_back is None:
            work.steps += [step] if self.dataset_method is None else []
            record = step_record(step, work.watch.since_last())
            self.journal.step(problem.id, record)
            self.track(record)
            self.progress(f"    {problem.id}, step {step.index + 1}: {_vote_line(step)}")
            return record
        self.held_back.append((problem, step))
        return step_record(step, {})

    def _record(self, work: Work, status: QuestionStatus, stop: StopReason | None, error: str | None) -> QuestionRecord:
        source: PollName | None = "adapted" if status == "done" and "adapted" in work.polls else "base" if "base" in work.polls else None
        polls: dict[str, PollRecord] = {name: poll_record(poll) for name, poll in work.polls.items()}
        return QuestionRecord(
            id=work.problem.id,
            index=work.problem.index,
            attempt=self.attempt,
            status=status,
            stop=stop,
            error=error,
            answer=elected(polls[source]) if source else None,
            answer_source=source,
            polls=polls,
            steps=len(work.steps),
            tokens_sampled=sum(s.vote.n_tokens for s in work.steps if s.vote),
            tokens_trained=sum(s.update.tokens for s in work.steps if s.update),
            tokens_evaluated=_evaluation_tokens(work),
            seconds=work.watch.total(),
        )

    def _line(self, record: QuestionRecord, seconds: float) -> str:
        end = record.error if record.status != "done" else record.stop
        return f"[{self.done}/{self.total}] {record.id}: {record.answer!r} after {record.steps} steps ({end}), {seconds:.1f} s"

    def _keep_trace(self, failure: Exception, name: str) -> Path:
        """Write an error's traceback, with those of its causes in other processes; where, below the run folder."""
        target = Path("logs", f"attempt_{self.attempt}", f"{folder_name(name)}.traceback")
        write_text(self.folder / target, "".join(traceback.format_exception(failure)))
        return target

    def _state(self, count: int) -> Path:
        return self.folder / "state" / f"after_{count}"

    def _forget_states(self) -> None:
        for old in (self.folder / "state").glob("after_*"):
            if int(old.name.removeprefix("after_")) < self.done:
                shutil.rmtree(old, ignore_errors=True)


def how_it_ends(failure: Exception) -> tuple[QuestionStatus, str]:
    """The status of a question that met this error, and the error in one line."""
    if isinstance(failure, SttrlError):
        return STATUS.get(type(failure), "failed"), str(failure)
    return "failed", " ".join(f"{type(failure).__name__}: {failure}".split())


def _evaluation_tokens(work: Work) -> int:
    """Response tokens sampled for the polls alone: what a poll took over from a step or another poll was paid for there."""
    counted = {id(r) for step in work.steps if step.vote for r in step.vote.group.rollout_G}
    sampled = {id(r): r for p in work.polls.values() for r in (*p.group.rollout_G, *([p.greedy] if p.greedy else []))}
    return sum(len(r.token_T) for key, r in sampled.items() if key not in counted)


def _vote_line(step: Step) -> str:
    """A step in one line: who won, by how much, what it led to; or why nobody voted."""
    update = _update_line(step)
    if step.vote is None:
        return update
    election, reasons = step.vote.election, Counter(a.invalid for a in step.vote.ballots.answer_G if a.invalid)
    if not election.voters:
        return f"none of {election.samples} samples has an answer ({', '.join(f'{n} {reason}' for reason, n in reasons.items())})"
    if election.answer is None:
        return f"a tie of {len(election.tied_C)} answers among {election.samples} samples; {update}"
    return f"{election.answer!r} has {election.majority_ratio:.0%} of {election.samples} samples; {update}"


def _update_line(step: Step) -> str:
    if step.update is None:
        return f"no update (gate: {step.gate})" if step.gate else "no update"
    gap = step.update.logprob_gap_mean
    return f"loss {step.update.loss:+.4f}" + (f", gap {gap:.3f}" if gap is not None else "")
