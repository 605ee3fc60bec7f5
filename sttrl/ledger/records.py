"""The records of the journal: plain values, with a schema version, without labels. Results and reports are computed from them.

A journal is a sequence of JSON objects, one a line:

``{"kind": "begin", "id", "index", "attempt"}``: work on a question starts (again); its steps of earlier attempts no longer count.
``{"kind": "step", "id", **StepRecord}``: one finished step of the method.
``{"kind": "question", **QuestionRecord}``: the question is finished; no later line changes it.
``{"kind": "evaluation", "id", "step", "poll"}``: an evaluation, after ``step`` steps, of a policy that is trained on all questions.
``{"kind": "trained", "step"}``: that policy's state after ``step`` steps is on disk; later steps of earlier attempts no longer count.
``{"kind": "ended", "step", "status", "error"}``: that policy's training was ended by an error after ``step`` steps.
``{"kind": "resumed", "attempt"}``: an attempt resumes that training.
``{"kind": "views", "id", "texts", "tokens"}``: paraphrases of the question that the base has written; they count in every later attempt.
``{"kind": "attempt", "attempt", "seconds"}``: an attempt ended; ``seconds`` are wall seconds, ``total`` and ``start_up``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from sttrl.types import Ballots, Election, QuestionStatus, Step, StopReason

SCHEMA_VERSION = 4
READABLE_VERSIONS = (2, 3, 4)
"""Version 2 has no ``reward_G`` in its ballots. Versions 2 and 3 have no ``view_G`` in their ballots, no lines of views, no ``early``
votes in their polls of questions, and no ``weight`` in their steps."""


@dataclass(frozen=True, kw_only=True)
class ElectionRecord:
    """The result of one vote; the fields are those of `sttrl.types.Election`."""

    answer: str | None
    winner: int | None
    margin: float
    share_C: list[float]
    tied_C: list[int]
    voters: int
    samples: int
    majority_ratio: float

    @classmethod
    def of(cls, election: Election) -> ElectionRecord:
        """The record of an election."""
        return cls(
            answer=election.answer,
            winner=election.winner,
            margin=election.margin,
            share_C=list(election.share_C),
            tied_C=list(election.tied_C),
            voters=election.voters,
            samples=election.samples,
            majority_ratio=election.majority_ratio,
        )


@dataclass(frozen=True, kw_only=True)
class BallotsRecord:
    """The judged answers of a group: the normal form of each (or None, with the reason), and the equivalence classes.

    ``reward_G``: how right each sample is, where the right answer is known without a label; None elsewhere. ``view_G``: the number of the
    view that each sample answers; None for a problem that is asked in one way only. Answers are mapped back to the plain problem.
    """

    answer_G: list[str | None]
    invalid_G: list[str | None]
    class_G: list[int | None]
    representative_C: list[str]
    reward_G: list[float] | None = None
    view_G: list[int] | None = None

    @classmethod
    def of(cls, ballots: Ballots) -> BallotsRecord:
        """The record of ballots."""
        return cls(
            answer_G=[a.text for a in ballots.answer_G],
            invalid_G=[a.invalid for a in ballots.answer_G],
            class_G=list(ballots.class_G),
            representative_C=list(ballots.representative_C),
            reward_G=None if ballots.reward_G is None else list(ballots.reward_G),
            view_G=None if ballots.view_G is None else list(ballots.view_G),
        )


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """One step: the vote over its samples, the pseudo-rewards, and the update that followed (None: none did).

    ``ballots``, ``election`` and ``majority`` are None, and ``reward_G`` is empty, for a method that holds no vote.
    ``majority`` is the majority vote over the same ballots, recorded whatever the voting function is. ``gate`` names the gate that
    prevented the update. ``update`` holds the fields of `sttrl.types.UpdateStats` except ``seconds``. ``seconds``: wall seconds of
    each activity. ``weight``: what the advantages of the question's samples were multiplied by; None: by 1.
    """

    step: int
    version: int
    ballots: BallotsRecord | None
    election: ElectionRecord | None
    majority: ElectionRecord | None
    reward_G: list[float]
    gate: str | None
    tokens_sampled: int
    tokens_trained: int
    update: dict[str, float | int | None] | None
    seconds: dict[str, float] = field(default_factory=dict)
    weight: float | None = None

    @classmethod
    def of(cls, step: Step, seconds: dict[str, float]) -> StepRecord:
        """The record of a step."""
        vote = step.vote
        return cls(
            step=step.index,
            version=step.version,
            ballots=BallotsRecord.of(vote.ballots) if vote else None,
            election=ElectionRecord.of(vote.election) if vote else None,
            majority=ElectionRecord.of(vote.majority) if vote else None,
            reward_G=list(vote.reward_G) if vote else [],
            gate=step.gate,
            tokens_sampled=vote.n_tokens if vote else 0,
            tokens_trained=step.update.tokens if step.update else 0,
            update={k: v for k, v in asdict(step.update).items() if k != "seconds"} if step.update else None,
            seconds=seconds,
            weight=vote.weight if vote else None,
        )

    @property
    def elected(self) -> frozenset[str] | None:
        """All texts in the class that the vote elected; empty if it abstained; None if there was no vote."""
        if self.ballots is None or self.election is None:
            return None
        pairs = zip(self.ballots.answer_G, self.ballots.class_G, strict=True)
        return frozenset(text for text, c in pairs if text is not None and c == self.election.winner)


@dataclass(frozen=True, kw_only=True)
class QuestionRecord:
    """A finished question, or another kind of problem.

    ``answer``: the run's answer, taken from the evaluation that ``answer_source`` names. ``polls``: the evaluations by name, each as its
    kind records it. ``steps``: the number of `StepRecord` lines that belong to it. ``error``: one line, if ``status`` is not ``done``.
    """

    id: str
    index: int
    attempt: int
    status: QuestionStatus
    stop: StopReason | None
    error: str | None
    answer: str | None
    answer_source: str | None
    polls: dict[str, Any]
    steps: int
    tokens_sampled: int
    tokens_trained: int
    tokens_evaluated: int
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class EvaluationRecord:
    """An evaluation on one question, after ``step`` steps, of a policy that is trained on all questions."""

    step: int
    poll: Any


@dataclass(frozen=True, kw_only=True)
class EndRecord:
    """A training on all questions that ended early: after ``step`` steps, by an error that every question reports."""

    step: int
    status: QuestionStatus
    error: str


@dataclass(frozen=True, kw_only=True)
class FinishedQuestion:
    """A question record, the step records of the attempt that finished it, and the evaluations between two of its steps."""

    record: QuestionRecord
    steps: tuple[StepRecord, ...]
    evaluations: tuple[EvaluationRecord, ...] = ()


def step_from_json(value: dict[str, Any]) -> StepRecord:
    """The record of a step from its JSON object."""
    kinds = {"ballots": BallotsRecord, "election": ElectionRecord, "majority": ElectionRecord}
    return StepRecord(**{**value, **{name: value[name] and kind(**value[name]) for name, kind in kinds.items()}})
