"""The scores of one question: its polls and votes, compared with the verdicts. Pure functions. docs/metrics.md explains the metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import fmean
from typing import Final, Literal

from sttrl.ledger.evaluated import Evaluated, Score, Verdicts, is_right, right_samples
from sttrl.ledger.records import FinishedQuestion, StepRecord
from sttrl.report.labels import Grades
from sttrl.report.statistics import weighed
from sttrl.types import QuestionStatus, StopReason

RowName = Literal["base", "vote_same_tokens", "confidence_same_tokens", "early_same_tokens", "adapted"]
ROW_NAMES: Final[tuple[RowName, ...]] = ("base", "vote_same_tokens", "confidence_same_tokens", "early_same_tokens", "adapted")
"""The rows of the table: the polls, and the vote with the same tokens twice more: with each sample weighed by its confidence, and in
rounds that end early."""


@dataclass(frozen=True, kw_only=True)
class VoteScore:
    """The score of the vote of ``step``. All numbers except ``majority_ratio`` need a label; without one they are None.

    They are None also if no label is about the answers. ``majority_label_accuracy`` is that of the majority vote over the same ballots.
    ``reward_accuracy`` is None also if some reward is neither 0 nor 1.
    """

    step: int
    majority_ratio: float
    label_accuracy: float | None
    majority_label_accuracy: float | None
    reward_accuracy: float | None
    ground_truth_ratio: float | None


@dataclass(frozen=True, kw_only=True)
class QuestionScore:
    """The score of one question. The score of a poll is None without a label, and if the poll was not made.

    ``flip_rate``: see `flip_rate`; it needs no label.
    """

    id: str
    status: QuestionStatus
    stop: StopReason | None
    labelled: bool
    base: Score | None
    vote_same_tokens: Score | None
    confidence_same_tokens: Score | None
    early_same_tokens: Score | None
    adapted: Score | None
    votes: tuple[VoteScore, ...]
    flip_rate: float | None

    def row(self, name: RowName) -> Score | None:
        """The question's score for a row of the table."""
        score: Score | None = getattr(self, name)
        return score

    @property
    def first_vote(self) -> bool | None:
        """Whether the first vote elected the right answer; None if there was no vote or there is no label."""
        accuracy = self.votes[0].label_accuracy if self.votes else None
        return None if accuracy is None else bool(accuracy)

    @property
    def final(self) -> Score | None:
        """The score of the final policy: the adapted one, or the base in a run that does not adapt."""
        return self.adapted or self.base

    @property
    def change(self) -> int | None:
        """1 if the headline metric is higher after adapting (won), -1 if it is lower (lost), 0 if it is unchanged."""
        if self.base is None or self.adapted is None:
            return None
        return (self.adapted.headline > self.base.headline) - (self.adapted.headline < self.base.headline)


@dataclass(frozen=True, kw_only=True)
class FirstVotes:
    """The number of questions whose first vote was right (or was not), and their mean headline metric before and after adapting."""

    questions: int
    base: float | None
    adapted: float | None


def score_questions(finished: Sequence[FinishedQuestion], grades: Grades) -> tuple[QuestionScore, ...]:
    """Score every question.

    In a run that adapts, the base poll is used in place of the adapted poll for a question whose adaptation failed, because such a question
    reports the base's answer. It is also used in place of a vote with the same tokens that was not made.
    """
    run = _Run(
        adapts=any(map(_adapts, finished)),
        votes_more=any("vote_same_tokens" in question.record.polls for question in finished),
        ends_early=any(poll.early_tokens is not None for question in finished for poll in question.record.polls.values()),
        binary=all(reward in (0.0, 1.0) for question in finished for step in question.steps for reward in step.reward_G),
    )
    return tuple(_score(question, grades.of(question.record.id), run) for question in finished)


def by_first_vote(scores: Sequence[QuestionScore], right: bool) -> FirstVotes:
    """The questions whose first vote was right or, if ``right`` is False, elected another answer or none."""
    chosen = [score for score in scores if score.first_vote is right]
    pairs = [(score.base.headline, score.adapted.headline) for score in chosen if score.base is not None and score.adapted is not None]
    if not pairs:
        return FirstVotes(questions=0, base=None, adapted=None)
    return FirstVotes(questions=len(pairs), base=fmean(before for before, _ in pairs), adapted=fmean(after for _, after in pairs))


def score_vote(step: StepRecord, verdicts: Verdicts | None, binary: bool = True) -> VoteScore | None:
    """Score the vote of a step; None if it held none.

    A reward is accurate if it is 1 for a right sample and 0 for any other. ``binary``: all rewards of the run are 0 or 1.
    """
    if step.ballots is None or step.election is None or step.majority is None:
        return None
    right_G = right_samples(step.ballots, verdicts or {})
    answers = step.ballots.representative_C
    about_a_label = verdicts is not None and (not answers or any(answer in verdicts for answer in answers))
    judged = verdicts if right_G and about_a_label else None
    return VoteScore(
        step=step.step,
        majority_ratio=step.election.majority_ratio,
        label_accuracy=None if judged is None else float(is_right(step.election.answer, judged)),
        majority_label_accuracy=None if judged is None else float(is_right(step.majority.answer, judged)),
        reward_accuracy=None if judged is None or not binary else _reward_accuracy(step.reward_G, right_G),
        ground_truth_ratio=None if judged is None else sum(right_G) / len(right_G),
    )


def flip_rate(steps: Sequence[StepRecord]) -> float | None:
    """The fraction of consecutive pairs of votes that elected different answers; None for fewer than two votes.

    Two answers are equal if they are in one class in either vote. Abstaining counts as an answer that differs from all others.
    """
    elected = [texts for step in steps if (texts := step.elected) is not None]
    flips = [before != after and before.isdisjoint(after) for before, after in pairwise(elected)]
    return sum(flips) / len(flips) if flips else None


def _reward_accuracy(reward_G: Sequence[float], right_G: Sequence[bool]) -> float | None:
    if not reward_G:
        return None
    return sum(reward == float(right) for reward, right in zip(reward_G, right_G, strict=True)) / len(right_G)


def _adapts(question: FinishedQuestion) -> bool:
    record = question.record
    return "adapted" in record.polls or record.steps > 0 or record.stop not in (None, "no_adaptation")


def _without_greedy(score: Score | None) -> Score | None:
    """The score without the greedy metric: a vote has no greedy response."""
    return score and replace(score, metrics={**score.metrics, **({"greedy": None} if "greedy" in score.metrics else {})})


@dataclass(frozen=True, kw_only=True)
class _Run:
    """Facts about the whole run that the score of each question needs: it adapts, it votes with the same tokens, it also does so in
    rounds that end early, all rewards are 0 or 1."""

    adapts: bool
    votes_more: bool
    ends_early: bool
    binary: bool


def _score(question: FinishedQuestion, verdicts: Verdicts | None, run: _Run) -> QuestionScore:
    record = question.record
    polls = {} if verdicts is None else {name: poll.score(verdicts) for name, poll in record.polls.items()}
    base = polls.get("base")
    adapted = polls.get("adapted", base) if record.status == "done" else base
    return QuestionScore(
        id=record.id,
        status=record.status,
        stop=record.stop,
        labelled=verdicts is not None,
        base=base,
        vote_same_tokens=_without_greedy(polls.get("vote_same_tokens", base)) if run.votes_more else None,
        confidence_same_tokens=_confidence(record.polls, verdicts) if run.votes_more else None,
        early_same_tokens=_early(record.polls, verdicts) if run.ends_early else None,
        adapted=adapted if run.adapts else None,
        votes=tuple(vote for step in question.steps if (vote := score_vote(step, verdicts, run.binary)) is not None),
        flip_rate=flip_rate(question.steps) if all(poll.names.has_baseline for poll in record.polls.values()) else None,
    )


def _confidence(polls: Mapping[str, Evaluated], verdicts: Verdicts | None) -> Score | None:
    """The vote with the same tokens, by confidence; if it was not made, that of the base poll."""
    poll = polls.get("vote_same_tokens", polls.get("base"))
    return None if poll is None or verdicts is None else _without_greedy(poll.score_by_confidence(verdicts))


def _early(polls: Mapping[str, Evaluated], verdicts: Verdicts | None) -> Score | None:
    """The vote with the same tokens, in rounds that end early; if it was not made, all samples of the base poll."""
    poll = polls.get("vote_same_tokens", polls.get("base"))
    return None if poll is None or verdicts is None else _without_greedy(poll.score_early(verdicts) or poll.score(verdicts))


def values_of(polls: Sequence[Score], metric: str) -> list[float]:
    """The known values of a metric, made so that their plain mean is its mean."""
    known = [(value, poll.weight) for poll in polls if (value := poll.metrics[metric]) is not None]
    values = [value for value, _ in known]
    return weighed(values, [weight for _, weight in known]) if known and metric in polls[0].names.weighted else values
