"""Answers, votes, and the steps of a method."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeVar

from sttrl.types.problems import Group, Rollout
from sttrl.types.statistics import TokenStats
from sttrl.types.training import UpdateStats

T = TypeVar("T")
AnswerKind = Literal["math", "number", "choice"]
"""How an answer is read from text: a mathematical object, a number (the last one counts), or a choice letter."""

Invalid = Literal["unparsable", "cut", "too_long", "timeout", "error"]
"""Why a sample has no answer: nothing found, cut at the token limit, rejected by static limits, or the judge gave up."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one sample answered: ``text`` is the normal form, or None with the reason in ``invalid``."""

    text: str | None
    invalid: Invalid | None = None

    def __post_init__(self) -> None:
        assert (self.text is None) == (self.invalid is not None), "an answer has a text or a reason, never both"


@dataclass(frozen=True, kw_only=True)
class Ballots:
    """The answers of a group and their equivalence classes.

    ``class_G``: class index of each sample, or None where the sample has no answer.
    ``representative_C``: normal form of the first member of each class, in order of first appearance.
    ``stats_G``: token statistics of each sample, where a vote weighs samples by them. ``reward_G``: what the kind of problem gives each
    sample, where it knows the right answer without a label, such as that of a held-out demonstration; None: it does not. ``view_G``: the
    number of the view that each sample answers; None: the problem is asked in one way only. Answers are those of the plain problem.
    ``reasoning_step_GT``: the number of the reasoning step that each token is in, from 0, where a vote reads it.
    """

    answer_G: tuple[Answer, ...]
    class_G: tuple[int | None, ...]
    representative_C: tuple[str, ...]
    stats_G: tuple[TokenStats, ...] | None = None
    reward_G: tuple[float, ...] | None = None
    view_G: tuple[int, ...] | None = None
    reasoning_step_GT: tuple[tuple[int, ...], ...] | None = None

    def of_samples(self, numbers: Iterable[int]) -> Ballots:
        """The ballots of some samples, in this order. The classes keep their numbers."""
        chosen = tuple(numbers)

        def pick(value_G: tuple[T, ...] | None) -> tuple[T, ...] | None:
            return None if value_G is None else tuple(value_G[i] for i in chosen)

        return Ballots(
            answer_G=tuple(self.answer_G[i] for i in chosen),
            class_G=tuple(self.class_G[i] for i in chosen),
            representative_C=self.representative_C,
            stats_G=pick(self.stats_G),
            reward_G=pick(self.reward_G),
            view_G=pick(self.view_G),
            reasoning_step_GT=pick(self.reasoning_step_GT),
        )


@dataclass(frozen=True, kw_only=True)
class Election:
    """The result of a vote over equivalence classes.

    ``winner``: class index, or None when the vote abstains (nobody voted, or a tie under the abstaining policy).
    ``share_C``: each class's share of the vote weight. The shares sum to 1, or are all 0 if nobody voted.
    ``margin``: the winner's share minus the runner-up's; 0 in a tie.
    ``in_winner_G``: 1.0 for a sample in the winning class, else 0.0.
    ``majority_ratio``: samples in the winning class over all samples, including those without an answer (arXiv 2504.16084).
    """

    winner: int | None
    answer: str | None
    share_C: tuple[float, ...]
    count_C: tuple[int, ...]
    margin: float
    tied_C: tuple[int, ...] = ()
    voters: int
    samples: int
    in_winner_G: tuple[float, ...]
    majority_ratio: float

    @property
    def abstains(self) -> bool:
        """Nobody won."""
        return self.winner is None

    @property
    def unanimous(self) -> bool:
        """Every sample is in the winning class; a sample without an answer is not."""
        return self.winner is not None and all(a == 1.0 for a in self.in_winner_G)


StopReason = Literal[
    "unanimous", "unparsable", "tie", "agreement", "kl_budget", "flip_rate", "steps", "time", "no_rows", "stored", "no_adapter",
    "no_adaptation",
]  # fmt: skip
"""Why adapting stopped; docs/run.md explains each. ``agreement``: ``--stop_agreement`` was reached."""

GateReason = Literal["margin", "agreement", "risk", "too_long"]
"""What prevented an update: ``--min_margin``, ``--min_agreement``, ``--guard rcsu``; no row of the step fits into the model's context."""


@dataclass(frozen=True, kw_only=True)
class HeldVote:
    """The samples of a step, their answers, and the result of the vote.

    ``election``: the result of the run's voting function. ``majority``: the result of the majority vote over the same answers.
    ``greedy``: a greedy response, if the advantage estimator needs one (ReMax); ``baseline`` is its reward. ``weight``: what the
    advantages of the samples are multiplied by; None: by 1. ``bonus_G``: what is then added to the advantages of each sample, in units of
    their mean absolute value over the samples that are trained on. ``risky``: the update on this question is left out.
    """

    group: Group
    ballots: Ballots
    election: Election
    majority: Election
    reward_G: tuple[float, ...]
    greedy: Rollout | None = None
    baseline: float | None = None
    weight: float | None = None
    bonus_G: tuple[float, ...] | None = None
    risky: bool = False

    @property
    def n_tokens(self) -> int:
        """Response tokens sampled for this vote."""
        return self.group.n_tokens + (len(self.greedy.token_T) if self.greedy is not None else 0)

    @property
    def elected(self) -> dict[str, Rollout]:
        """The different texts of the elected answer, each with a sample that gave it; empty if the vote abstains."""
        judged = zip(self.ballots.answer_G, self.ballots.class_G, self.group.rollout_G, strict=True)
        return {answer.text: r for answer, c, r in judged if answer.text is not None and c == self.election.winner}


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of a method: the vote it held, if it held one, and the update that followed (None: none did).

    ``gate``: the gate that prevented the update, if one did.
    """

    index: int
    version: int
    vote: HeldVote | None
    update: UpdateStats | None
    gate: GateReason | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Why the adaptation to one question stopped."""

    stop: StopReason


QuestionStatus = Literal["done", "failed", "diverged", "oom"]
