"""What a session answers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sttrl.arc.submission import SUBMISSION
from sttrl.library.loaded_run import load_run
from sttrl.library.records import Evaluation, Problem, Sample, Step, Vote
from sttrl.types import QuestionStatus, StopReason

Grid = tuple[tuple[int, ...], ...]
Question = str | Sequence[Mapping[str, str]]
"""A question, or the messages of a conversation: {"role": "system" | "user" | "assistant", "content": text}; the last is the user's."""


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Response tokens: those that adapting ``sampled`` and ``trained`` on, and those of evaluations before and after (``evaluated``)."""

    sampled: int
    trained: int
    evaluated: int


@dataclass(frozen=True, kw_only=True)
class BaseAnswer:
    """What the base says. ``text``: its greedy response. ``answer``: what its samples elect; None: nothing. ``right``: None without a
    label."""

    text: str = field(repr=False)
    answer: str | None
    right: bool | None
    vote: Vote | None = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How an answer came about.

    ``right``: None without a label. ``steps``: of the method. ``samples``: every response, of evaluations and steps. ``adapter``: its
    folder; None: nothing was learned. ``seconds``: by activity. ``status``: ``done``, or why the base answers, with the reason in
    ``error``. ``stop``: why adapting ended. ``folder``: the run folder; `sttrl.load_run`, ``view`` and ``report`` read it.
    """

    id: str
    right: bool | None
    steps: tuple[Step, ...] = field(repr=False)
    samples: tuple[Sample, ...] = field(repr=False)
    adapter: Path | None
    tokens: Tokens
    seconds: Mapping[str, float] = field(repr=False)
    status: QuestionStatus
    stop: StopReason | None
    error: str | None
    folder: Path

    @property
    def total_seconds(self) -> float:
        """The seconds of all activities."""
        return sum(self.seconds.values())


@dataclass(frozen=True, kw_only=True)
class Answer(Outcome):
    """The answer to a question.

    ``text``: the greedy response of the adapted policy; of the base, if adapting failed or the method is ``none``. ``answer``: what that
    policy's samples elect, as a normal form; None: nothing. ``base``: what the base says. ``votes``: one for each step that voted.
    """

    question: str = field(repr=False)
    text: str
    answer: str | None
    base: BaseAnswer
    votes: tuple[Vote, ...] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class TaskAnswer(Outcome):
    """The answer to an ARC task. ``attempts``: for each test input two grids, the likelier first. ``base`` and ``adapted``: the evaluations
    of both policies."""

    attempts: tuple[tuple[Grid, Grid], ...]
    base: Evaluation | None
    adapted: Evaluation | None


def read_answer(folder: Path, question: str) -> Answer:
    """The answer in the run folder of one question."""
    (problem,) = load_run(folder)
    samples = tuple(problem.rollouts.read())
    base = problem.base
    return Answer(
        question=question,
        text=_greedy(samples, problem.answer_source or "base"),
        answer=problem.answer,
        base=BaseAnswer(
            text=_greedy(samples, "base"),
            answer=None if base is None else base.answer,
            right=None if base is None else base.right,
            vote=None if base is None else base.vote,
        ),
        votes=tuple(step.vote for step in problem.steps if step.vote is not None),
        **_of_both(folder, problem, samples),
    )


def read_task_answer(folder: Path) -> TaskAnswer:
    """The answer in the run folder of one ARC task."""
    (problem,) = load_run(folder)
    submission = json.loads((folder / SUBMISSION).read_text(encoding="utf-8"))
    pairs = [(_grid(test["attempt_1"]), _grid(test["attempt_2"])) for test in submission[problem.id]]
    return TaskAnswer(
        attempts=tuple(pairs), base=problem.base, adapted=problem.adapted, **_of_both(folder, problem, tuple(problem.rollouts.read()))
    )


def _of_both(folder: Path, problem: Problem, samples: tuple[Sample, ...]) -> dict[str, Any]:
    tokens = Tokens(sampled=problem.tokens_sampled, trained=problem.tokens_trained, evaluated=problem.tokens_evaluated)
    names = ("id", "right", "steps", "adapter", "seconds", "status", "stop", "error")
    return {**{name: getattr(problem, name) for name in names}, "samples": samples, "tokens": tokens, "folder": folder}


def _greedy(samples: Iterable[Sample], evaluation: str) -> str:
    """The text of the greedy response of an evaluation; "" if there is none. A policy that was never updated is the base."""
    texts = {sample.evaluation: sample.text for sample in samples if sample.greedy}
    return texts.get(evaluation, texts.get("base", ""))


def _grid(rows: Iterable[Iterable[int]]) -> Grid:
    return tuple(tuple(row) for row in rows)
