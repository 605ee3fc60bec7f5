"""Advantages that are reshaped after the estimator: entropy-based advantage reshaping (ETTRL, arXiv 2508.11356). Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence


def relative_entropy_factors(entropy_G: Sequence[float]) -> tuple[float, ...]:
    """1 + (mean H - H_i) / mean H for each response of a group; ``entropy_G``: the mean entropy of its tokens, in nats.

    The factors have a mean of 1. A response with more than twice the mean entropy has a negative one, as in the paper's formula. If all
    entropies are 0, every factor is 1.

    Raises:
        ValueError: an entropy that is negative or not finite.
    """
    if not all(math.isfinite(h) and h >= 0 for h in entropy_G):
        raise ValueError(f"entropies must be finite and not negative, got {list(entropy_G)}")
    mean = math.fsum(entropy_G) / len(entropy_G)
    return tuple(1.0 + (mean - h) / mean if mean > 0 else 1.0 for h in entropy_G)


def clipped(advantage_T: Sequence[float], most: float) -> tuple[float, ...]:
    """The advantages of a response's tokens, bounded to [-``most``, ``most``]."""
    return tuple(min(max(advantage, -most), most) for advantage in advantage_T)
