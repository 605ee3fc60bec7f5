"""What a reader of the journal knows of an evaluation, whatever its kind of problem: its answers, and how verdicts score it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from sttrl.ledger.records import BallotsRecord

Verdicts = Mapping[str, bool | None]
"""By representative answer: right, wrong, or None where there is no verdict (which counts as wrong)."""


@dataclass(frozen=True, kw_only=True)
class MetricNames:
    """The metrics of a kind of problem: ``all`` in the order of a table; ``headline``, whose interval decides; those ``paired`` by problem
    when runs are compared."""

    all: tuple[str, ...]
    headline: str
    paired: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Score:
    """One evaluation of ``k`` samples; ``metrics`` has a value in [0, 1] for each of ``names``, None where it was not measured."""

    k: int
    names: MetricNames
    metrics: dict[str, float | None]

    @property
    def headline(self) -> float:
        """The metric that decides, such as mean@k."""
        value = self.metrics[self.names.headline]
        assert value is not None, "every evaluation has samples"
        return value


class Evaluated(Protocol):
    """An evaluation as its kind records it: a frozen dataclass of plain values."""

    @property
    def names(self) -> MetricNames:
        """What is measured of it."""
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
        """What the policy answers; None where it has no answer."""
        ...

    def result(self) -> dict[str, Any]:
        """What results.jsonl says of it."""
        ...

    def score(self, verdicts: Verdicts) -> Score:
        """How it scores by the verdicts on its answers."""
        ...

    def score_by_confidence(self, verdicts: Verdicts) -> Score | None:
        """How it scores where each sample's vote is weighed by its confidence; None for a kind without such a vote."""
        ...


def right_samples(ballots: BallotsRecord, verdicts: Verdicts) -> tuple[bool, ...]:
    """Whether each sample is right: the verdict of its class's representative; a sample without an answer is wrong."""
    right_C = [is_right(answer, verdicts) for answer in ballots.representative_C]
    return tuple(c is not None and right_C[c] for c in ballots.class_G)


def is_right(answer: str | None, verdicts: Verdicts) -> bool:
    """Whether an answer is right; one without a verdict is wrong."""
    return answer is not None and verdicts.get(answer) is True
