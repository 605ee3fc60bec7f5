"""Static limits: what they turn away, and what they must let through."""

from __future__ import annotations

import time

import pytest

from sttrl.questions.answers import Limits, exceeded
from sttrl.questions.answers.limits import nesting, tower_height


@pytest.mark.parametrize(
    ("answer", "limit"),
    [
        ("1" * 401, "answer_chars"),
        ("{" * 17 + "}" * 17, "nesting"),
        (r"\begin{a}" * 17, "nesting"),
        ("9" * 61, "number_digits"),
        ("+".join("x" * 122), "operators"),
        ("2^{10000}", "exponent"),
        ("2**99999", "exponent"),
        ("(9^{999})^{999}", "exponent"),
        ("9^{9^{9}}", "tower"),
        ("9^9^9", "tower"),
        ("x^{9^{9^{9}}}", "tower"),
        ("1001!", "factorial"),
        ("9!!", "factorial"),
        ("(9!)!", "factorial"),
        ("(9^{9})!", "factorial"),
    ],
)
def test_a_hostile_answer_is_named_by_the_limit_it_exceeds(answer: str, limit: str) -> None:
    assert exceeded(answer, Limits()) == limit


@pytest.mark.parametrize(
    "answer",
    ["", "2^{2024}", "10^{100}", "100!", "(n+1)!", "n!", "2^{2^{n}}", "e^{-x^2}", "x^8+x^7+x^6+x^5+x^4+x^3+x^2+x+1", "a != b"],
)
def test_an_honest_answer_passes(answer: str) -> None:
    assert exceeded(answer, Limits()) is None


@pytest.mark.parametrize(
    ("answer", "height"),
    [("x", 0), ("x^2", 1), ("x^2y^3", 1), ("2^{3^4}", 2), ("2^3^4", 2), ("(2^3)^4", 1), ("2^{3}^{4}", 2), ("2^{a+b^{c}}+d^2", 2)],
)
def test_height_of_a_power_tower(answer: str, height: int) -> None:
    assert tower_height(answer) == height


def test_nesting_counts_depth_and_not_brackets() -> None:
    assert nesting("{}" * 50) == 1
    assert nesting("([{}])") == 3


def test_the_longest_text_takes_little_time_of_the_processor() -> None:
    start_s = time.thread_time()
    assert exceeded("9^" * 500_000, Limits()) == "answer_chars"
    assert exceeded("((" * 500_000, Limits(answer_chars=10**7)) == "nesting"
    assert time.thread_time() - start_s < 5
