"""What the journal holds of an evaluation on a text question, and what a question answers by it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from sttrl.ledger.records import BallotsRecord, ElectionRecord
from sttrl.types import Poll

PollName = Literal["base", "vote_same_tokens", "adapted"]
POLL_NAMES: tuple[PollName, ...] = ("base", "vote_same_tokens", "adapted")


@dataclass(frozen=True, kw_only=True)
class PollRecord:
    """An evaluation of one policy on one question.

    ``k`` samples at ``temperature`` and ``top_p``; ``ballots`` holds those ``k`` and, when ``greedy``, one more: the
    greedy response, last. ``election``, the majority's, and ``confidence``, weighed by mean log-prob, are over the ``k``
    samples only. ``tokens`` counts every response token.
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

    @classmethod
    def of(cls, poll: Poll) -> PollRecord:
        """The record of a poll."""
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
        )


def elected(poll: PollRecord) -> str | None:
    """What a policy answers: its majority vote, or its greedy answer where the vote abstains."""
    if poll.election.answer is not None or not poll.greedy:
        return poll.election.answer
    greedy_class = poll.ballots.class_G[-1]
    return None if greedy_class is None else poll.ballots.representative_C[greedy_class]


def poll_from_json(value: dict[str, Any]) -> PollRecord:
    """Read a poll back."""
    elections = {name: ElectionRecord(**value[name]) for name in ("election", "confidence")}
    return PollRecord(**{**value, "ballots": BallotsRecord(**value["ballots"]), **elections})
