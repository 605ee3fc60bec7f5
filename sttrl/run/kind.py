"""What the runner must know of a kind of problem. Text questions (`sttrl.questions.kind.Questions`) are the first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

from sttrl.config import RunConfig
from sttrl.data import SourceSpec, Table
from sttrl.engine.base import Policy
from sttrl.ledger.evaluated import Evaluated
from sttrl.ledger.seeds import SeedSource
from sttrl.questions import BuiltProblems
from sttrl.questions.kind import opened_questions
from sttrl.questions.source import ChosenQuestions
from sttrl.types import Ballots, Group, Problem, Rollout

Stage = Literal["base", "adapted"]
"""Which policy is evaluated: the base, or what the method made of it."""
BASELINE = "vote_same_tokens"
"""The name in the journal of what the base makes of the tokens that adapting took."""
Clock = Callable[[str, str], AbstractContextManager[None]]
"""(problem id, activity) -> a context whose seconds are counted."""

E = TypeVar("E")


class Kind(Protocol[E]):
    """How problems of one kind are evaluated and recorded; ``E`` is what an evaluation finds."""

    async def evaluate(self, stage: Stage, problem: Problem, policy: Policy) -> E:
        """What a policy makes of a problem, with the same seeds at every stage."""
        ...

    async def baseline(self, problem: Problem, base: Policy, budget: int, reused: Sequence[Rollout]) -> E | None:
        """What the base makes of it with ``budget`` response tokens, as many as adapting took; ``reused``: samples of the base that were
        taken already."""
        ...

    async def ballots(self, problem: Problem, group: Group) -> Ballots:
        """The answers of a group of responses, for a method that votes."""
        ...

    def record(self, evaluation: E) -> Evaluated:
        """An evaluation for the journal."""
        ...

    def read(self, value: dict[str, Any]) -> Evaluated:
        """The record again, of the journal's JSON object."""
        ...

    def rollouts(self, evaluation: E) -> Sequence[Rollout]:
        """The responses that an evaluation is made of."""
        ...

    def lines(self, name: str, evaluation: E) -> Iterator[dict[str, Any]]:
        """The responses for the file of rollouts, each with its answer; ``name`` is the evaluation's in the journal."""
        ...


class Chosen(Protocol):
    """The problems of a run, chosen from a data set and not built yet."""

    @property
    def ids(self) -> tuple[str, ...]:
        """The chosen problems."""
        ...

    @property
    def revision(self) -> str | None:
        """The hub's commit of the data set; None for one that is not from the hub."""
        ...

    @property
    def table(self) -> Table:
        """The data set, for the report."""
        ...

    def build(self, tokenizer: Any) -> BuiltProblems:
        """The problems with their prompts, and the rows that were left out."""
        ...


MakeKind = Callable[[SeedSource, Clock], Kind[Any]]
"""Makes the kind for one runner."""


@dataclass(frozen=True)
class KindEntry:
    """A kind of problem as a run finds it: how problems are chosen, and a context in which they can be evaluated."""

    choose: Callable[[RunConfig, Callable[[SourceSpec], Table]], Chosen]
    opened: Callable[[RunConfig], AbstractAsyncContextManager[MakeKind]]


KINDS: dict[str, KindEntry] = {"questions": KindEntry(ChosenQuestions, opened_questions)}
"""Every kind of problem, a line an entry."""


def kind_of(config: RunConfig) -> KindEntry:
    """The kind of a run's data set. Every data set so far holds text questions."""
    return KINDS["questions"]
