"""The progress of a policy that is trained on all questions: its evaluations and its votes by training step."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, Final

from sttrl.ledger.evaluated import Evaluated
from sttrl.ledger.records import FinishedQuestion
from sttrl.report.labels import Grades
from sttrl.report.metrics import QuestionScore, VoteScore, values_of

SHOWN: Final = 2
"""How many metrics of an evaluation are shown: the first ones of those that are compared between runs."""
VOTED: Final = ("label_accuracy", "reward_accuracy", "majority_ratio")
"""The metrics of the votes of a step."""


def over_time(finished: Sequence[FinishedQuestion], grades: Grades, scores: Sequence[QuestionScore]) -> list[dict[str, Any]] | None:
    """A row for each training step, in order; None if no question was evaluated between two steps.

    Row n is about the policy after n steps (0: the base; the last: the adapted policy): its evaluation on ``questions`` questions, and the
    ``votes`` of the step that followed. A mean over nothing is None.
    """
    if not any(question.evaluations for question in finished):
        return None
    evaluations, votes = _evaluations(finished), _votes(scores)
    metrics = next(((*poll.names.unbounded, *poll.names.paired[:SHOWN]) for polls in evaluations.values() for poll in polls.values()), ())
    return [_row(step, metrics, evaluations.get(step, {}), votes.get(step, []), grades) for step in sorted({*evaluations, *votes})]


def _evaluations(finished: Sequence[FinishedQuestion]) -> dict[int, dict[str, Evaluated]]:
    """Step -> question -> evaluation. The base poll is at step 0, the adapted poll at the last step."""
    end = _steps_taken(finished)
    found: dict[int, dict[str, Evaluated]] = defaultdict(dict)
    for question in finished:
        polls = question.record.polls
        ends = [(step, polls[name]) for step, name in ((0, "base"), (end, "adapted")) if name in polls]
        for step, poll in (*ends, *((evaluation.step, evaluation.poll) for evaluation in question.evaluations)):
            found[step][question.record.id] = poll
    return found


def _steps_taken(finished: Sequence[FinishedQuestion]) -> int:
    steps = [step.step + 1 for question in finished for step in question.steps]
    counted = [question.record.steps for question in finished]
    return max([*steps, *counted, *(evaluation.step for question in finished for evaluation in question.evaluations)])


def _votes(scores: Sequence[QuestionScore]) -> dict[int, list[VoteScore]]:
    found: dict[int, list[VoteScore]] = defaultdict(list)
    for vote in (vote for score in scores for vote in score.votes):
        found[vote.step].append(vote)
    return found


def _row(step: int, metrics: Sequence[str], polls: Mapping[str, Evaluated], votes: Sequence[VoteScore], grades: Grades) -> dict[str, Any]:
    scored = [poll.score(verdicts) for name, poll in polls.items() if (verdicts := grades.of(name)) is not None]
    return {
        "step": step,
        "questions": len(polls),
        "votes": len(votes),
        **{metric: _mean(values_of(scored, metric)) for metric in metrics},
        **{name: _mean([getattr(vote, name) for vote in votes]) for name in VOTED},
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
