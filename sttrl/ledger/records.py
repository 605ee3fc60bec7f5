"""What the journal records: plain, versioned, label-free. Everything a user reads later is a function of these records.

A journal is a sequence of JSON objects, one a line:

``{"kind": "begin", "id", "index", "attempt"}``: work on a question starts (again); steps of an earlier try are void.
``{"kind": "step", "id", **StepRecord}``: one finished step of the method.
``{"kind": "question", **QuestionRecord}``: the question is finished; it is never touched again.
``{"kind": "evaluation", "id", "step", "poll"}``: a poll of a policy that is trained on all questions, after so many steps.
``{"kind": "trained", "step"}``: that policy's state after so many steps is on disk; later steps of an earlier try are void.
``{"kind": "ended", "step", "status", "error"}``: its training ended early, after so many steps, by an error.
``{"kind": "resumed", "attempt"}``: an attempt goes on with that training.
``{"kind": "attempt", "attempt", "seconds"}``: an attempt came to its end; wall seconds ``total`` and ``start_up``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from sttrl.types import QuestionStatus, StopReason

SCHEMA_VERSION = 2

PollName = Literal["base", "vote_same_tokens", "adapted"]
POLL_NAMES: tuple[PollName, ...] = ("base", "vote_same_tokens", "adapted")


@dataclass(frozen=True, kw_only=True)
class ElectionRecord:
    """One vote: the elected answer (None: it abstains), its margin, and the share of each class."""

    answer: str | None
    winner: int | None
    margin: float
    share_C: list[float]
    tied_C: list[int]
    voters: int
    samples: int
    majority_ratio: float


@dataclass(frozen=True, kw_only=True)
class BallotsRecord:
    """Judged answers of a group: normal form or None with the reason, and the equivalence classes."""

    answer_G: list[str | None]
    invalid_G: list[str | None]
    class_G: list[int | None]
    representative_C: list[str]


@dataclass(frozen=True, kw_only=True)
class PollRecord:
    """An evaluation of one policy on one question.

    ``k`` samples at ``temperature`` and ``top_p``; ``ballots`` holds those ``k`` and, when ``greedy``, one more: the
    greedy response, last. ``election``, the majority's, and ``confidence``, weighed by mean log-prob, are over the ``k``
    samples only. ``tokens`` counts every response token.
    """

    k: int
    greedy: bool
    temperature: float
    top_p: float
    max_tokens: int
    version: int
    ballots: BallotsRecord
    election: ElectionRecord
    confidence: ElectionRecord
    tokens: int


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """One step: the vote over its samples, the pseudo-rewards, and the update that followed (None: none did).

    ``ballots``, ``election`` and ``majority`` are None, and ``reward_G`` is empty, for a method that holds no vote.
    ``majority`` is the majority vote over the same ballots, logged whatever the voting function. ``gate`` says why a vote
    was not trusted. ``update`` holds the fields of `sttrl.types.UpdateStats` but ``seconds``. ``seconds``: wall seconds by
    activity, by name.
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


@dataclass(frozen=True, kw_only=True)
class QuestionRecord:
    """A finished question.

    ``answer``: the run's answer, from ``answer_source``. ``polls``: those of `POLL_NAMES` that were taken. ``steps``:
    how many `StepRecord` lines of this attempt belong to it. ``error``: one line when ``status`` is not ``done``.
    """

    id: str
    index: int
    attempt: int
    status: QuestionStatus
    stop: StopReason | None
    error: str | None
    answer: str | None
    answer_source: PollName | None
    polls: dict[str, PollRecord]
    steps: int
    tokens_sampled: int
    tokens_trained: int
    tokens_evaluated: int
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class EvaluationRecord:
    """A poll of a policy that is trained on all questions, on one of them, after ``step`` steps."""

    step: int
    poll: PollRecord


@dataclass(frozen=True, kw_only=True)
class EndRecord:
    """A training on all questions that ended early: after ``step`` steps, by an error that every question reports."""

    step: int
    status: QuestionStatus
    error: str


@dataclass(frozen=True, kw_only=True)
class FinishedQuestion:
    """A question record with the step records of the attempt that finished it, and the evaluations in between."""

    record: QuestionRecord
    steps: tuple[StepRecord, ...]
    evaluations: tuple[EvaluationRecord, ...] = ()


def elected(poll: PollRecord) -> str | None:
    """What a policy answers: its majority vote, or its greedy answer where the vote abstains."""
    if poll.election.answer is not None or not poll.greedy:
        return poll.election.answer
    greedy_class = poll.ballots.class_G[-1]
    return None if greedy_class is None else poll.ballots.representative_C[greedy_class]


def poll_from_json(value: dict[str, Any]) -> PollRecord:
    """Read a poll back."""
    elections = {name: ElectionRecord(**value[name]) for name in ("election", "confidence")}
    return PollRecord(**{**value, "ballots": BallotsRecord(**value["ballots"]), **elections})


def step_from_json(value: dict[str, Any]) -> StepRecord:
    """Read a step back."""
    kinds = {"ballots": BallotsRecord, "election": ElectionRecord, "majority": ElectionRecord}
    return StepRecord(**{**value, **{name: value[name] and kind(**value[name]) for name, kind in kinds.items()}})


def evaluation_from_json(value: dict[str, Any]) -> EvaluationRecord:
    """Read an evaluation back."""
    return EvaluationRecord(step=value["step"], poll=poll_from_json(value["poll"]))


def question_from_json(value: dict[str, Any]) -> QuestionRecord:
    """Read a finished question back."""
    return QuestionRecord(**{**value, "polls": {name: poll_from_json(poll) for name, poll in value["polls"].items()}})
