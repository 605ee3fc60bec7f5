"""What one question scored: its polls and its votes against the verdicts. Pure. docs/metrics.md is the glossary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from typing import Final

from sttrl.report.labels import Grades, Verdicts
from sttrl.run.records import BallotsRecord, FinishedQuestion, PollName, PollRecord, StepRecord
from sttrl.types import QuestionStatus, StopReason

METRICS: Final = ("greedy", "mean@k", "maj@k", "pass@k")
"""What is measured of a poll, by the names they have in summary.json."""


@dataclass(frozen=True, kw_only=True)
class PollScore:
    """One poll of ``k`` samples; ``metrics`` has a share for each name of `METRICS`, None for greedy where it was not asked."""

    k: int
    metrics: dict[str, float | None]

    @property
    def mean(self) -> float:
        """mean@k."""
        value = self.metrics["mean@k"]
        assert value is not None, "every poll has samples"
        return value


@dataclass(frozen=True, kw_only=True)
class VoteScore:
    """One vote. All but ``majority_ratio`` need a label, and are None without."""

    majority_ratio: float
    label_accuracy: float | None
    reward_accuracy: float | None
    ground_truth_ratio: float | None


@dataclass(frozen=True, kw_only=True)
class QuestionScore:
    """One question. A poll is None where there is no label, where it was not taken, or in a run that does not take it."""

    id: str
    status: QuestionStatus
    stop: StopReason | None
    labelled: bool
    base: PollScore | None
    vote_same_tokens: PollScore | None
    adapted: PollScore | None
    votes: tuple[VoteScore, ...]

    def poll(self, name: PollName) -> PollScore | None:
        """The score of a poll by its name."""
        return {"base": self.base, "vote_same_tokens": self.vote_same_tokens, "adapted": self.adapted}[name]

    @property
    def change(self) -> int | None:
        """Sign of adapted less base in mean@k: 1 is won, -1 lost, 0 unchanged."""
        if self.base is None or self.adapted is None:
            return None
        return (self.adapted.mean > self.base.mean) - (self.adapted.mean < self.base.mean)


def score_questions(finished: Sequence[FinishedQuestion], grades: Grades) -> tuple[QuestionScore, ...]:
    """Score every question.

    Where a run adapts, the base poll stands for the adapted one of a question whose adaptation failed or changed nothing,
    and for a vote at the same tokens that was not taken: the base's answer is what such a question reports.
    """
    adapts, votes_more = any(map(_adapts, finished)), any("vote_same_tokens" in q.record.polls for q in finished)
    return tuple(_score(question, grades.of(question.record.id), adapts, votes_more) for question in finished)


def score_poll(poll: PollRecord, verdicts: Verdicts) -> PollScore:
    """Score a poll; the ``k`` samples come first in its ballots, the greedy one last."""
    right_G = right_samples(poll.ballots, verdicts)
    right = sum(right_G[: poll.k])
    return PollScore(k=poll.k, metrics={
        "greedy": float(right_G[poll.k]) if poll.greedy else None,
        "mean@k": right / poll.k,
        "maj@k": float(_is_right(poll.election.answer, verdicts)),
        "pass@k": pass_at_k(poll.k, right, poll.k),
    })  # fmt: skip


def score_vote(step: StepRecord, verdicts: Verdicts | None) -> VoteScore:
    """Score the vote of a step; a reward is accurate when it equals 1 for a right sample and 0 for any other."""
    ratio = step.election.majority_ratio
    right_G = right_samples(step.ballots, verdicts or {})
    if verdicts is None or not right_G:
        return VoteScore(majority_ratio=ratio, label_accuracy=None, reward_accuracy=None, ground_truth_ratio=None)
    accurate = sum(reward == float(right) for reward, right in zip(step.reward_G, right_G, strict=True))
    return VoteScore(
        majority_ratio=ratio,
        label_accuracy=float(_is_right(step.election.answer, verdicts)),
        reward_accuracy=accurate / len(right_G),
        ground_truth_ratio=sum(right_G) / len(right_G),
    )


def right_samples(ballots: BallotsRecord, verdicts: Verdicts) -> tuple[bool, ...]:
    """Whether each sample is right: the verdict of its class's representative; a sample without an answer is wrong."""
    right_C = [_is_right(answer, verdicts) for answer in ballots.representative_C]
    return tuple(c is not None and right_C[c] for c in ballots.class_G)


def pass_at_k(samples: int, right: int, k: int) -> float:
    """Chance that ``k`` of the samples hold a right one, unbiased (arXiv 2107.03374); 0 or 1 where ``k`` is all of them."""
    return 1.0 - comb(samples - right, k) / comb(samples, k)


def _is_right(answer: str | None, verdicts: Verdicts) -> bool:
    return answer is not None and verdicts.get(answer) is True


def _adapts(question: FinishedQuestion) -> bool:
    record = question.record
    return "adapted" in record.polls or record.steps > 0 or record.stop not in (None, "no_adaptation")


def _without_greedy(score: PollScore | None) -> PollScore | None:
    """A vote has no greedy response, nor has a base poll that stands for one."""
    return score and PollScore(k=score.k, metrics={**score.metrics, "greedy": None})


def _score(question: FinishedQuestion, verdicts: Verdicts | None, adapts: bool, votes_more: bool) -> QuestionScore:
    record = question.record
    polls = {} if verdicts is None else {name: score_poll(poll, verdicts) for name, poll in record.polls.items()}
    base = polls.get("base")
    adapted = polls.get("adapted", base) if record.status == "done" else base
    return QuestionScore(
        id=record.id,
        status=record.status,
        stop=record.stop,
        labelled=verdicts is not None,
        base=base,
        vote_same_tokens=_without_greedy(polls.get("vote_same_tokens", base)) if votes_more else None,
        adapted=adapted if adapts else None,
        votes=tuple(score_vote(step, verdicts) for step in question.steps),
    )
