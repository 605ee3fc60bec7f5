"""What the journal records: plain, versioned, label-free. Everything a user reads later is a function of these records.

A journal is a sequence of JSON objects, one a line:

``{"kind": "begin", "id", "index", "attempt"}``: work on a question starts (again); steps of an earlier try are void.
``{"kind": "step", "id", **StepRecord}``: one finished step of the method.
``{"kind": "question", **QuestionRecord}``: the question is finished; it is never touched again.
``{"kind": "attempt", "attempt", "seconds"}``: an attempt came to its end; wall seconds ``total`` and ``start_up``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from sttrl.types import QuestionStatus, StopReason

SCHEMA_VERSION = 1

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
    greedy response, last. ``election`` is over the ``k`` samples only. ``tokens`` counts every response token.
    """

    k: int
    greedy: bool
    temperature: float
    top_p: float
    max_tokens: int
    version: int
    ballots: BallotsRecord
    election: ElectionRecord
    tokens: int


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """One step: the vote over its samples, the pseudo-rewards, and the update that followed (None: the method stopped).

    ``majority`` is the majority vote over the same ballots, logged whatever the voting function. ``update`` holds the
    fields of `sttrl.types.UpdateStats` but ``seconds``. ``seconds``: wall seconds by activity, by name.
    """

    step: int
    version: int
    ballots: BallotsRecord
    election: ElectionRecord
    majority: ElectionRecord
    reward_G: list[float]
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
class FinishedQuestion:
    """A question record with the step records of the attempt that finished it."""

    record: QuestionRecord
    steps: tuple[StepRecord, ...]


def poll_from_json(value: dict[str, Any]) -> PollRecord:
    """Read a poll back."""
    return PollRecord(**{**value, "ballots": BallotsRecord(**value["ballots"]), "election": ElectionRecord(**value["election"])})


def step_from_json(value: dict[str, Any]) -> StepRecord:
    """Read a step back."""
    return StepRecord(
        **{
            **value,
            "ballots": BallotsRecord(**value["ballots"]),
            "election": ElectionRecord(**value["election"]),
            "majority": ElectionRecord(**value["majority"]),
        }
    )


def question_from_json(value: dict[str, Any]) -> QuestionRecord:
    """Read a finished question back."""
    return QuestionRecord(**{**value, "polls": {name: poll_from_json(poll) for name, poll in value["polls"].items()}})
