"""The intervals and p-values tell the truth: simulated coverage and size, cases by hand, and what must hold for any values."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sttrl.report.statistics import SIGN_FLIPS, Interval, interval_of_gain, interval_of_mean, p_value_of_gain, weighed

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
@pytest.mark.slow
def test_coverage_of_a_mean(a: float, b: float) -> None:
    _, share = simulated(np.random.default_rng(11), a, b)
    covered = coverage([interval_of_mean(list(run)) for run in share], a / (a + b))
    print(f"beta({a}, {b}): {covered:.4f}")
    assert 0.93 <= covered <= 0.97


@pytest.mark.parametrize(("solved", "spoilt"), [(0.0, 0.0), (0.3, 0.1), (0.1, 0.1)])
@pytest.mark.slow
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


def p_value(before: list[float], after: list[float]) -> float:
    found = p_value_of_gain(before, after)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("gains", "as_extreme"),
    [
        ([0.5, 0.25, 0.125], 2),  # the signs +++ and ---
        ([0.5, 0.25, -0.125], 4),  # sums of at least .625 either way: +++, ++-, ---, --+
        ([0.5, -0.25, -0.125], 8),  # +--, the smallest of all
        ([0.25, 0.25, 0.25], 2),
        ([0.1, 0.2, -0.3], 8),  # the sum is 0
        ([0.3, 0.2, -0.1], 4),
    ],
)
def test_p_value_of_three_questions_by_hand(gains: list[float], as_extreme: int) -> None:
    assert p_value([0.5] * 3, [0.5 + gain for gain in gains]) == as_extreme / 8
    assert p_value([0.5] * 3 + [0.1, 0.9], [0.5 + gain for gain in gains] + [0.1, 0.9]) == as_extreme / 8, "no difference, no sign"


def test_without_differences_p_is_one() -> None:
    assert p_value([0.5] * 30, [0.5] * 30) == 1.0
    assert p_value([0.5], [0.75]) == 1.0
    assert p_value([0.5] * 9, [0.5] * 8 + [0.75]) == 1.0, "one question changed: it may have gone either way"
    assert p_value_of_gain([], []) is None


def test_the_smallest_p_values() -> None:
    assert p_value([0.0] * 13, [0.5] * 13) == 2 / 2**13
    assert p_value([0.0] * 40, [0.5] * 40) == 2 / (SIGN_FLIPS + 1)


@given(shares, st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_p_values_are_symmetric_and_know_no_order(values: list[float], shuffler: random.Random) -> None:
    pairs = list(zip(values, values[::-1], strict=True))[: len(values) // 2 + 1]
    there = p_value([before for before, _ in pairs], [after for _, after in pairs])
    back = p_value([after for _, after in pairs], [before for before, _ in pairs])
    shuffler.shuffle(pairs)
    assert there == back == p_value([before for before, _ in pairs], [after for _, after in pairs])
    assert 0 < there <= 1


def rejections(before: NDArray[np.float64], after: NDArray[np.float64]) -> float:
    """Share of simulated comparisons with a p-value of at most .05."""
    return float(np.mean([p_value(list(b), list(a)) <= 0.05 for b, a in zip(before, after, strict=True)]))


@pytest.mark.parametrize(
    ("questions", "samples", "tests", "lowest"), [(10, 1000, 2000, 0.04), (12, SAMPLES, 1000, 0.02), (30, SAMPLES, 400, 0.03)]
)
@pytest.mark.slow
def test_size_of_the_permutation_test(questions: int, samples: int, tests: int, lowest: float) -> None:
    """Two runs of one policy are told apart in about 5 % of cases; in fewer where a dozen questions have few values to differ by."""
    generator = np.random.default_rng(13)
    ability = generator.beta(1.0, 1.0, size=(tests, questions))
    one, other = (generator.binomial(samples, ability) / samples for _ in range(2))
    rejected = rejections(one, other)
    print(f"{questions} questions x {samples} samples, no gain: {rejected:.4f}")
    assert lowest <= rejected <= 0.06


@pytest.mark.slow
def test_power_of_the_permutation_test() -> None:
    """A policy that brings four questions of ten to 1 is told apart from its base."""
    generator = np.random.default_rng(14)
    ability = generator.beta(1.0, 1.0, size=(150, 30))
    solved = np.where(generator.random(ability.shape) < 0.4, 1.0, ability)
    before, after = (generator.binomial(SAMPLES, each) / SAMPLES for each in (ability, solved))
    rejected = rejections(before, after)
    print(f"30 questions, a gain of .2: {rejected:.4f}")
    assert rejected > 0.8


def test_an_interval_and_a_p_value_agree_on_a_clear_case() -> None:
    before, after = [0.0] * 10 + [0.5] * 10, [0.5] * 10 + [0.75] * 10
    interval = interval_of_gain(before, after)
    assert interval is not None
    assert interval.low > 0 and p_value(before, after) < 0.05


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


weighted = st.lists(st.tuples(st.integers(0, 4).map(lambda hits: hits / 4), st.integers(1, 5)), min_size=1, max_size=30)


@given(weighted)
@settings(max_examples=60, deadline=None)
def test_weighed_values_have_the_weighted_mean(pairs: list[tuple[float, int]]) -> None:
    values, weights = [value for value, _ in pairs], [float(weight) for _, weight in pairs]
    assert np.mean(weighed(values, weights)) == pytest.approx(np.average(values, weights=weights), abs=1e-12)


@given(shares, st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_equal_weights_give_the_plain_interval(values: list[float], weight: int) -> None:
    assert interval_of_mean(weighed(values, [float(weight)] * len(values))) == interval_of_mean(values)


@given(weighted, st.integers(2, 7))
@settings(max_examples=60, deadline=None)
def test_only_the_ratios_of_weights_matter(pairs: list[tuple[float, int]], factor: int) -> None:
    values, weights = [value for value, _ in pairs], [float(weight) for _, weight in pairs]
    assert weighed(values, [weight * factor for weight in weights]) == pytest.approx(weighed(values, weights), abs=1e-12)
