"""Forking tokens: the tokens of a response that were sampled at high entropy, and the band of their entropy (SPINE, arXiv 2511.17938)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sttrl.types import EntropyBand, Forking

DEVIATION: Final = 1.4826
"""The standard deviation of a normal distribution over its median absolute deviation."""
NARROWEST_NATS: Final = 1e-6
LOW_QUANTILE: Final = 0.1


@dataclass(frozen=True, kw_only=True)
class Forks:
    """``fork_T``: whether each token of a response is forking. ``low``, ``high``: the band of the forking tokens' entropy, in nats."""

    fork_T: tuple[bool, ...]
    low: float
    high: float


def forks_of(entropy_T: Sequence[float], forking: Forking) -> Forks:
    """The forking tokens of one response and their band. ``entropy_T``: in nats, of the policy before the update.

    Raises:
        ValueError: there are no tokens, or an entropy is not finite.
    """
    values = np.asarray(entropy_T, dtype=np.float64)
    if not len(values) or not np.isfinite(values).all():
        raise ValueError("forking tokens need a finite entropy at every token of a response")
    fork_T = values >= otsu(values) if forking.rule == "otsu" else _top(values, forking.share)
    low, high = BANDS[forking.band](values[fork_T]) if forking.band is not None else (0.0, math.inf)
    return Forks(fork_T=tuple(fork_T.tolist()), low=low, high=high)


def otsu(values: NDArray[np.float64]) -> float:
    """Otsu's threshold: the lowest value of the upper part, of the two parts whose means differ most by variance between them.

    Every split between two different values is tried (derived; images have bins). If all values are equal, it is that value.
    """
    ordered = np.sort(values)
    count = len(ordered)
    lower = np.arange(1, count)
    sums = ordered.cumsum()
    mean_lower, mean_upper = sums[:-1] / lower, (sums[-1] - sums[:-1]) / (count - lower)
    between = np.where(ordered[1:] > ordered[:-1], lower * (count - lower) * (mean_upper - mean_lower) ** 2, -1.0)
    if count == 1 or between.max() < 0:
        return float(ordered[0])
    return float(ordered[1 + int(between.argmax())])


def _top(values: NDArray[np.float64], share: float) -> NDArray[np.bool_]:
    """Whether each value is in the highest ``share``, rounded up to whole values; of equal ones the first are."""
    count = max(1, min(len(values), math.ceil(share * len(values) - 1e-9)))
    found = np.zeros(len(values), dtype=np.bool_)
    found[np.argsort(-values, kind="stable")[:count]] = True
    return found


def _mad(chosen: NDArray[np.float64]) -> tuple[float, float]:
    median = float(np.median(chosen))
    deviation = max(NARROWEST_NATS, DEVIATION * float(np.median(np.abs(chosen - median))))
    return max(0.0, median - deviation), median


def _quantiles(chosen: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.quantile(chosen, (LOW_QUANTILE, 0.5))
    return float(low), float(high)


BANDS: Final[dict[EntropyBand, Callable[[NDArray[np.float64]], tuple[float, float]]]] = {"mad": _mad, "quantiles": _quantiles}
"""From the entropies of a response's forking tokens to the lower and upper end of their band."""
