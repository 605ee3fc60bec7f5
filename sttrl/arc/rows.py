"""The kind of problem of a fine-tuning on ARC tasks.

Each problem is a task that is not trained on. A policy is evaluated by its loss on that task's demonstrations, so no solution is needed.
The rows that it is trained on come from `sttrl.arc.training_set`.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

from sttrl.arc.source import ChosenTasks
from sttrl.arc.tasks import Task
from sttrl.arc.training_set import TrainingSet, as_row, read_part, rows_of
from sttrl.arc.views.key import View
from sttrl.config import RunConfig
from sttrl.data import BuiltProblems
from sttrl.engine.base import Policy
from sttrl.errors import UsageError
from sttrl.ledger.evaluated import MetricNames, Score, Verdicts
from sttrl.ledger.records import BallotsRecord, QuestionRecord
from sttrl.ledger.seeds import SeedSource
from sttrl.types import Ballots, Group, Problem, Rollout, Row, whole_rows

METRICS = MetricNames(all=("loss", "likelihood"), headline="likelihood", paired=("likelihood",), unbounded=("loss",), has_baseline=False)
"""``loss``: mean negative log-likelihood, in nats a token. ``likelihood``: exp(-loss), the geometric mean of the tokens' probabilities."""


@dataclass(frozen=True, kw_only=True)
class LossRecord:
    """The loss of a policy on a held-out task. ``loss``: in nats a token; ``learnt``: tokens that carry loss; ``tokens``: those scored."""

    loss: float
    learnt: int
    tokens: int
    version: int

    names: ClassVar[MetricNames] = METRICS

    @property
    def ballots(self) -> BallotsRecord:
        """There are no answers."""
        return BallotsRecord(answer_G=[], invalid_G=[], class_G=[], representative_C=[])

    @property
    def answer(self) -> str:
        """The loss as text."""
        return f"loss {self.loss:.4f}"

    @property
    def counts(self) -> dict[str, int]:
        """How many tokens were scored."""
        return {"tokens scored": self.tokens}

    def result(self) -> dict[str, Any]:
        """See `sttrl.ledger.evaluated.Evaluated.result`."""
        return {"loss": self.loss, "learnt": self.learnt}

    def right(self, verdicts: Verdicts) -> None:
        """No loss is right or wrong."""

    def score(self, verdicts: Verdicts) -> Score:
        """The loss and the likelihood."""
        return Score(k=1, names=METRICS, metrics={"loss": self.loss, "likelihood": math.exp(-self.loss)})

    def score_by_confidence(self, verdicts: Verdicts) -> Score | None:
        """None: there is no vote."""
        return None

    def score_early(self, verdicts: Verdicts) -> Score | None:
        """None: there is no vote."""
        return None

    @property
    def early_tokens(self) -> int | None:
        """None: there is no vote."""
        return None


@dataclass(frozen=True, kw_only=True)
class RowsProblem(Problem):
    """A held-out task: its rows, and how many tokens the longest has."""

    row_G: tuple[Row, ...] = field(repr=False)

    @property
    def longest_prompt(self) -> int:
        """Tokens of the longest row."""
        return max(len(row.token_T) for row in self.row_G)


@dataclass
class ChosenRows:
    """The held-out tasks of a fine-tuning, and its training set. See `sttrl.run.kind.Chosen`."""

    config: RunConfig
    held_out: ChosenTasks = field(init=False)
    training: TrainingSet | None = field(init=False, default=None)

    kind: ClassVar[str] = "arc-rows"
    unit: ClassVar[str] = "held-out tasks"

    def __post_init__(self) -> None:
        """Read the held-out tasks and the training sets. Raises `DataError` and `UsageError`."""
        chosen = self.config.arc_training
        if not chosen.train_dataset:
            raise UsageError("--adaptation_method finetune needs a training set.", "Name one or several with --train_dataset.")
        self.held_out = ChosenTasks(self.config)
        self.parts = tuple(read_part(text, self.config.data.data_dir, chosen, self.config.run.seed) for text in chosen.train_dataset)

    @property
    def data(self) -> Any:
        """The held-out tasks, for the report."""
        return self.held_out.arc

    @property
    def ids(self) -> tuple[str, ...]:
        """The held-out tasks' ids."""
        return self.held_out.ids

    @property
    def revision(self) -> str | None:
        """The fingerprint of the held-out tasks."""
        return self.held_out.revision

    @property
    def training_revision(self) -> str:
        """The fingerprints of everything that is trained on."""
        return ", ".join(part.fingerprint for part in self.parts)

    def build(self, tokenizer: Any, context: int | None) -> BuiltProblems:
        """The rows of each held-out task. Raises `UsageError` if nothing is left to train on."""
        scribe, _, end = self.held_out.scribe(tokenizer, context, replies=False)
        chosen = self.config.arc_training
        self.training = TrainingSet(parts=self.parts, settings=chosen, scribe=scribe, seed=self.config.run.seed)
        made = {task.id: self._rows(task) for task in self.held_out.tasks}
        indexed = {task.id: index for index, task in enumerate(self.held_out.arc.tasks)}
        problems = tuple(
            RowsProblem(id=name, index=indexed[name], prompt_T=rows[0].token_T[:1], row_G=rows) for name, rows in made.items() if rows
        )
        if not problems:
            raise UsageError(
                f"no task of {self.config.data.dataset} has a row of at most {scribe.limit} tokens.",
                "Use other tasks, or a longer context.",
            )
        left_out = [name for name, rows in made.items() if not rows]
        remarks = (f"held-out tasks without a row that fits: {', '.join(left_out[:5])}",) if left_out else ()
        return BuiltProblems(problems=problems, skipped=(), response_tokens=0, remarks=remarks, end_T=(end,))

    def opened(
        self, stop_token_ids: Sequence[int]
    ) -> AbstractAsyncContextManager[Callable[[SeedSource, Callable[[str, str], AbstractContextManager[None]]], Rows]]:
        """A context in which the held-out tasks can be evaluated."""
        assert self.training is not None, "the problems are built before"
        return opened_rows(self.training)

    def _rows(self, task: Task) -> tuple[Row, ...]:
        assert self.training is not None
        settings, scribe = self.training.settings, self.training.scribe
        found = rows_of(task, [View()], settings.train_form) if task.demos else ()
        return tuple(row for each in found if (row := as_row(each, scribe, settings.train_loss)) is not None)


@asynccontextmanager
async def opened_rows(training: TrainingSet) -> AsyncIterator[Callable[..., Rows]]:
    """A function that makes the kind for a runner."""
    yield partial(Rows, training)


class Rows:
    """See `sttrl.run.kind.Kind`."""

    response_tokens: ClassVar[int] = 0

    def __init__(self, training: TrainingSet, seeds: SeedSource, clock: Callable[[str, str], AbstractContextManager[None]]) -> None:
        self.training = training

    async def evaluate(self, stage: Literal["base", "adapted"], problem: RowsProblem, policy: Policy) -> LossRecord:
        """The loss on the task's rows, by one pass of the learner."""
        groups = whole_rows(problem.row_G)
        scored = [
            pair for g, stats_G in zip(groups, await policy.score(groups), strict=True) for pair in zip(g.row_G, stats_G, strict=True)
        ]
        pairs = [pair for row, stats in scored for pair in zip(row.weight_T, stats.logprob_T or (), strict=True)]
        learnt = math.fsum(weight for weight, _ in pairs)
        return LossRecord(
            loss=-math.fsum(weight * logprob for weight, logprob in pairs) / learnt,
            learnt=int(learnt),
            tokens=sum(len(row.token_T) for row in problem.row_G),
            version=policy.version,
        )

    async def baseline(self, problem: RowsProblem, base: Policy, budget: int, reused: Sequence[Rollout]) -> None:
        """None: nothing is sampled."""

    async def ballots(self, problem: RowsProblem, group: Group) -> Ballots:
        """Nothing is sampled."""
        raise NotImplementedError("rows are not sampled")

    def rows(self, problem: RowsProblem) -> tuple[Row, ...]:
        """The rows of a held-out task."""
        return problem.row_G

    def record(self, evaluation: LossRecord) -> LossRecord:
        """The evaluation itself."""
        return evaluation

    def read(self, value: dict[str, Any]) -> LossRecord:
        """The record of an evaluation from its JSON object in the journal."""
        return LossRecord(**value)

    def rollouts(self, evaluation: LossRecord) -> Sequence[Rollout]:
        """None."""
        return ()

    def out_of_time(self, problem: RowsProblem | None) -> bool:
        """Never: a fine-tuning has no limit of time."""
        return False

    def time_is_up(self) -> bool:
        """Never."""
        return False

    def publish(self, folder: Path, records: Iterable[QuestionRecord]) -> None:
        """Nothing is handed in."""

    def lines(self, name: str, evaluation: LossRecord) -> Iterator[dict[str, Any]]:
        """Nothing was sampled."""
        return iter(())
