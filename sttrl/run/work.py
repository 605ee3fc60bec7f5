"""The work on one problem: its results so far, and its record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from sttrl.ledger.evaluated import Evaluated
from sttrl.ledger.records import QuestionRecord, StepRecord
from sttrl.ledger.rollouts import rollout_line
from sttrl.run.boundary import Failure
from sttrl.run.kind import Kind
from sttrl.run.timing import Stopwatch
from sttrl.types import Problem, Rollout, Step, StopReason


@dataclass
class Work:
    """The work on one problem.

    ``evaluations`` and ``steps``: those whose samples are in memory. ``evaluated`` and ``taken``: the records of all evaluations and steps
    that count, including those of earlier attempts. They are filled during the work, so they are kept if it fails.
    """

    problem: Problem
    kind: Kind[Any, Any]
    watch: Stopwatch = field(default_factory=Stopwatch)
    evaluations: dict[str, Any] = field(default_factory=dict)
    evaluated: dict[str, Evaluated] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    taken: list[StepRecord] = field(default_factory=list)
    tokens_evaluated: int = 0
    stop: StopReason | None = None

    def add_evaluation(self, name: str, evaluation: Any) -> None:
        """Add an evaluation. Its tokens are counted, except those of responses that a step or another evaluation has counted already."""
        paid, record = {id(rollout) for rollout in self._rollouts()}, self.kind.record(evaluation)
        if not any(other is evaluation for other in self.evaluations.values()):
            self.tokens_evaluated += record.tokens - sum(len(r.token_T) for r in self.kind.rollouts(evaluation) if id(r) in paid)
        self.evaluations[name], self.evaluated[name] = evaluation, record

    def evaluated_before(self, name: str, record: Evaluated) -> None:
        """Add an evaluation that an earlier attempt made."""
        self.evaluated[name] = record
        self.tokens_evaluated += record.tokens

    def add_step(self, step: Step, seconds: dict[str, float], keep: bool) -> StepRecord:
        """Add a finished step and return its record. ``keep``: keep its samples in memory."""
        record = StepRecord.of(step, seconds)
        self.steps += [step] if keep else []
        self.taken.append(record)
        return record

    @property
    def spent(self) -> int:
        """Response tokens that adapting sampled and trained on."""
        return sum(step.tokens_sampled + step.tokens_trained for step in self.taken)

    @property
    def samples_of_base(self) -> tuple[Rollout, ...]:
        """The samples of the first vote, if the policy was still the base; else none. Branches of trees are no independent samples."""
        vote = self.steps[0].vote if self.steps and self.steps[0].version == 0 else None
        return vote.group.rollout_G if vote is not None and not any(r.begun for r in vote.group.rollout_G) else ()

    def record(self, attempt: int, failure: Failure | None) -> QuestionRecord:
        """The record of the finished problem. If it failed, its answer is the base's."""
        source = "adapted" if failure is None and "adapted" in self.evaluated else "base" if "base" in self.evaluated else None
        return QuestionRecord(
            id=self.problem.id,
            index=self.problem.index,
            attempt=attempt,
            status=failure.status if failure else "done",
            stop=None if failure else self.stop,
            error=failure.error if failure else None,
            answer=self.evaluated[source].answer if source else None,
            answer_source=source,
            polls=dict(self.evaluated),
            steps=len(self.taken),
            tokens_sampled=sum(step.tokens_sampled for step in self.taken),
            tokens_trained=sum(step.tokens_trained for step in self.taken),
            tokens_evaluated=self.tokens_evaluated,
            seconds=self.watch.total(),
        )

    def lines(self) -> Iterator[dict[str, Any]]:
        """The responses that are in memory, for the file of rollouts."""
        for name, evaluation in self.evaluations.items():
            yield from self.kind.lines(name, evaluation)
        for step in self.steps:
            if (vote := step.vote) is not None:
                for rollout, answer, reward in zip(vote.group.rollout_G, vote.ballots.answer_G, vote.reward_G, strict=True):
                    view = self.problem.view_key(rollout.view)
                    yield {"step": step.index, "reward": reward, **rollout_line(rollout, answer.text, answer.invalid, view)}

    def _rollouts(self) -> Iterator[Rollout]:
        for evaluation in self.evaluations.values():
            yield from self.kind.rollouts(evaluation)
        for step in self.steps:
            if step.vote is not None:
                yield from step.vote.group.rollout_G


def step_line(step: Step) -> str:
    """A step in one line: the elected answer, its fraction of the samples, and the update; or why no sample voted."""
    update = _update_line(step)
    if step.vote is None:
        return update
    election, reasons = step.vote.election, Counter(a.invalid for a in step.vote.ballots.answer_G if a.invalid)
    if not election.voters:
        return f"none of {election.samples} samples has an answer ({', '.join(f'{n} {reason}' for reason, n in reasons.items())})"
    if election.answer is None and not election.tied_C:
        return f"no answer was given under every view by {election.samples} samples; {update}"
    if election.answer is None:
        return f"a tie of {len(election.tied_C)} answers among {election.samples} samples; {update}"
    return f"{election.answer!r} has {election.majority_ratio:.0%} of {election.samples} samples; {update}"


def problem_line(record: QuestionRecord, done: int, total: int) -> str:
    """A finished problem in one line."""
    end = record.error if record.status != "done" else record.stop
    return f"[{done}/{total}] {record.id}: {record.answer!r} after {record.steps} steps ({end})"


def _update_line(step: Step) -> str:
    if step.update is None:
        return f"no update (gate: {step.gate})" if step.gate else "no update"
    gap = step.update.logprob_gap_mean
    return f"loss {step.update.loss:+.4f}" + (f", gap {gap:.3f}" if gap is not None else "")
