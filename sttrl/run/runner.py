"""The runner. It divides the problems into scopes, each with its own fork; a problem that fails does not end the others.

A scope is a sequence of rounds; a round is the problems that one call of the method adapts to. A single question is a scope with one round
of one problem. A continuous run is one scope with a round for each problem. ttrl is one scope with one round of all problems.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from sttrl.config import RunConfig
from sttrl.data import folder_name
from sttrl.engine.base import Engine, Policy
from sttrl.errors import LaneLostError
from sttrl.ledger.journal import OF_ALL, Journal, read_finished, read_journal
from sttrl.ledger.records import EvaluationRecord, QuestionRecord, StepRecord
from sttrl.ledger.rollouts import add_rollouts, write_rollouts
from sttrl.ledger.seeds import seed_source
from sttrl.methods import DatasetMethod, Tools, make_method
from sttrl.run.boundary import Boundary, Failure
from sttrl.run.kind import BASELINE, MakeKind, Stage
from sttrl.run.screen import State
from sttrl.run.seats import Seats
from sttrl.run.states import ALL, States, kept_adapter
from sttrl.run.timing import Stopwatch, TimedPolicy
from sttrl.run.training import Training
from sttrl.run.work import Work, problem_line, step_line
from sttrl.run.written_views import WrittenViews
from sttrl.types import DeltaSpec, Problem, Step

NOTHING = DeltaSpec(kind="none")
"""The delta of a fork that evaluates the base: it changes nothing."""
ROUND = "after"
"""The prefix of the states of a continuous run: ``after_3`` is the state after three problems."""

Progress = Callable[[str], None]
"""Called with each line of progress."""

Track = Callable[[StepRecord], None]
"""Called after every step."""

T = TypeVar("T")


@dataclass(frozen=True)
class Scope:
    """Problems that use the same fork.

    ``delta``: makes what the fork may change, when it is made. ``lasts``: the fork is kept for later rounds or for a resumed run, so its
    state is on disk.
    """

    fork: str
    delta: Callable[[], DeltaSpec]
    rounds: tuple[tuple[Problem, ...], ...]
    lasts: bool


@dataclass
class OpenScope:
    """A scope on a lane. Its forks are made when they are first needed, so the base can be sampled while the learner still loads."""

    scope: Scope
    lane: Engine
    seats: Seats
    forks: AsyncExitStack
    made: dict[str, Policy] = field(default_factory=dict)

    async def policy(self) -> Policy:
        """The policy that is adapted to the problems of the scope."""
        return await self._made(self.scope.fork, self.scope.delta)

    async def base(self) -> Policy:
        """The base policy."""
        return await self._made(f"base_{self.scope.fork}", lambda: NOTHING)

    async def _made(self, name: str, delta: Callable[[], DeltaSpec]) -> Policy:
        if name not in self.made:
            self.seats.check(self.lane)
            self.made[name] = await self.forks.enter_async_context(self.lane.fork(name, delta()))
        return self.made[name]


class Runner:
    """Runs the problems of one attempt on the lanes of an engine."""

    def __init__(
        self,
        config: RunConfig,
        *,
        kind: MakeKind,
        seats: Seats,
        journal: Journal,
        folder: Path,
        attempt: int,
        progress: Progress,
        track: Track,
        show: Callable[[State], None] = lambda state: None,
        forks: str = "",
    ) -> None:
        """``seats``: on the lanes of the engine; other runners may use them too. ``forks``: begins the names of this runner's forks."""
        self.config, self.journal, self.folder, self.attempt = config, journal, folder, attempt
        self.progress, self.track, self.show = progress, track, show
        self.seats, self.forks, self.states, self.boundary = seats, forks, States(folder), Boundary(folder, attempt)
        self.work: dict[str, Work] = {}
        self.observed: list[tuple[Work, Step]] = []
        seeds = seed_source(config.run.seed)
        self.kind, self.views = kind(seeds, self.clock), WrittenViews(folder, journal, seeds, progress)
        self.of_no_problem = Work(Problem(id=OF_ALL, index=0, prompt_T=()), self.kind)
        tools = Tools(
            config=config,
            ballots=self.kind.ballots,
            rows=self.kind.rows,
            response_tokens=self.kind.response_tokens,
            out_of_time=self.kind.out_of_time,
            seeds=seeds,
            observe=self.observe,
            training=self.kind.training,
            stored=self._stored,
            past=lambda problem: self.work[problem.id].taken,
        )
        self.method = make_method(config.method.adaptation_method, tools)
        self.total = self.done = self.before = self.left_out = 0
        self.doing: dict[str, str] = {}

    async def run(self, problems: Sequence[Problem], finished: int) -> None:
        """Do ``problems``, which are not finished; ``finished`` counts those that are. Raises `EngineError` if the engine is lost."""
        self.total, self.done, self.before = len(problems) + finished, finished, finished
        self.states.tidy()
        self.kind.publish(self.folder, [question.record for question in read_finished(self.folder, self.kind.read)])
        await self.each(self.scopes(problems), self._scope)
        if self.left_out:
            self.progress(f"time is up: {self.left_out} problems are left; the same command with more time does them")

    def _stored(self, problem: Problem) -> Path | None:
        """The adapter that another run has kept for a problem."""
        source = self.config.stored.adapters
        return None if source is None else kept_adapter(source, problem.id)

    def scopes(self, problems: Sequence[Problem]) -> list[Scope]:
        """The problems, grouped by the fork that they use."""
        method, name = self.method, self.forks
        if isinstance(method, DatasetMethod):
            return [Scope(f"{name}dataset", partial(method.delta, None, self.total), (tuple(problems),), lasts=True)]
        if self.config.method.continuous and self.config.method.adaptation_method != "none":
            return [
                Scope(f"{name}continuous", partial(method.delta, None, self.total), tuple((problem,) for problem in problems), lasts=True)
            ]
        return [Scope(f"{name}q{problem.index}", partial(method.delta, problem), ((problem,),), lasts=False) for problem in problems]

    async def each(self, things: Sequence[T], work: Callable[[T], Awaitable[None]]) -> None:
        """Call ``work`` for each thing, at most as many at once as there are seats. The first error cancels the others."""
        gate = asyncio.Semaphore(self.seats.count)

        async def guarded(thing: T) -> None:
            async with gate:
                await work(thing)

        try:
            async with asyncio.TaskGroup() as group:
                for thing in things:
                    group.create_task(guarded(thing))
        except BaseExceptionGroup as several:
            first = several.exceptions[0]
            raise first from first.__cause__

    def clock(self, problem_id: str, activity: str) -> AbstractContextManager[None]:
        """A context manager that adds its seconds to the problem's."""
        return self.work[problem_id].watch.on(activity)

    def observe(self, problem: Problem | None, step: Step) -> None:
        """Journal a finished step and report it. A step of many problems is journalled when it has ended for all of them."""
        work = self.of_no_problem if problem is None else self.work[problem.id]
        self.observed.append((work, step))
        if not isinstance(self.method, DatasetMethod):
            self._journal_steps()

    def _journal_steps(self, shared: Stopwatch | None = None) -> None:
        """Journal the observed steps. In a training ``shared`` times the step, each problem gets an equal part of the seconds, and the
        samples do not stay in memory."""
        observed, self.observed = self.observed, []
        seconds = shared.since_last() if shared else {}
        for work, step in observed:
            for name, spent in seconds.items():
                work.watch.spent[name] += spent / len(observed)
            record = work.add_step(step, work.watch.since_last(), keep=shared is None)
            self.journal.step(work.problem.id, record)
            self.track(record)
            self.progress(f"    {work.problem.id}, step {step.index + 1}: {step_line(step)}")
            self._now(work, f"step {step.index + 2}")

    def _now(self, work: Work, doing: str | None) -> None:
        """Show what is being done for a problem; None: it is finished."""
        self.doing.pop(work.problem.id, None)
        if doing is not None:
            self.doing[work.problem.id] = doing
        self.show(State(self.done, self.total, self.before, dict(self.doing)))

    async def _scope(self, scope: Scope) -> None:
        """Do all rounds of a scope. If its lane dies, they are done again on another lane. A fork that lasts has the run's only lane."""
        while True:
            try:
                async with self.seats.take() as lane, AsyncExitStack() as forks:
                    await self._rounds(OpenScope(scope, lane, self.seats, forks))
                    left_open = await self.boundary.guard(scope.fork, forks.pop_all().aclose())
                if left_open is not None:
                    self.progress(f"    the fork {scope.fork} was not discarded: {left_open.error}")
                return
            except LaneLostError as lost:
                for problem in (problem for problems in scope.rounds for problem in problems):
                    self.work.pop(problem.id, None)
                    self.doing.pop(problem.id, None)
                    self.progress(f"    {problem.id} goes to another lane. {lost}")

    async def _rounds(self, scope: OpenScope) -> None:
        """Do every round of a scope. If the forks of a scope that lasts cannot be made, the run ends: no problem caused that."""
        training = self._training()
        if scope.scope.lasts:
            await scope.base()
        if scope.scope.lasts and training is None:
            policy = await scope.policy()
            if self.done:
                await self.states.restore(policy, ROUND, self.done)
        for problems in scope.scope.rounds:
            if self.kind.time_is_up():
                self.left_out += len(problems)
            else:
                await self._round(problems, scope, training)

    async def _round(self, problems: Sequence[Problem], scope: OpenScope, training: Training | None) -> None:
        """Evaluate the base, adapt, evaluate the adapted policy, let the base vote with the same tokens, and record each problem."""
        works = self._start(problems, training)
        await self.each([work for work in works if work.problem.views_wanted], lambda work: self._write_views(work, scope, training))
        begun = [work for work in works if work.problem.id in self.work and "base" not in work.evaluated]
        await self.each(begun, lambda work: self._ask_base(work, scope, training))
        asked = [work for work in works if work.problem.id in self.work]
        if training is not None:
            failure = await self._train(asked, scope, training)
        else:
            failure = await self.boundary.guard(asked[0].problem.id, self._adapt(asked[0], scope)) if asked else None
        await self.each(asked, lambda work: self._conclude(work, failure, scope, training))

    def _training(self) -> Training | None:
        """The training, if the method trains one policy on all problems; else None."""
        if not isinstance(self.method, DatasetMethod):
            return None
        return Training(
            self.config,
            self.method,
            journal=self.journal,
            states=self.states,
            boundary=self.boundary,
            before=read_journal(self.folder, self.kind.read),
            progress=self.progress,
            out_of_time=partial(self.kind.out_of_time, None),
        )

    def _start(self, problems: Sequence[Problem], training: Training | None) -> list[Work]:
        """Start the work on a round, or resume it if a training is resumed."""
        works = [Work(problem, self.kind) for problem in problems]
        self.work |= {work.problem.id: work for work in works}
        if training is not None and training.has_begun:
            self.journal.resumed(self.attempt)
        else:
            for problem in problems:
                self.journal.begin(problem.id, problem.index, self.attempt)
        if training is not None:
            for work in (*works, self.of_no_problem):
                training.recall(work)
        return works

    async def _write_views(self, work: Work, scope: OpenScope, training: Training | None) -> None:
        """Let the base write views of a problem, unless the journal has them; if that fails, the problem ends here."""
        self._now(work, "writing views")
        failure = await self.boundary.guard(work.problem.id, self.views.add(work, scope.base))
        if failure is not None:
            await self._finish(work, failure, scope, training)

    async def _ask_base(self, work: Work, scope: OpenScope, training: Training | None) -> None:
        """Evaluate the base; if that fails, the problem ends here. Before a training the evaluation is journalled at once."""
        self._now(work, "evaluating the base")

        async def evaluated() -> None:
            work.add_evaluation("base", await self._evaluate("base", work, await scope.base()))

        failure = await self.boundary.guard(work.problem.id, evaluated())
        if failure is not None:
            await self._finish(work, failure, scope, training)
            return
        work.watch.since_last()
        if training is not None:
            write_rollouts(self.folder, work.problem.id, work.lines())
            self.journal.evaluation(work.problem.id, EvaluationRecord(step=0, poll=work.evaluated["base"]))
            work.evaluations.clear()

    async def _adapt(self, work: Work, scope: OpenScope) -> None:
        """Adapt the scope's policy to one problem."""
        assert not isinstance(self.method, DatasetMethod)
        self._now(work, "step 1")
        work.stop = (await self.method.adapt(work.problem, TimedPolicy(await scope.policy(), work.watch))).stop

    async def _train(self, works: Sequence[Work], scope: OpenScope, training: Training) -> Failure | None:
        """Train the scope's policy on all problems. Returns the failure, if the training failed."""
        training.make_plan([work.problem for work in works])
        policy, watch = await scope.policy(), Stopwatch()

        async def evaluate(step: int) -> None:
            await self.each(works, lambda work: self._evaluate_in_between(work, policy, step))

        failure = await training.run(TimedPolicy(policy, watch), lambda: self._journal_steps(watch), evaluate)
        self.observed.clear()  # of a step that failed
        for work in works:
            work.stop = training.stop
        if failure is None and policy.version and not self.states.adapter(ALL).exists():
            not_saved = await self.boundary.guard(ALL, self._save(policy, ALL))
            if not_saved is not None:
                self.progress(f"{self.states.adapter(ALL)} was not saved: {not_saved.error}")
        return failure

    async def _evaluate_in_between(self, work: Work, policy: Policy, step: int) -> None:
        """Evaluate between two steps of a training. If that fails, a line says so, and the problem goes on without it."""
        found = await self.boundary.guard(work.problem.id, self._evaluate("adapted", work, policy))
        if isinstance(found, Failure):
            self.progress(f"    {work.problem.id} was not evaluated after step {step}: {found.error}")
        else:
            self.journal.evaluation(work.problem.id, EvaluationRecord(step=step, poll=self.kind.record(found)))

    async def _conclude(self, work: Work, failure: Failure | None, scope: OpenScope, training: Training | None) -> None:
        """Make the last evaluations of a problem, and record it. After a training no problem is answered that no time is left for."""
        if training is not None and failure is None and self.kind.time_is_up():
            self._leave_out(work)
            return
        if failure is None:
            failure = await self.boundary.guard(work.problem.id, self._last_evaluations(work, scope, training))
        await self._finish(work, failure, scope, training)

    def _with_share(self, record: QuestionRecord) -> QuestionRecord:
        """A record with its equal part of the tokens of steps that were of no problem."""
        steps = self.of_no_problem.taken
        if not steps:
            return record
        tokens = sum(step.tokens_trained for step in steps)
        own = tokens * (self.done + 1) // self.total - tokens * self.done // self.total
        return replace(record, steps=len(steps), tokens_trained=record.tokens_trained + own)

    def _leave_out(self, work: Work) -> None:
        """Leave a problem to a later attempt."""
        self.left_out += 1
        del self.work[work.problem.id]
        self._now(work, None)

    async def _last_evaluations(self, work: Work, scope: OpenScope, training: Training | None) -> None:
        """Evaluate the adapted policy, and let the base vote with the same tokens. Each is recorded as soon as it is made."""
        policy = await scope.policy()
        if work.stop != "no_adaptation":
            # A policy that was never updated is the base, and the seeds are the same: so is the evaluation.
            self._now(work, "evaluating the adapted policy")
            known = work.evaluations.get("base") if policy.version == 0 else None
            work.add_evaluation("adapted", known or await self._evaluate("adapted", work, policy))
            if training is None and policy.version and (work.steps or work.stop == "stored"):
                await self._save(TimedPolicy(policy, work.watch), folder_name(work.problem.id))
        if work.taken and self.config.evaluation.vote_same_tokens:
            self._now(work, "the base votes with the same tokens")
            base, reused = TimedPolicy(await scope.base(), work.watch), () if training else work.samples_of_base
            found = await self.kind.baseline(work.problem, base, work.spent, reused)
            if found is not None:
                work.add_evaluation(BASELINE, found)

    async def _evaluate(self, stage: Stage, work: Work, policy: Policy) -> Any:
        return await self.kind.evaluate(stage, work.problem, TimedPolicy(policy, work.watch))

    async def _save(self, policy: Policy, name: str) -> None:
        """Save an adapter, if adapters are saved."""
        if self.config.run.save_adapters:
            await self.states.write(policy.save, self.states.adapter(name))

    async def _finish(self, work: Work, failure: Failure | None, scope: OpenScope, training: Training | None) -> None:
        """Journal a problem as finished. Its responses, and the state of a policy that lasts, are written to disk before that."""
        if scope.scope.lasts and training is None:
            await self.states.checkpoint(await scope.policy(), ROUND, self.done + 1)
        if training is None:
            write_rollouts(self.folder, work.problem.id, work.lines())
        elif work.evaluations:
            add_rollouts(self.folder, work.problem.id, work.lines())
        record = self._with_share(work.record(self.attempt, failure))
        self.journal.question(record)
        self.kind.publish(self.folder, [record])
        self.done += 1
        self.progress(f"{problem_line(record, self.done, self.total)}, {sum(record.seconds.values()):.1f} s")
        if scope.scope.lasts and training is None:
            self.states.forget(ROUND, self.done)
        del self.work[work.problem.id]
        self._now(work, None)
