"""What all votes use: their settings, the measure of a sample, and the election of the class with the greatest sum of weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from sttrl.config import ConfidenceKind, EnergyKind, RunConfig
from sttrl.types import Ballots, Election, Stat

TiePolicy = Literal["abstain", "first", "confidence"]
"""Nobody wins; the class seen first in seed order wins; or the class with the higher mean confidence wins."""

ROUNDING: Final = 1e-12
"""Two numbers are equal if their relative difference is at most this."""


@dataclass(frozen=True, kw_only=True)
class VoteConfig:
    """The settings of the votes; defaults are those of the command line.

    All votes read ``ties``. The energy vote reads ``energy`` and ``energy_tau`` (None: the standard deviation of the voters'
    energies); ``energy_temperature`` is T of the free energy. The confidence vote reads ``confidence`` and ``window``, the tokens of
    a DeepConf group; ``top_k`` is the number of tokens in a DeepConf confidence. ``energy_temperature`` and ``top_k`` go to the
    learner in a `Measure`.

    Raises:
        ValueError: a temperature or tau that is not a finite number above 0, a window or top-k below 1.
    """

    ties: TiePolicy = "abstain"
    energy: EnergyKind = "free_energy"
    energy_temperature: float = 1.0
    energy_tau: float | None = None
    confidence: ConfidenceKind = "mean_logprob"
    window: int = 2048
    top_k: int = 20

    @classmethod
    def of(cls, config: RunConfig) -> VoteConfig:
        """The settings of a run's votes."""
        return cls(
            ties=config.vote.ties,
            energy=config.energy_vote.energy,
            energy_temperature=config.energy_vote.energy_temp,
            energy_tau=config.energy_vote.energy_tau,
            confidence=config.confidence_vote.confidence,
            window=config.confidence_vote.confidence_window,
            top_k=config.confidence_vote.confidence_top_k,
        )

    def __post_init__(self) -> None:
        for name, value in (("energy_temperature", self.energy_temperature), ("energy_tau", self.energy_tau)):
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} is {value}; it must be a finite number above 0")
        for name, count in (("window", self.window), ("top_k", self.top_k)):
            if count < 1:
                raise ValueError(f"{name} is {count}; it must be 1 or more")


def measure_voters(ballots: Ballots, stat: Stat, of_tokens: Callable[[Sequence[float]], float]) -> tuple[float | None, ...]:
    """One number for each sample: ``of_tokens`` of the statistic ``stat`` of its tokens (``_T``). None for a sample that does not vote.

    Raises:
        ValueError: the statistic is missing, or not finite somewhere (also in a sample that does not vote), or a sample that votes
            has no tokens.
    """
    value_GT = _token_values(ballots, stat)
    for sample, (value_T, voted) in enumerate(zip(value_GT, ballots.class_G, strict=True)):
        if not all(math.isfinite(value) for value in value_T):
            raise ValueError(f"the {stat} of sample {sample} must be finite at every token")
        if voted is not None and not value_T:
            raise ValueError(f"sample {sample} votes without a token whose {stat} could be measured")
    return tuple(None if c is None else of_tokens(value_T) for value_T, c in zip(value_GT, ballots.class_G, strict=True))


def _token_values(ballots: Ballots, stat: Stat) -> tuple[tuple[float, ...], ...]:
    if ballots.stats_G is None:
        raise ValueError(f"the vote reads the {stat} of every token, and the ballots have no token statistics")
    if len(ballots.stats_G) != len(ballots.class_G):
        raise ValueError(f"there are {len(ballots.class_G)} samples and token statistics of {len(ballots.stats_G)}")
    value_GT: list[tuple[float, ...]] = []
    for sample, stats in enumerate(ballots.stats_G):
        value_T: tuple[float, ...] | None = getattr(stats, f"{stat}_T")
        if value_T is None:
            raise ValueError(f"the vote reads the {stat} of every token, and sample {sample} has none measured")
        value_GT.append(value_T)
    return tuple(value_GT)


def elect(ballots: Ballots, weight_G: Sequence[float], ties: TiePolicy, confidence_G: Sequence[float] | None = None) -> Election:
    """The class with the greatest sum of weights; a sample without an answer never votes.

    Sums whose relative difference is at most 1e-12 are a tie. If the confidences tie too, or all weights are 0, nobody is elected.

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
    """Sum of the values of each class's samples. Dividing by the greatest value avoids overflow; fsum does not depend on the order."""
    unit = max((abs(v) for v, c in zip(value_G, ballots.class_G, strict=True) if c is not None), default=0.0) or 1.0
    value_CG: list[list[float]] = [[] for _ in ballots.representative_C]
    for value, c in zip(value_G, ballots.class_G, strict=True):
        if c is not None:
            value_CG[c].append(value / unit)
    return tuple(math.fsum(values) for values in value_CG)


def _leaders(score_C: Sequence[float]) -> tuple[int, ...]:
    best = max(score_C)
    return tuple(c for c, score in enumerate(score_C) if math.isclose(score, best, rel_tol=ROUNDING))


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
        in_winner_G=tuple(1.0 if winner is not None and c == winner else 0.0 for c in ballots.class_G),
        majority_ratio=0.0 if winner is None else count_C[winner] / samples,
    )
