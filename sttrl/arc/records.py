"""What the journal holds of the evaluation of a task, and how it scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from sttrl.arc.grids import Grid
from sttrl.arc.selected import ATTEMPTS
from sttrl.ledger.evaluated import MetricNames, Score, Verdicts
from sttrl.ledger.records import BallotsRecord, QuestionRecord

METRICS = MetricNames(
    all=("kaggle", "per_task_mean", "all_or_nothing", "attempt_1", "oracle"),
    headline="kaggle",
    paired=("kaggle", "per_task_mean", "all_or_nothing"),
    weighted=("kaggle", "attempt_1", "oracle"),
    has_baseline=False,
)
"""``kaggle``: hits over all test outputs. ``per_task_mean``: each task counts as one. ``all_or_nothing``: a task is solved if all its
outputs are. ``attempt_1``: outputs right at the first attempt. ``oracle``: outputs that are among the candidates at all."""


HELD_OUT = -1
"""The number that answers to a held-out demonstration have in place of a test input's, so that no label is theirs."""


def grid_text(grid: Grid) -> str:
    """A grid on one line: rows of digits with a slash between them."""
    return "/".join("".join(map(str, row)) for row in grid)


def grid_of(text: str) -> Grid:
    """The grid that `grid_text` wrote."""
    return tuple(tuple(map(int, row)) for row in text.split("/"))


def answer_text(test: int, grid: Grid) -> str:
    """An answer to one of a task's test inputs, numbered from 0: what is compared with a label."""
    return f"{test}:{grid_text(grid)}"


@dataclass(frozen=True, kw_only=True)
class CandidateRecord:
    """A candidate of a test input. ``score``: of the selection, higher is better; None: it was not scored, because there were too many.

    ``search_nll``: of the search by view; ``expert_nll``: of the product of experts by view; both in nats.
    """

    grid: str
    score: float | None
    search_nll: Mapping[str, float]
    expert_nll: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class TestRecord:
    """One test input: its candidates, the best first. ``tied``: numbers of candidates with equal scores.

    ``unreadable``: replies that are no grid, by reason. ``cut``: what the search left out, by reason.
    """

    __test__: ClassVar[bool] = False

    candidates: Sequence[CandidateRecord]
    tied: Sequence[Sequence[int]]
    unreadable: Mapping[str, int]
    cut: Mapping[str, int]

    @property
    def attempts(self) -> tuple[Grid, ...]:
        """At most two grids, the best first."""
        return tuple(grid_of(candidate.grid) for candidate in self.candidates[:ATTEMPTS] if candidate.score is not None)


@dataclass(frozen=True, kw_only=True)
class TaskRecord:
    """The evaluation of a policy on a task. ``views``: how many views each test input was searched under. ``tokens``: decoded and scored.
    ``scored_tokens``: of these, those that the product of experts scored."""

    views: int
    selection: str
    version: int
    tests: Sequence[TestRecord]
    tokens: int
    scored_tokens: int
    requests: int

    names: ClassVar[MetricNames] = METRICS

    @property
    def ballots(self) -> BallotsRecord:
        """Every candidate of every test input, as answers to be compared with the label."""
        answers = [answer_text(k, grid_of(c.grid)) for k, test in enumerate(self.tests) for c in test.candidates]
        places = list(range(len(answers)))
        return BallotsRecord(answer_G=list(answers), invalid_G=[None] * len(answers), class_G=list(places), representative_C=answers)

    @property
    def answer(self) -> str | None:
        """Both attempts at every test input; None if there is no attempt at all."""
        if not any(test.attempts for test in self.tests):
            return None
        return "; ".join(" or ".join(map(grid_text, test.attempts)) or "none" for test in self.tests)

    @property
    def counts(self) -> dict[str, int]:
        """Requests of the search, candidates, replies that are no grid, and branches that were cut, by reason."""
        cut = Counter[str]()
        for test in self.tests:
            cut.update({f"cut by {reason}": count for reason, count in test.cut.items()})
        candidates, unreadable = (sum(len(t.candidates) for t in self.tests), sum(sum(t.unreadable.values()) for t in self.tests))
        tokens = {"tokens decoded": self.tokens - self.scored_tokens, "tokens scored": self.scored_tokens}
        return {"requests": self.requests, **tokens, "candidates": candidates, "unreadable": unreadable, **cut}

    def result(self) -> dict[str, Any]:
        """See `sttrl.ledger.evaluated.Evaluated.result`."""
        attempts = [[grid_text(grid) for grid in test.attempts] for test in self.tests]
        return {"views": self.views, "attempts": attempts, "candidates": [len(test.candidates) for test in self.tests]}

    def right(self, verdicts: Verdicts) -> bool:
        """Whether every test output is right at the first or the second attempt."""
        return self.score(verdicts).metrics["all_or_nothing"] == 1.0

    def score(self, verdicts: Verdicts) -> Score:
        """The metrics of this task: fractions of its test outputs."""
        attempts_K = [[verdicts.get(answer_text(k, grid)) is True for grid in test.attempts] for k, test in enumerate(self.tests)]
        found_K = [any(verdicts.get(answer_text(k, grid_of(c.grid))) is True for c in test.candidates) for k, test in enumerate(self.tests)]
        solved = sum(map(any, attempts_K)) / len(self.tests)
        metrics: dict[str, float | None] = {
            "kaggle": solved,
            "per_task_mean": solved,
            "all_or_nothing": float(solved == 1),
            "attempt_1": sum(attempts[:1] == [True] for attempts in attempts_K) / len(self.tests),
            "oracle": sum(found_K) / len(self.tests),
        }
        return Score(k=self.views, names=METRICS, metrics=metrics, weight=float(len(self.tests)))

    def score_by_confidence(self, verdicts: Verdicts) -> Score | None:
        """None: the selection is the only vote."""
        return None

    def score_early(self, verdicts: Verdicts) -> Score | None:
        """None: the selection is the only vote."""
        return None

    @property
    def early_tokens(self) -> int | None:
        """None: the selection is the only vote."""
        return None


def answers_of(task: QuestionRecord) -> dict[tuple[str, int], tuple[Grid, ...]]:
    """The attempts at each test input of a finished task; none if no evaluation answered it.

    Where the adapted policy found nothing, such as for lack of time, they are the base's.
    """
    if task.answer_source is None:
        return {}
    first, base = task.polls[task.answer_source].tests, task.polls["base"].tests
    return {(task.id, number): test.attempts or base[number].attempts for number, test in enumerate(first)}


def record_from_json(value: dict[str, Any]) -> TaskRecord:
    """The record of an evaluation from its JSON object."""
    tests = [
        TestRecord(**{**test, "candidates": [CandidateRecord(**candidate) for candidate in test["candidates"]]}) for test in value["tests"]
    ]
    return TaskRecord(**{**value, "tests": tests})
