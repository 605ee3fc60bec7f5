"""The intervals tell the truth: simulated coverage, and what must hold for any values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sttrl.report.statistics import Interval, interval_of_gain, interval_of_mean

QUESTIONS, SAMPLES, RUNS = 30, 16, 2000
ABILITIES = [(1.0, 1.0), (2.0, 6.0), (5.0, 1.0), (0.5, 2.0), (0.3, 2.0)]
shares = st.lists(st.integers(0, 16).map(lambda count: count / 16), min_size=1, max_size=40)


def simulated(generator: np.random.Generator, a: float, b: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What a model can do at each question, and the share of its samples that came out right."""
    ability = generator.beta(a, b, size=(RUNS, QUESTIONS))
    return ability, generator.binomial(SAMPLES, ability) / SAMPLES


def coverage(intervals: list[Interval | None], truth: float) -> float:
    return float(np.mean([interval is not None and interval.contains(truth) for interval in intervals]))


@pytest.mark.parametrize(("a", "b"), ABILITIES)
def test_coverage_of_a_mean(a: float, b: float) -> None:
    _, share = simulated(np.random.default_rng(11), a, b)
    covered = coverage([interval_of_mean(list(run)) for run in share], a / (a + b))
    print(f"beta({a}, {b}): {covered:.4f}")
    assert 0.93 <= covered <= 0.97


@pytest.mark.parametrize(("solved", "spoilt"), [(0.0, 0.0), (0.3, 0.1), (0.1, 0.1)])
def test_coverage_of_a_gain(solved: float, spoilt: float) -> None:
    """Adaptation brings a share of the questions to 1 and another to 0, and leaves the rest alone."""
    generator = np.random.default_rng(12)
    ability, before = simulated(generator, 1.0, 1.0)
    fate = generator.random(ability.shape)
    adapted = np.where(fate < solved, 1.0, np.where(fate < solved + spoilt, 0.0, ability))
    after = generator.binomial(SAMPLES, adapted) / SAMPLES
    intervals = [interval_of_gain(list(b), list(a)) for b, a in zip(before, after, strict=True)]
    covered = coverage(intervals, (solved - spoilt) / 2)
    print(f"solved {solved}, spoilt {spoilt}: {covered:.4f}")
    assert 0.93 <= covered <= 0.97


@given(shares)
@settings(max_examples=60, deadline=None)
def test_an_interval_holds_the_mean_and_stays_in_bounds(values: list[float]) -> None:
    interval = interval_of_mean(values)
    assert interval is not None
    assert 0 <= interval.low <= np.mean(values) <= interval.high <= 1
    assert interval.high > interval.low


@given(shares)
@settings(max_examples=30, deadline=None)
def test_the_order_of_the_questions_does_not_matter(values: list[float]) -> None:
    assert interval_of_mean(values) == interval_of_mean(values[::-1]) == interval_of_mean(list(values))


@given(shares)
@settings(max_examples=30, deadline=None)
def test_a_gain_is_symmetric_about_no_gain(values: list[float]) -> None:
    other = values[::-1]
    there, back = interval_of_gain(values, other), interval_of_gain(other, values)
    assert there is not None
    assert back is not None
    assert -1 <= there.low <= there.high <= 1
    assert there.low == pytest.approx(-back.high, abs=1e-9)


def test_equal_values_leave_room_for_others() -> None:
    all_wrong = interval_of_mean([0.0] * 30)
    assert all_wrong == Interval(low=0.0, high=pytest.approx(0.1157, abs=1e-4))
    unchanged = interval_of_gain([0.5] * 30, [0.5] * 30)
    assert unchanged == Interval(low=pytest.approx(-0.1157, abs=1e-4), high=pytest.approx(0.1157, abs=1e-4))
    assert interval_of_mean([1.0]) == Interval(low=pytest.approx(0.025), high=1.0)


def test_equal_gains_are_equal_whatever_their_last_bit() -> None:
    assert interval_of_gain([0.1, 0.0] * 15, [0.3, 0.2] * 15) == interval_of_gain([0.0] * 30, [0.2] * 30)


def test_no_questions_no_interval() -> None:
    assert interval_of_mean([]) is None


def test_more_questions_give_a_shorter_interval() -> None:
    few, many = interval_of_mean([0.25, 0.75] * 10), interval_of_mean([0.25, 0.75] * 500)
    assert few is not None
    assert many is not None
    assert (many.high - many.low) < (few.high - few.low) / 5
