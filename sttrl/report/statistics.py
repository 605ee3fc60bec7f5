"""95 % intervals of a mean over questions, and p-values of a mean difference. Pure functions with fixed seeds.

Intervals come from the bootstrap over whole questions, p-values from flipping the signs of whole questions. The unit is the question,
because the samples of one question are not independent of each other.

The plain percentile interval is too short for 30 questions, and not centred if most of them score 0. There are two corrections: Student's
t instead of the normal distribution (Hesterberg, "What Teachers Should Know About the Bootstrap", 2015), and bias and acceleration (BCa,
Efron 1987), which for a mean are both skewness / 6. The skewness of 30 questions is uncertain, so this correction may make an interval
longer on one side, but never shorter on the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, ndtr, stdtrit

CONFIDENCE: Final = 0.95
RESAMPLES: Final = 4000
SIGN_FLIPS: Final = 9999
"""How many random sign flips are used. If there are fewer possible flips, all of them are used."""
FEWEST_QUESTIONS: Final = 8
"""With fewer questions than this, Student's interval is used instead of the bootstrap."""

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
    """The 95 % interval of the mean over the population of questions, for values in [``lowest``, ``highest``]; None without questions.

    If all questions have the same value, all resamples are equal. Then the interval is the widest for which such data have a probability
    of at least 2.5 % on each side (for the values 0 and 1 this is the interval of Clopper and Pearson). Without a highest value there is no
    such interval: None.
    """
    values = np.sort(np.asarray(value_P, dtype=np.float64).round(12))  # .3 - .1 and .2 - 0 are one value
    if values.size == 0:
        return None
    if values[0] == values[-1]:
        if math.isinf(highest):
            return None
        return _of_equal_values(float(values[0]), values.size, lowest, highest)
    low, high = _student(values) if values.size < FEWEST_QUESTIONS else _bootstrap(values, seed)
    return Interval(low=max(low, lowest), high=min(high, highest))


def interval_of_share(count: int, total: int) -> Interval | None:
    """The 95 % interval of a share, for ``count`` of ``total`` independent trials (Clopper and Pearson, 1934); None without trials."""
    if total == 0:
        return None
    low = float(betaincinv(count, total - count + 1, _TAIL)) if count else 0.0
    high = float(betaincinv(count + 1, total - count, 1 - _TAIL)) if count < total else 1.0
    return Interval(low=low, high=high)


def weighed(value_P: Sequence[float], weight_P: Sequence[float]) -> list[float]:
    """Values whose plain mean is the weighted mean R of ``value_P``, and whose interval is that of R over the population of problems.

    They are R + w (v - R) / (mean of w): the linearised ratio estimator (Cochran, "Sampling Techniques", 1977, chapter 6). With equal
    weights they are the values themselves.
    """
    if len(set(weight_P)) <= 1:
        return list(value_P)
    mean_weight = math.fsum(weight_P) / len(weight_P)
    mean = math.fsum(v * w for v, w in zip(value_P, weight_P, strict=True)) / (mean_weight * len(weight_P))
    return [mean + w * (v - mean) / mean_weight for v, w in zip(value_P, weight_P, strict=True)]


def interval_of_gain(before_P: Sequence[float], after_P: Sequence[float], *, seed: int = 0) -> Interval | None:
    """The 95 % interval of the mean difference after - before, paired by question, for values in [0, 1]."""
    gain_P = [after - before for before, after in zip(before_P, after_P, strict=True)]
    return interval_of_mean(gain_P, lowest=-1.0, highest=1.0, seed=seed)


def p_value_of_gain(before_P: Sequence[float], after_P: Sequence[float], *, seed: int = 0) -> float | None:
    """Two-sided p-value of the mean difference after - before, paired by question; None without questions.

    The permutation test assumes that, if nothing changed, both signs of a question's difference are equally likely. It is exact for up to
    13 questions with a difference that is not 0; for more it draws `SIGN_FLIPS` random flips.
    """
    from scipy.stats import permutation_test  # imported late: it takes half a second

    gain_P = [round(after - before, 12) for before, after in zip(before_P, after_P, strict=True)]
    if not gain_P:
        return None
    changed = [gain for gain in gain_P if gain]
    if len(changed) < 2:
        return 1.0
    # The p-value must not depend on the order of the questions, nor on which run is called "before".
    gain = np.asarray(max(sorted(changed), sorted(-gain for gain in changed)))
    found = permutation_test(
        (gain,), _rounded_sum, permutation_type="samples", vectorized=True, n_resamples=SIGN_FLIPS,
        batch=max(1, _BLOCK // gain.size), random_state=np.random.default_rng(seed),
    )  # fmt: skip
    return float(found.pvalue)


def _rounded_sum(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """A rounded sum, so that .1 + .2 equals .3, and equal sums of two sign flips are counted as equal."""
    return np.asarray(values.sum(axis=axis).round(9))


def _of_equal_values(value: float, count: int, lowest: float, highest: float) -> Interval:
    unseen = 1 - _TAIL ** (1 / count)
    return Interval(low=value - unseen * (value - lowest), high=value + unseen * (highest - value))


def _student(values: NDArray[np.float64]) -> tuple[float, float]:
    reach = float(stdtrit(values.size - 1, 1 - _TAIL) * values.std(ddof=1) / math.sqrt(values.size))
    return float(values.mean()) - reach, float(values.mean()) + reach


def _bootstrap(values: NDArray[np.float64], seed: int) -> tuple[float, float]:
    """Quantiles of the resampled means, with or without the correction for skewness, whichever is farther out."""
    count, centred = values.size, values - values.mean()
    acceleration = float((centred**3).sum() / (6 * (centred**2).sum() ** 1.5))
    reach = float(stdtrit(count - 1, 1 - _TAIL)) * math.sqrt(count / (count - 1))
    levels = [min(_level(-reach, a) for a in (0.0, acceleration)), max(_level(reach, a) for a in (0.0, acceleration))]
    low, high = np.quantile(_resampled_means(values, seed), levels)
    return float(low), float(high)


def _level(z: float, acceleration: float) -> float:
    """The level that BCa uses for a normal quantile, with the bias correction of a mean."""
    return float(ndtr(acceleration + (acceleration + z) / (1 - acceleration * (acceleration + z))))


def _resampled_means(values: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Means of `RESAMPLES` resamples of the questions with replacement, computed in blocks to limit the memory.

    Each draw is used twice, the second time with the values in reverse order, so that the interval of a loss mirrors that of a gain.
    """
    generator = np.random.default_rng(seed)
    rows, draws = max(1, _BLOCK // values.size), RESAMPLES // 2
    means: list[NDArray[np.float64]] = []
    for start in range(0, draws, rows):
        rank = generator.integers(values.size, size=(min(rows, draws - start), values.size))
        means += [values[rank].mean(axis=1), values[::-1][rank].mean(axis=1)]
    return np.concatenate(means)
