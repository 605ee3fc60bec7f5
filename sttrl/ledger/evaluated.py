"""What every kind of problem records of an evaluation: the answers, and how to score them with verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from sttrl.ledger.records import BallotsRecord

Verdicts = Mapping[str, bool | None]
"""For each representative answer: True if it is right, False if it is wrong, None if there is no verdict (it counts as wrong)."""


@dataclass(frozen=True, kw_only=True)
class MetricNames:
    """The metrics of a kind of problem. ``all``: in the order of a table. ``headline``: the main one. ``paired``: those that are compared
    problem by problem between runs. ``weighted``: those whose mean counts a problem as often as its `Score.weight` says. ``unbounded``:
    those without a highest value, such as a loss; the values of the others are in [0, 1].

    ``has_baseline``: a problem is one prompt, so that the base can vote with the tokens that adapting took, and successive votes can be
    compared.
    """

    all: tuple[str, ...]
    headline: str
    paired: tuple[str, ...]
    weighted: tuple[str, ...] = ()
    unbounded: tuple[str, ...] = ()
    has_baseline: bool = True

    @property
    def main(self) -> str:
        """The metric whose plain mean over the problems tells most: the headline, or if that is weighted the first one that is not."""
        return next(metric for metric in (self.headline, *self.paired) if metric not in self.weighted)


@dataclass(frozen=True, kw_only=True)
class Score:
    """One evaluation of ``k`` samples; ``metrics`` has a value for each of ``names``, None where it was not measured.

    ``weight``: of the problem in the means of ``names.weighted``, such as the number of its test outputs.
    """

    k: int
    names: MetricNames
    metrics: dict[str, float | None]
    weight: float = 1.0

    @property
    def headline(self) -> float:
        """The value of the main metric, such as mean@k."""
        value = self.metrics[self.names.headline]
        assert value is not None, "every evaluation has samples"
        return value


class Evaluated(Protocol):
    """The record of an evaluation, made by its kind of problem: a frozen dataclass of plain values."""

    @property
    def names(self) -> MetricNames:
        """The metrics of this kind of problem."""
        ...

    @property
    def ballots(self) -> BallotsRecord:
        """The judged answers."""
        ...

    @property
    def tokens(self) -> int:
        """Response tokens."""
        ...

    @property
    def answer(self) -> str | None:
        """The policy's answer; None if it has none."""
        ...

    @property
    def counts(self) -> dict[str, int]:
        """What the evaluation took besides tokens, by name, such as requests; the report adds it up."""
        ...

    def result(self) -> dict[str, Any]:
        """The fields that go into results.jsonl."""
        ...

    def right(self, verdicts: Verdicts) -> bool | None:
        """Whether the answer is right, as a whole; None for a kind without right answers."""
        ...

    def score(self, verdicts: Verdicts) -> Score:
        """The metrics, given the verdicts on the answers."""
        ...

    def score_by_confidence(self, verdicts: Verdicts) -> Score | None:
        """The same with a vote that weighs each sample by its confidence; None for a kind without such a vote."""
        ...

    def score_early(self, verdicts: Verdicts) -> Score | None:
        """The metrics of the first samples, as many as a vote in rounds needs; None if no such vote was held."""
        ...

    @property
    def early_tokens(self) -> int | None:
        """Response tokens of these samples."""
        ...


def right_samples(ballots: BallotsRecord, verdicts: Verdicts) -> tuple[bool, ...]:
    """Whether each sample is right: the verdict of its class's representative; a sample without an answer is wrong."""
    right_C = [is_right(answer, verdicts) for answer in ballots.representative_C]
    return tuple(c is not None and right_C[c] for c in ballots.class_G)


def is_right(answer: str | None, verdicts: Verdicts) -> bool:
    """Whether an answer is right; one without a verdict is wrong."""
    return answer is not None and verdicts.get(answer) is True
