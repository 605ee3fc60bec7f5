"""summary.json, computed from the journal, the verdicts and the seconds. docs/metrics.md explains every key."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any, Final

from sttrl.ledger.evaluated import MetricNames, Score
from sttrl.ledger.records import FinishedQuestion
from sttrl.objectives.rewards import teach_nothing
from sttrl.report.labels import Grades
from sttrl.report.metrics import ROW_NAMES, QuestionScore, RowName, VoteScore, by_first_vote, score_questions, values_of
from sttrl.report.over_time import over_time
from sttrl.report.statistics import Interval, interval_of_mean, weighed
from sttrl.types import GateReason

SUMMARY_SCHEMA: Final = 2

_VOTE_GATES: Final[tuple[GateReason, ...]] = ("margin", "agreement", "risk")
_VOTE_METRICS: Final = ("label_accuracy", "majority_label_accuracy", "reward_accuracy", "majority_ratio", "ground_truth_ratio")


def summarise(
    finished: Sequence[FinishedQuestion], grades: Grades, seconds: Mapping[str, float], config: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The summary of a run. A block that does not exist (no labels, no adaptation) is None, and so is a mean over no questions.

    ``config``: the content of config.json, which says whether votes could end early, and how many views were wanted.
    """
    scores = score_questions(finished, grades)
    return {
        "schema": SUMMARY_SCHEMA,
        "metrics": _names(finished),
        **{name: _poll_block(scores, name) for name in ROW_NAMES},
        "gain": _gain_block(scores),
        "questions": _questions(finished, scores),
        **_last_votes(scores),
        "first_vote": _votes([score.votes[0] for score in scores if score.votes]),
        "by_first_vote": _by_first_vote(scores),
        "flip_rate": _mean([score.flip_rate for score in scores if score.flip_rate is not None]),
        "votes": _vote_counts(finished, str((config or {}).get("adv_estimator"))),
        "saved": _saved(finished, config or {}),
        "views": _views(finished, config or {}),
        "over_time": over_time(finished, grades, scores),
        "timeouts": grades.timeouts,
        "tokens": _tokens(finished),
        "counts": _counts(finished),
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
    }


def _poll_block(scores: Sequence[QuestionScore], name: RowName) -> dict[str, Any] | None:
    polls = [poll for score in scores if (poll := score.row(name)) is not None]
    if not polls:
        return None
    names = polls[0].names
    value_P = {metric: values_of(polls, metric) for metric in names.all}
    means = {metric: _mean(value_P[metric]) for metric in names.all}
    interval = {metric: interval_of_mean(value_P[metric], highest=_highest(names, metric)) for metric in names.all}
    return _block(fmean(poll.k for poll in polls), len(polls), means, interval, names.headline)


def _gain_block(scores: Sequence[QuestionScore]) -> dict[str, Any] | None:
    """Adapted minus base, over the questions that have both."""
    pairs = [(score.base, score.adapted) for score in scores if score.base is not None and score.adapted is not None]
    if not pairs:
        return None
    names = pairs[0][0].names
    gain_P = {metric: _gains(pairs, metric) for metric in names.all}
    value = {metric: _mean(gain_P[metric]) for metric in names.all}
    ends = {metric: _highest(names, metric) for metric in names.all}
    interval = {metric: interval_of_mean(gain_P[metric], lowest=-ends[metric], highest=ends[metric]) for metric in names.all}
    return _block(fmean(adapted.k for _, adapted in pairs), len(pairs), value, interval, names.headline)


def _highest(names: MetricNames, metric: str) -> float:
    """The highest value that a metric can have."""
    return math.inf if metric in names.unbounded else 1.0


def _gains(pairs: Sequence[tuple[Score, Score]], metric: str) -> list[float]:
    """The differences of a metric where both are known, made as `values_of` does."""
    values = [(base.metrics[metric], adapted.metrics[metric], base.weight) for base, adapted in pairs]
    known = [(after - before, weight) for before, after, weight in values if before is not None and after is not None]
    gains = [gain for gain, _ in known]
    return weighed(gains, [weight for _, weight in known]) if metric in pairs[0][0].names.weighted else gains


def _names(finished: Sequence[FinishedQuestion]) -> dict[str, Any] | None:
    """The metrics of the run's kind of problem; None if nothing was evaluated."""
    names = next((poll.names for question in finished for poll in question.record.polls.values()), None)
    return None if names is None else {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(names).items()}


def _block(k: float, questions: int, value: dict[str, float | None], interval: dict[str, Interval | None], headline: str) -> dict[str, Any]:
    ends = {metric: None if both is None else [both.low, both.high] for metric, both in interval.items()}
    return {"k": int(k) if k == int(k) else round(k, 2), "questions": questions, **value, "ci95": ends[headline], "ci95_by_metric": ends}


def _questions(finished: Sequence[FinishedQuestion], scores: Sequence[QuestionScore]) -> dict[str, Any]:
    changes = Counter(score.change for score in scores if score.change is not None)
    statuses = Counter(score.status for score in scores)
    return {
        "total": len(scores),
        "graded": sum(score.base is not None for score in scores),
        "unlabelled": sum(not score.labelled for score in scores),
        "unpolled": sum("base" not in question.record.polls for question in finished),
        **{name: changes[sign] if changes else None for name, sign in (("won", 1), ("lost", -1), ("unchanged", 0))},
        **{status: statuses[status] for status in ("done", "failed", "diverged", "oom")},
        "stops": dict(sorted(Counter(score.stop for score in scores if score.stop is not None).items())),
        "ids_sha256": _digest(question.record.id for question in finished),
    }


def _digest(ids: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(sorted(ids)).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _last_votes(scores: Sequence[QuestionScore]) -> dict[str, float | None]:
    return _votes([score.votes[-1] for score in scores if score.votes])


def _votes(votes: Sequence[VoteScore]) -> dict[str, float | None]:
    value_P = {name: [getattr(vote, name) for vote in votes] for name in _VOTE_METRICS}
    return {name: _mean([value for value in values if value is not None]) for name, values in value_P.items()}


def _by_first_vote(scores: Sequence[QuestionScore]) -> dict[str, Any] | None:
    found = {name: asdict(by_first_vote(scores, right)) for name, right in (("right", True), ("wrong", False))}
    return found if any(block["questions"] for block in found.values()) else None


def _vote_counts(finished: Sequence[FinishedQuestion], estimator: str) -> dict[str, Any]:
    """The number of votes in all steps, of those whose rewards teach nothing, and of those after which a gate prevented the update."""
    steps = [step for question in finished for step in question.steps]
    gates = Counter(step.gate for step in steps)
    alike = sum(step.election is not None and teach_nothing(step.reward_G, estimator) for step in steps)
    return {
        "held": sum(step.election is not None for step in steps),
        "equal_rewards": alike,
        "gated": {gate: gates[gate] for gate in _VOTE_GATES},
    }


def _saved(finished: Sequence[FinishedQuestion], config: Mapping[str, Any]) -> dict[str, int | None] | None:
    """The samples that votes did not draw because they were decided, and the tokens of these at the mean length of their vote's samples;
    and what the votes with the same tokens took, and would have taken.

    None if votes could not end early.
    """
    if config.get("votes_until") is None:
        return None
    votes = [(step.election.samples, step.tokens_sampled) for question in finished for step in question.steps if step.election is not None]
    left_G = [max(0, config["n_votes"] - drawn) for drawn, _ in votes]
    tokens = sum(left * tokens / drawn for left, (drawn, tokens) in zip(left_G, votes, strict=True))
    polls = [poll for question in finished for poll in question.record.polls.values()]
    early = [(poll.tokens, poll.early_tokens) for poll in polls if poll.early_tokens is not None]
    took, needed = (sum(column) for column in zip(*early, strict=True)) if early else (None, None)
    return {"samples": sum(left_G), "tokens": round(tokens), "vote_tokens": took, "early_vote_tokens": needed}


def _views(finished: Sequence[FinishedQuestion], config: Mapping[str, Any]) -> dict[str, int] | None:
    """How many views of each question were wanted, and how many questions were asked under fewer; None if all are asked in one way."""
    polls = [question.record.polls.get("base") for question in finished]
    asked = [1 + max(poll.ballots.view_G) for poll in polls if poll is not None and poll.ballots.view_G]
    wanted = config.get("question_views") or 1
    return {"wanted": wanted, "fewer": sum(count < wanted for count in asked)} if wanted > 1 and asked else None


def _tokens(finished: Sequence[FinishedQuestion]) -> dict[str, int]:
    records = [question.record for question in finished]
    return {
        "sampled": sum(record.tokens_sampled for record in records),
        "trained": sum(record.tokens_trained for record in records),
        "evaluated": sum(record.tokens_evaluated for record in records),
    }


def _counts(finished: Sequence[FinishedQuestion]) -> dict[str, int]:
    """What all evaluations took besides tokens, by name."""
    total = Counter[str]()
    for question in finished:
        for poll in question.record.polls.values():
            total.update(poll.counts)
    return dict(sorted(total.items()))


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None
