"""Harmony vote: the answer that is frequent under every view of the question (Self-Harmony, arXiv 2511.01191)."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

from sttrl.types import Ballots, Election
from sttrl.voting.confidence import tie_confidence
from sttrl.voting.elect import VoteConfig, elect


def harmony(ballots: Ballots, config: VoteConfig) -> Election:
    """The class with the greatest `harmonic_means`. If no answer was given under every view, nobody is elected (derived).

    Raises:
        ValueError: the ballots do not say which view each sample answers; or as `elect`.
    """
    mean_C = harmonic_means(ballots)
    count = Counter(ballots.class_G)
    weight_G = [0.0 if c is None else float(mean_C[c] / count[c]) for c in ballots.class_G]
    return elect(ballots, weight_G, config.ties, tie_confidence(ballots, config.ties))


def harmonic_means(ballots: Ballots) -> tuple[Fraction, ...]:
    """The harmonic mean over the views of each class's frequency, ``_C``: with two views 2 p q / (p + q); 0 if it is missing under one.

    The frequency is over all samples of the view, those without an answer included. Views that no sample answers do not count.

    Raises:
        ValueError: the ballots do not say which view each sample answers.
    """
    if ballots.view_G is None:
        raise ValueError("the vote 'harmony' needs questions that are asked under several views")
    size_V, count_VC = Counter(ballots.view_G), Counter(zip(ballots.view_G, ballots.class_G, strict=True))

    def mean(c: int) -> Fraction:
        counts = [(count_VC[view, c], size) for view, size in size_V.items()]
        return Fraction(0) if any(n == 0 for n, _ in counts) else len(counts) / sum((Fraction(size, n) for n, size in counts), Fraction(0))

    return tuple(mean(c) for c in range(len(ballots.representative_C)))
