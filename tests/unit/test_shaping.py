"""ETTRL's advantages against computations by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sttrl.objectives.shaping import clipped, relative_entropy_factors


def test_factors_by_hand() -> None:
    """The mean of 0.5, 1.0, 1.5 is 1: half of it counts one and a half times. Three times the mean changes the sign."""
    assert relative_entropy_factors([0.5, 1.0, 1.5]) == (1.5, 1.0, 0.5)
    assert relative_entropy_factors([0.0, 0.0, 3.0]) == (2.0, 2.0, -1.0)
    assert relative_entropy_factors([0.0, 0.0]) == (1.0, 1.0) and relative_entropy_factors([0.7]) == (1.0,)


@given(st.lists(st.floats(0, 20), min_size=1, max_size=40))
def test_the_factors_have_a_mean_of_one(entropies: list[float]) -> None:
    assert math.fsum(relative_entropy_factors(entropies)) / len(entropies) == pytest.approx(1.0)


@pytest.mark.parametrize("bad", [[1.0, math.nan], [math.inf], [-0.1, 1.0]])
def test_entropies_that_are_none_are_errors(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="finite and not negative"):
        relative_entropy_factors(bad)


def test_clipped_by_hand() -> None:
    assert clipped((-3.0, -2.0, 0.5, 2.5), 2.0) == (-2.0, -2.0, 0.5, 2.0)
