"""The protocol of a kind of problem, as the runner uses it. Text questions (`sttrl.questions.kind.Questions`) are one kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from sttrl.arc.codecs.registry import check_codec
from sttrl.arc.datasets import is_arc
from sttrl.arc.records import record_from_json
from sttrl.arc.rows import ChosenRows
from sttrl.arc.selections import needs_experts
from sttrl.arc.source import ChosenTasks
from sttrl.arc.unsure import confidence, second_run, share_of
from sttrl.config import CHOICES, RunConfig
from sttrl.config.extensions import installed
from sttrl.data import BuiltProblems, SourceSpec, Table
from sttrl.engine.base import Policy
from sttrl.errors import UsageError
from sttrl.ledger.evaluated import Evaluated
from sttrl.ledger.records import QuestionRecord
from sttrl.ledger.seeds import SeedSource
from sttrl.methods import METHODS
from sttrl.objectives.rewards import reward_of
from sttrl.questions.source import ChosenQuestions
from sttrl.types import Ballots, Group, Problem, Rollout, Row, RowSet
from sttrl.voting import vote_of

Stage = Literal["base", "adapted"]
"""Which policy is evaluated: the base, or the policy that the method adapted."""
BASELINE = "vote_same_tokens"
"""The name in the journal of the evaluation of the base with as many tokens as adapting took."""
Clock = Callable[[str, str], AbstractContextManager[None]]
"""(problem id, activity) -> a context manager that counts the seconds spent in it."""

P = TypeVar("P", bound=Problem, contravariant=True)
E = TypeVar("E")


class Kind(Protocol[P, E]):
    """How problems of one kind are evaluated and recorded; ``P`` is the type of a problem, ``E`` of an evaluation."""

    @property
    def response_tokens(self) -> int:
        """The most tokens of a response that a method samples while it adapts."""
        ...

    @property
    def training(self) -> RowSet | None:
        """The rows of a training set, for the method finetune; None for a kind without one."""
        ...

    async def evaluate(self, stage: Stage, problem: P, policy: Policy) -> E:
        """Evaluate a policy on a problem, with the same seeds at every stage."""
        ...

    async def baseline(self, problem: P, base: Policy, budget: int, reused: Sequence[Rollout]) -> E | None:
        """Evaluate the base with ``budget`` response tokens, as many as adapting took. ``reused``: samples of the base that exist already.
        None for a kind without such a baseline."""
        ...

    async def ballots(self, problem: P, group: Group) -> Ballots:
        """The answers of a group of responses, for a method that votes."""
        ...

    def rows(self, problem: P) -> Sequence[Row]:
        """The training rows of a problem for the method ttt: whole rows, the same at every call."""
        ...

    def record(self, evaluation: E) -> Evaluated:
        """The record of an evaluation for the journal."""
        ...

    def read(self, value: dict[str, Any]) -> Evaluated:
        """The record of an evaluation from its JSON object in the journal."""
        ...

    def rollouts(self, evaluation: E) -> Sequence[Rollout]:
        """The responses of an evaluation."""
        ...

    def out_of_time(self, problem: P | None) -> bool:
        """Whether adapting to a problem has used the seconds that it may take. None: the training of one policy on all problems."""
        ...

    def time_is_up(self) -> bool:
        """Whether no problem may be begun any more."""
        ...

    def publish(self, folder: Path, records: Iterable[QuestionRecord]) -> None:
        """Write what a kind of problem hands in, such as a submission, with the problems that were finished since the last call. Called
        before the first problem of an attempt, with all that earlier attempts finished, and after each problem."""
        ...

    def lines(self, name: str, evaluation: E) -> Iterator[dict[str, Any]]:
        """The responses with their answers, for the file of rollouts. ``name``: the name of the evaluation in the journal."""
        ...


MakeKind = Callable[[SeedSource, Clock], Kind[Any, Any]]
"""Makes the kind for one runner."""


class Chosen(Protocol):
    """The problems of a run, chosen from a data set and not built yet."""

    @property
    def kind(self) -> str:
        """The name of the kind in `KINDS`."""
        ...

    @property
    def unit(self) -> str:
        """What a line of progress calls the problems."""
        ...

    @property
    def ids(self) -> tuple[str, ...]:
        """The chosen problems."""
        ...

    @property
    def revision(self) -> str | None:
        """The commit of the data set on the hub; None if it is not from the hub."""
        ...

    @property
    def training_revision(self) -> str | None:
        """What the data sets of ``--train_dataset`` are; None if there are none."""
        ...

    @property
    def data(self) -> Any:
        """The data set, for the report."""
        ...

    def build(self, tokenizer: Any, context: int | None) -> BuiltProblems:
        """The problems with their prompts, and the rows that were left out. ``context``: the tokens that the model was made for."""
        ...

    def opened(self, stop_token_ids: Sequence[int]) -> AbstractAsyncContextManager[MakeKind]:
        """A context in which the problems, which have been built, can be evaluated. ``stop_token_ids``: those that end a response."""
        ...


@dataclass(frozen=True)
class Again:
    """How the least sure problems of a run are done again.

    ``share``: how many of them, as a share; None: none. ``confidence``: how sure the run is of a finished problem, whose evaluations are
    read by ``read``. ``second``: the settings of the second run, after a first one of so many seconds; None if no time is left.
    `sttrl.report.kinds.POOLS` has how the answers of both runs are chosen from together.
    """

    share: Callable[[RunConfig], float | None]
    confidence: Callable[[QuestionRecord], float]
    read: Callable[[dict[str, Any]], Evaluated]
    second: Callable[[RunConfig, float], RunConfig | None]


@dataclass(frozen=True)
class KindEntry:
    """A kind of problem in the table `KINDS`. ``words``: what its problems are called. ``unfit``: the methods that cannot adapt to it.
    ``needs_learner``: evaluating needs the learner. ``samples``: evaluating or adapting needs the sampler. ``demonstrates``: its problems
    have demonstrations. ``again``: how its least sure problems are done again; None: they cannot be."""

    words: str
    choose: Callable[[RunConfig, Callable[[SourceSpec], Table]], Chosen]
    unfit: frozenset[str]
    needs_learner: Callable[[RunConfig], bool] = lambda config: False
    demonstrates: bool = False
    samples: bool = True
    again: Again | None = None


KINDS: dict[str, KindEntry] = {
    "questions": KindEntry("text questions", ChosenQuestions, frozenset({"ttt", "finetune"})),
    "arc": KindEntry(
        "ARC tasks",
        lambda config, read: ChosenTasks(config),
        frozenset({"slot"}),
        needs_learner=lambda config: config.arc.score_views > 0,
        demonstrates=True,
        again=Again(share=share_of, confidence=confidence, read=record_from_json, second=second_run),
    ),
    "arc-rows": KindEntry("ARC tasks", lambda config, read: ChosenRows(config), frozenset(), lambda config: True, samples=False),
}
"""The kinds of problems, by name."""


def kind_name(config: RunConfig) -> str:
    """The kind of a run's data set."""
    if not is_arc(config.data.dataset):
        return "questions"
    return "arc-rows" if config.method.adaptation_method == "finetune" else "arc"


def check_extensions(config: RunConfig) -> None:
    """Import what the settings name of code of others; the configuration has the method already.

    Raises `UsageError` if it does not fit, or if two names clash.
    """
    for choice in CHOICES:
        installed(choice)
    vote_of(config.vote.voting_function)
    reward_of(config.reinforcement.reward)
    if config.arc_text.codec != "auto":
        check_codec(config.arc_text.codec)
    if needs_experts(config.arc.selection) and config.arc.score_views == 0:
        raise UsageError(f"--selection {config.arc.selection} needs the product of experts.", "Use --score_views 8.")


def check_kind(config: RunConfig) -> str:
    """The kind of a run's data set. Raises `UsageError` for a method that cannot adapt to it, for settings of another kind, and for code of
    others that does not fit."""
    check_extensions(config)
    name = kind_name(config)
    method, data_set = config.method.adaptation_method, f"{config.data.dataset}, a data set of {KINDS[name].words}"
    if method in KINDS[name].unfit:
        fit = ", ".join(m for m in METHODS if m not in KINDS[name].unfit)
        raise UsageError(f"--adaptation_method {method} cannot adapt to {data_set}.", f"Use one of {fit}.")
    if reward_of(config.reinforcement.reward).held_out and not KINDS[name].demonstrates:
        raise UsageError(
            f"--reward {config.reinforcement.reward} needs demonstrations, and {data_set}, has none.",
            "Use another reward, such as agreement.",
        )
    for group in config.groups.values():
        if group.kinds is not None and name not in group.kinds:
            for setting, value in group.not_default().items():
                raise UsageError(
                    f"--{setting} {value} does nothing with {data_set}.",
                    f"It belongs to {' and '.join(sorted({KINDS[kind].words for kind in group.kinds}))}: leave it out.",
                )
    return name
