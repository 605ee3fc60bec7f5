"""A ranking of all classes by their scores, with a stated order of ties. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sttrl.voting.elect import ROUNDING

NEAR_ZERO: Final = 1e-12
"""Two scores this close are equal, also where both are nearly 0."""


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Classes from best to worst.

    ``class_R``: class indices, best first. ``score_C``: the score of each class, higher is better. ``tied_C``: every set of classes with
    equal scores, each in ascending order.
    """

    class_R: tuple[int, ...]
    score_C: tuple[float, ...]
    tied_C: tuple[tuple[int, ...], ...] = ()


def rank(score_C: Sequence[float], preferred_C: Sequence[bool] | None = None) -> Ranking:
    """Rank classes by score; of equal scores the class with the lower index is first, and the tie is recorded.

    Scores whose relative difference is at most 1e-12 are equal. ``preferred_C``: preferred classes are ranked before all others.

    Raises:
        ValueError: a score that is not a number.
    """
    if any(map(math.isnan, score_C)):
        raise ValueError("a score is not a number")
    preferred_C = preferred_C or [False] * len(score_C)
    runs: list[list[int]] = []
    for c in sorted(range(len(score_C)), key=lambda c: (not preferred_C[c], -score_C[c], c)):
        last = runs[-1][-1] if runs else None
        if last is not None and preferred_C[c] == preferred_C[last] and _equal(score_C[c], score_C[last]):
            runs[-1].append(c)
        else:
            runs.append([c])
    return Ranking(
        class_R=tuple(c for run in runs for c in sorted(run)),
        score_C=tuple(score_C),
        tied_C=tuple(tuple(sorted(run)) for run in runs if len(run) > 1),
    )


def _equal(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=ROUNDING, abs_tol=NEAR_ZERO)
