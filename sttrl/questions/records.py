"""A poll: the evaluation of a policy on a text question, what the journal holds of it, and how it scores."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import comb
from typing import Any, ClassVar, Literal

from sttrl.ledger.evaluated import MetricNames, Score, Verdicts, is_right, right_samples
from sttrl.ledger.records import BallotsRecord, ElectionRecord
from sttrl.types import Ballots, Election, Group, Rollout, Sampling, TokenStats

PollName = Literal["base", "vote_same_tokens", "adapted"]
POLL_NAMES: tuple[PollName, ...] = ("base", "vote_same_tokens", "adapted")

METRICS = MetricNames(all=("greedy", "mean@k", "maj@k", "pass@k"), headline="mean@k", paired=("mean@k", "maj@k", "greedy"))
"""The metrics of a poll; docs/metrics.md explains them."""


@dataclass(frozen=True, kw_only=True)
class Poll:
    """An evaluation of one policy on one question: ``k`` samples and, where asked for, a greedy response.

    ``ballots``: the judged samples and, last, the greedy response. ``election``: the majority vote over the samples only.
    ``confidence``: the vote that weighs each sample by exp of its mean log-prob. ``early``: the majority vote in rounds over the first
    of the samples, where it is asked for. ``view_key_V``: the names of the views over which the samples are spread; none: the question
    is asked in one way only.
    """

    sampling: Sampling
    group: Group
    greedy: Rollout | None
    ballots: Ballots
    election: Election
    confidence: Election
    view_key_V: tuple[str, ...] = ()
    early: Election | None = None

    @property
    def votes(self) -> Ballots:
        """The ballots of the samples."""
        return votes_of(self.ballots, self.group)

    @property
    def rollout_G(self) -> tuple[Rollout, ...]:
        """The samples and, last, the greedy response."""
        return (*self.group.rollout_G, *((self.greedy,) if self.greedy else ()))


def votes_of(ballots: Ballots, group: Group) -> Ballots:
    """The ballots of a group, which come first in ``ballots``, with the log-probs of their tokens."""
    stats_G = tuple(TokenStats(logprob_T=r.logprob_T) for r in group.rollout_G)
    return replace(ballots.of_samples(range(len(stats_G))), stats_G=stats_G)


@dataclass(frozen=True, kw_only=True)
class PollRecord:
    """An evaluation of one policy on one question.

    ``k`` samples at ``temperature`` and ``top_p``; ``ballots`` holds those ``k`` and, when ``greedy``, one more: the
    greedy response, last. ``election`` (the majority vote) and ``confidence`` (weighed by exp of the mean log-prob) are over the ``k``
    samples only. ``tokens`` counts every response token. ``early``: the majority vote in rounds over the first of the samples, which
    have ``early_tokens``; None if votes could not end early.
    """

    k: int
    greedy: bool
    temperature: float
    top_p: float
    max_tokens: int
    version: int
    ballots: BallotsRecord
    election: ElectionRecord
    confidence: ElectionRecord
    tokens: int
    early: ElectionRecord | None = None
    early_tokens: int | None = None

    names: ClassVar[MetricNames] = METRICS

    @property
    def answer(self) -> str | None:
        """The policy's answer: what the majority vote elects, or the greedy answer if the vote abstains."""
        if self.election.answer is not None or not self.greedy:
            return self.election.answer
        greedy_class = self.ballots.class_G[-1]
        return None if greedy_class is None else self.ballots.representative_C[greedy_class]

    @property
    def counts(self) -> dict[str, int]:
        """Nothing but tokens."""
        return {}

    def result(self) -> dict[str, Any]:
        """See `sttrl.ledger.evaluated.Evaluated.result`."""
        vote = self.election
        return {"k": self.k, "answer": vote.answer, "majority_ratio": vote.majority_ratio, "margin": vote.margin}

    def right(self, verdicts: Verdicts) -> bool:
        """The verdict on the answer."""
        return is_right(self.answer, verdicts)

    def score(self, verdicts: Verdicts) -> Score:
        """The metrics, with maj@k by the majority vote."""
        return self._score(self.election, verdicts)

    def score_by_confidence(self, verdicts: Verdicts) -> Score:
        """The metrics, with maj@k by the confidence vote."""
        return self._score(self.confidence, verdicts)

    def score_early(self, verdicts: Verdicts) -> Score | None:
        """The metrics of the samples that the majority vote in rounds needs; None if it was not held."""
        return None if self.early is None else self._score(self.early, verdicts)

    def _score(self, election: ElectionRecord, verdicts: Verdicts) -> Score:
        """The samples come first in the ballots, the greedy response last; the election is over the first of the samples, or all."""
        right_G, k = right_samples(self.ballots, verdicts), election.samples
        right = sum(right_G[:k])
        metrics = {
            "greedy": float(right_G[self.k]) if self.greedy else None,
            "mean@k": right / k,
            "maj@k": float(is_right(election.answer, verdicts)),
            "pass@k": pass_at_k(k, right, k),
        }
        return Score(k=k, names=self.names, metrics=metrics)

    @classmethod
    def of(cls, poll: Poll) -> PollRecord:
        """The record of a poll."""
        early = poll.early
        return cls(
            k=len(poll.group.rollout_G),
            greedy=poll.greedy is not None,
            temperature=poll.sampling.temperature,
            top_p=poll.sampling.top_p,
            max_tokens=poll.sampling.max_tokens,
            version=poll.rollout_G[0].version,
            ballots=BallotsRecord.of(poll.ballots),
            election=ElectionRecord.of(poll.election),
            confidence=ElectionRecord.of(poll.confidence),
            tokens=sum(len(r.token_T) for r in poll.rollout_G),
            early=None if early is None else ElectionRecord.of(early),
            early_tokens=None if early is None else sum(len(r.token_T) for r in poll.rollout_G[: early.samples]),
        )


def poll_from_json(value: dict[str, Any]) -> PollRecord:
    """The record of a poll from its JSON object."""
    elections = {name: ElectionRecord(**value[name]) for name in ("election", "confidence", "early") if value.get(name) is not None}
    return PollRecord(**{**value, "ballots": BallotsRecord(**value["ballots"]), **elections})


def pass_at_k(samples: int, right: int, k: int) -> float:
    """Unbiased estimate of the probability that at least one of ``k`` samples is right (arXiv 2107.03374); 0 or 1 if ``k == samples``."""
    return 1.0 - comb(samples - right, k) / comb(samples, k)
