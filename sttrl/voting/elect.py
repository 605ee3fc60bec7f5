"""The election that every vote shares: weights in, sums over equivalence classes, argmax out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from sttrl.types import Ballots, Election

TiePolicy = Literal["abstain", "first", "confidence"]
"""Nobody wins; the class seen first in seed order wins; or the class with the higher mean confidence wins."""

_SAME: Final = 1e-12


@dataclass(frozen=True, kw_only=True)
class VoteConfig:
    """What every vote needs to know: what happens in a tie."""

    ties: TiePolicy = "abstain"


def elect(ballots: Ballots, weight_G: Sequence[float], ties: TiePolicy, confidence_G: Sequence[float] | None = None) -> Election:
    """The class with the greatest sum of weights; a sample without an answer never votes.

    Sums within a relative 1e-12 are a tie. A tie in confidence too, or votes that all weigh nothing, elect nobody.

    Raises:
        ValueError: a weight or confidence that is not finite, a negative weight, a count that differs from the samples,
            or the tie policy "confidence" without confidences.
    """
    _check(ballots, weight_G, ties, confidence_G)
    sum_C = _sums(ballots, weight_G)
    total = math.fsum(sum_C)
    leader_C = _leaders(sum_C) if total > 0 else ()
    winner = _winner(leader_C, ballots, ties, confidence_G)
    return _election(ballots, winner, tuple(s / total if total > 0 else 0.0 for s in sum_C), leader_C)


def _check(ballots: Ballots, weight_G: Sequence[float], ties: TiePolicy, confidence_G: Sequence[float] | None) -> None:
    samples = len(ballots.class_G)
    if len(weight_G) != samples or (confidence_G is not None and len(confidence_G) != samples):
        raise ValueError(f"there are {samples} samples, and each needs one weight (and one confidence where any is given)")
    if not all(math.isfinite(w) and w >= 0 for w in weight_G):
        raise ValueError("vote weights must be finite and not negative")
    if ties == "confidence" and confidence_G is None:
        raise ValueError("the tie policy 'confidence' needs the confidence of every sample")
    if not all(math.isfinite(c) for c in confidence_G or ()):
        raise ValueError("confidences must be finite")


def _sums(ballots: Ballots, value_G: Sequence[float]) -> tuple[float, ...]:
    """Sum of the values of each class's samples, in units of the greatest one, so that it neither overflows nor depends on order."""
    unit = max((abs(v) for v, c in zip(value_G, ballots.class_G, strict=True) if c is not None), default=0.0) or 1.0
    value_CG: list[list[float]] = [[] for _ in ballots.representative_C]
    for value, c in zip(value_G, ballots.class_G, strict=True):
        if c is not None:
            value_CG[c].append(value / unit)
    return tuple(math.fsum(values) for values in value_CG)


def _leaders(score_C: Sequence[float]) -> tuple[int, ...]:
    best = max(score_C)
    return tuple(c for c, score in enumerate(score_C) if math.isclose(score, best, rel_tol=_SAME))


def _winner(leader_C: tuple[int, ...], ballots: Ballots, ties: TiePolicy, confidence_G: Sequence[float] | None) -> int | None:
    if len(leader_C) == 1:
        return leader_C[0]
    if not leader_C or ties == "abstain":
        return None
    if ties == "first":
        return next(c for c in ballots.class_G if c in leader_C)
    assert confidence_G is not None
    count_C = _counts(ballots)
    sum_C = _sums(ballots, confidence_G)
    surest = _leaders([sum_C[c] / count_C[c] for c in leader_C])
    return leader_C[surest[0]] if len(surest) == 1 else None


def _counts(ballots: Ballots) -> tuple[int, ...]:
    return tuple(ballots.class_G.count(c) for c in range(len(ballots.representative_C)))


def _election(ballots: Ballots, winner: int | None, share_C: tuple[float, ...], leader_C: tuple[int, ...]) -> Election:
    count_C = _counts(ballots)
    samples = len(ballots.class_G)
    tied = len(leader_C) > 1
    others = [share for c, share in enumerate(share_C) if c not in leader_C]
    return Election(
        winner=winner,
        answer=None if winner is None else ballots.representative_C[winner],
        share_C=share_C,
        count_C=count_C,
        margin=0.0 if tied or not leader_C else share_C[leader_C[0]] - max(others, default=0.0),
        tied_C=leader_C if tied else (),
        voters=sum(count_C),
        samples=samples,
        agreement_G=tuple(1.0 if winner is not None and c == winner else 0.0 for c in ballots.class_G),
        majority_ratio=0.0 if winner is None else count_C[winner] / samples,
    )
