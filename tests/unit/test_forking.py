"""Forking tokens and the band of their entropy, against computations by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sttrl.config import RunConfig
from sttrl.methods.update import objective_of
from sttrl.objectives.forking import forks_of, otsu
from sttrl.types import Forking

ENTROPIES = st.lists(st.floats(0, 12, width=32), min_size=1, max_size=60)


def forks(entropies: list[float], **changes: Any) -> list[int]:
    """The numbers of the forking tokens."""
    return [i for i, fork in enumerate(forks_of(entropies, Forking(**changes)).fork_T) if fork]


def test_otsu_by_hand() -> None:
    """Of 0.1, 0.2, 1.0, 1.2 the splits have w0 w1 (mean0 - mean1)^2 of 3/16 * .7^2 = .092, 4/16 * .95^2 = .226, 3/16 * .7667^2 = .110."""
    assert forks([1.0, 0.1, 1.2, 0.2]) == [0, 2] and otsu(np.array([1.0, 0.1, 1.2, 0.2])) == 1.0
    assert forks([0.0, 0.0, 0.0, 2.0]) == [3] and forks([2.0, 2.0, 0.0]) == [0, 1]
    assert forks([0.5, 0.5, 0.5]) == [0, 1, 2] and forks([0.3]) == [0], "equal values have no two parts"


@given(ENTROPIES)
def test_otsu_is_the_best_of_all_thresholds(entropies: list[float]) -> None:
    values = sorted(set(entropies))

    def between(threshold: float) -> float:
        upper = [x for x in entropies if x >= threshold]
        lower = [x for x in entropies if x < threshold]
        return len(upper) * len(lower) * (float(np.mean(upper)) - float(np.mean(lower))) ** 2

    found = otsu(np.array(entropies, dtype=np.float64))
    assert found in values
    if len(values) > 1:
        assert between(found) == pytest.approx(max(map(between, values[1:])), rel=1e-6) and found > values[0]


def test_the_top_share_by_hand() -> None:
    """A fifth of ten tokens are two; a fifth of four is rounded up to one. Of equal entropies the first are taken."""
    ten = [0.1, 2.0, 0.3, 0.4, 3.0, 0.6, 0.7, 0.8, 0.9, 1.0]
    assert (
        forks(ten, rule="top") == [1, 4] and forks(ten, rule="top", share=0.3) == [1, 4, 9] and len(forks(ten, rule="top", share=1.0)) == 10
    )
    assert forks([0.1, 0.2, 0.3, 0.2], rule="top") == [2] and forks([0.4, 0.1, 0.4], rule="top") == [0]
    assert forks([0.0] * 9 + [1.0], rule="top") == [0, 9]


def test_the_bands_by_hand() -> None:
    """Forking are 1, 2, 3, 5 and 10, with median 3 and deviations 2, 1, 0, 2, 7: their median is 2. The 10 % quantile is 1.4."""
    entropies = [10.0, 1.0, 5.0, 2.0, 3.0]
    mad, quantiles = (forks_of(entropies, Forking(rule="top", share=1.0, band=band)) for band in ("mad", "quantiles"))  # type: ignore[arg-type]
    assert (mad.low, mad.high) == (pytest.approx(3 - 1.4826 * 2), 3.0)
    assert (quantiles.low, quantiles.high) == (pytest.approx(1.4), 3.0)
    wide = forks_of([0.0, 1.0, 9.0], Forking(rule="top", share=1.0, band="mad"))
    assert (wide.low, wide.high) == (0.0, 1.0), "no entropy is below 0"
    one = forks_of([0.1, 2.0], Forking(band="mad"))
    assert one.fork_T == (False, True) and (one.low, one.high) == (pytest.approx(2.0 - 1e-6), 2.0)
    assert forks_of(entropies, Forking()).high == math.inf


@pytest.mark.parametrize("bad", [[], [1.0, math.nan], [math.inf]])
def test_entropies_that_are_no_numbers_are_errors(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="finite entropy at every token"):
        forks_of(bad, Forking())


def test_a_run_s_settings_reach_the_objective() -> None:
    assert objective_of(RunConfig(), 64).forking is None
    first = RunConfig.of(forking_tokens="top", forking_share=0.3, entropy_band="quantiles", entropy_low_coef=0.5, entropy_high_coef=0.25)
    assert objective_of(first, 64).forking == Forking(rule="top", share=0.3, band="quantiles", low_coef=0.5, high_coef=0.25)
    assert objective_of(RunConfig.of(preset="spine"), 64).forking == Forking(rule="otsu", band="mad")
