"""95 % intervals of a mean over questions, and p-values of a mean difference. Pure, and the same every time.

An interval is made by the bootstrap that resamples whole questions, a p-value by flipping the signs of whole questions.

The samples of a question are not independent, questions are: so a question is the unit that is resampled, and what is
resampled is its mean. The plain percentile interval is too short for 30 questions, and off centre where most score 0.
Two corrections: Student's t in place of the normal (Hesterberg, "What Teachers Should Know About the Bootstrap", 2015), and
bias and acceleration (BCa, Efron 1987), which for a mean are both its skewness / 6. The skewness of 30 questions is itself
uncertain, so it may lengthen an interval on one side, never shorten it on the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit

CONFIDENCE: Final = 0.95
RESAMPLES: Final = 4000
SIGN_FLIPS: Final = 9999
"""So many sign flips are drawn where there are more than that; where there are fewer, all are gone through."""
FEWEST_QUESTIONS: Final = 8
"""Below this a resample has too few values to choose from, and Student's interval is used."""

_BLOCK: Final = 2_000_000
_TAIL: Final = (1 - CONFIDENCE) / 2


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Both ends of an interval."""

    low: float
    high: float

    def contains(self, value: float) -> bool:
        """Whether a value is in the interval, ends included."""
        return self.low <= value <= self.high


def interval_of_mean(value_P: Sequence[float], *, lowest: float = 0.0, highest: float = 1.0, seed: int = 0) -> Interval | None:
    """The 95 % interval of the mean over all questions like these, for values in [``lowest``, ``highest``]; None without questions.

    Where all questions have the same value the resamples know nothing of others: the interval then is the widest that leaves
    such data a chance of 2.5 % on each side (at 0 and 1 it is Clopper and Pearson's).
    """
    values = np.sort(np.asarray(value_P, dtype=np.float64).round(12))  # .3 - .1 and .2 - 0 are one value
    if values.size == 0:
        return None
    if values[0] == values[-1]:
        return _of_equal_values(float(values[0]), values.size, lowest, highest)
    low, high = _student(values) if values.size < FEWEST_QUESTIONS else _bootstrap(values, seed)
    return Interval(low=max(low, lowest), high=min(high, highest))


def interval_of_gain(before_P: Sequence[float], after_P: Sequence[float], *, seed: int = 0) -> Interval | None:
    """The 95 % interval of the mean difference after - before, paired by question, for values in [0, 1]."""
    gain_P = [after - before for before, after in zip(before_P, after_P, strict=True)]
    return interval_of_mean(gain_P, lowest=-1.0, highest=1.0, seed=seed)


def p_value_of_gain(before_P: Sequence[float], after_P: Sequence[float], *, seed: int = 0) -> float | None:
    """Two-sided p-value of the mean difference after - before, paired by question; None without questions.

    The permutation test: if nothing changed, a question's difference would as likely have the other sign. Questions without a
    difference have no sign to flip. Exact for up to 13 questions with one, beyond that by `SIGN_FLIPS` draws.
    """
    from scipy.stats import permutation_test  # half a second, which a report without p-values need not wait

    gain_P = [round(after - before, 12) for before, after in zip(before_P, after_P, strict=True)]
    if not gain_P:
        return None
    changed = [gain for gain in gain_P if gain]
    if len(changed) < 2:
        return 1.0
    # Which sign is drawn for which question must not depend on their order, nor on which run is called "before".
    gain = np.asarray(max(sorted(changed), sorted(-gain for gain in changed)))
    found = permutation_test(
        (gain,), _rounded_sum, permutation_type="samples", vectorized=True, n_resamples=SIGN_FLIPS,
        batch=max(1, _BLOCK // gain.size), random_state=np.random.default_rng(seed),
    )  # fmt: skip
    return float(found.pvalue)


def _rounded_sum(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """A sum in which .1 + .2 and .3 are one value: a tie of two sign flips is a tie."""
    return np.asarray(values.sum(axis=axis).round(9))


def _of_equal_values(value: float, count: int, lowest: float, highest: float) -> Interval:
    unseen = 1 - _TAIL ** (1 / count)
    return Interval(low=value - unseen * (value - lowest), high=value + unseen * (highest - value))


def _student(values: NDArray[np.float64]) -> tuple[float, float]:
    reach = float(stdtrit(values.size - 1, 1 - _TAIL) * values.std(ddof=1) / math.sqrt(values.size))
    return float(values.mean()) - reach, float(values.mean()) + reach


def _bootstrap(values: NDArray[np.float64], seed: int) -> tuple[float, float]:
    """Quantiles of the resampled means: the outer ones of those with and without the correction for skewness."""
    count, centred = values.size, values - values.mean()
    acceleration = float((centred**3).sum() / (6 * (centred**2).sum() ** 1.5))
    reach = float(stdtrit(count - 1, 1 - _TAIL)) * math.sqrt(count / (count - 1))
    levels = [min(_level(-reach, a) for a in (0.0, acceleration)), max(_level(reach, a) for a in (0.0, acceleration))]
    low, high = np.quantile(_resampled_means(values, seed), levels)
    return float(low), float(high)


def _level(z: float, acceleration: float) -> float:
    """BCa's level for a normal quantile, with the bias of a mean."""
    return float(ndtr(acceleration + (acceleration + z) / (1 - acceleration * (acceleration + z))))


def _resampled_means(values: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Means of `RESAMPLES` draws of as many questions with replacement, in blocks that bound the memory.

    Each draw is used twice, the second time with the ranks of the values reversed: a gain and the same loss mirror each other.
    """
    generator = np.random.default_rng(seed)
    rows, draws = max(1, _BLOCK // values.size), RESAMPLES // 2
    means: list[NDArray[np.float64]] = []
    for start in range(0, draws, rows):
        rank = generator.integers(values.size, size=(min(rows, draws - start), values.size))
        means += [values[rank].mean(axis=1), values[::-1][rank].mean(axis=1)]
    return np.concatenate(means)
