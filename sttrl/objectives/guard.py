"""TTRL-Guard (arXiv 2605.19444; linhxkkkk/TTRL-Guard). Pure functions of the votes on one question."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Final

from sttrl.types import Ballots, Election

FLIPPED: Final = 0.5
"""lambda 1: what the weight loses after a flip."""
SURE_FLIPPED: Final = 0.3
"""lambda 2: what it loses once more if the new answer is sure; half of it where a sure answer has never changed."""
SURE: Final = 0.6
"""tau_mr: the majority ratio above which frs takes a vote for sure."""
LOWEST: Final = 0.1
"""The lowest weight."""
BONUS: Final = 0.3
"""beta_max: the bonus of all other answers together, in units of the question's mean absolute advantage."""
MINORITY: Final = 4
"""An answer is preserved if at least the samples divided by this gave it."""
NO_ANSWER: Final = 0.05
"""The bonus of a sample without an answer, in units of the mean bonus of the preserved answers."""
SKIPPED: Final = 4
"""At most every fourth question of a step is left out, or one."""


@dataclass(frozen=True, kw_only=True)
class PastVote:
    """One vote on a question: the texts of the elected answer (empty if it abstained), and its majority ratio."""

    elected: frozenset[str]
    majority_ratio: float


def flips(votes: Sequence[PastVote]) -> list[bool]:
    """Whether each vote elected another answer than the one before it; False for the first. Two answers are equal if they share a text."""
    pairs = [one.elected != other.elected and one.elected.isdisjoint(other.elected) for one, other in pairwise(votes)]
    return [False, *pairs][: len(votes)]


def frs_weight(votes: Sequence[PastVote], window: int = 5) -> float:
    """Flip-rate-aware reward scaling: what the advantages of a question are multiplied by after its last vote.

    1 without a flip and 1 - lambda 1 after one; times 1 - lambda 2 if the new majority is sure. Where no vote flipped and the mean majority
    ratio of the last ``window`` votes is sure, 1 - lambda 2 / 2, in ``window`` votes at most. Never below `LOWEST`.
    """
    flipped = flips(votes)
    weight = 1 - FLIPPED if flipped[-1] else 1.0
    if flipped[-1] and votes[-1].majority_ratio > SURE:
        weight *= 1 - SURE_FLIPPED
    steady = [_mean_ratio(votes[:n], window) > SURE for n in range(window, len(votes) + 1)] if not any(flipped) else []
    if steady and steady[-1] and sum(steady) <= window:
        weight *= 1 - SURE_FLIPPED / 2
    return max(LOWEST, weight)


def is_risky(votes: Sequence[PastVote], window: int = 5, share: float = 0.7) -> bool:
    """Risk-conditioned sparse updating: whether an answer changed once, and the last ``window`` votes are sure on average."""
    return len(votes) >= window and any(flips(votes)) and _mean_ratio(votes, window) > share


def mps_bonus(ballots: Ballots, election: Election) -> tuple[float, ...] | None:
    """Minority-preserving sampling: the bonus of each sample after a flip, in units of the question's mean absolute advantage.

    The answers but the elected one that a quarter of the samples gave, rounded down, but at least one sample, share `BONUS` by their
    counts; each of their samples gets the share of its answer. None if there is no such answer.
    """
    count = Counter(c for c in ballots.class_G[: election.samples] if c is not None and c != election.winner)
    kept = {c: n for c, n in count.items() if n >= max(1, election.samples // MINORITY)}
    if not kept:
        return None
    bonus = {c: BONUS * n / sum(kept.values()) for c, n in kept.items()}
    without = NO_ANSWER * fmean(bonus.values())
    return tuple(without if c is None else bonus.get(c, 0.0) for c in ballots.class_G)


def most_skipped(questions: int) -> int:
    """How many questions of a step may be left out."""
    return max(1, questions // SKIPPED)


def _mean_ratio(votes: Sequence[PastVote], window: int) -> float:
    return fmean(vote.majority_ratio for vote in votes[-window:])
