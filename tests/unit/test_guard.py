"""TTRL-Guard's weight, bonus and risk against computations by hand."""

from __future__ import annotations

import pytest
from test_rewards import ballots_of

from sttrl.config import RunConfig
from sttrl.errors import UsageError
from sttrl.objectives.guard import PastVote, flips, frs_weight, is_risky, most_skipped, mps_bonus
from sttrl.voting import VoteConfig, majority


def votes(*elected: str, ratios: float | list[float] = 0.5) -> list[PastVote]:
    """Votes that elected these answers; a "-" abstained."""
    every = [ratios] * len(elected) if isinstance(ratios, float) else ratios
    return [PastVote(elected=frozenset({e} - {"-"}), majority_ratio=r) for e, r in zip(elected, every, strict=True)]


def test_an_answer_flips_if_it_shares_no_text_with_the_one_before() -> None:
    assert flips(votes("a", "a", "b", "-", "-", "b")) == [False, False, True, True, False, True]
    halves = [PastVote(elected=frozenset(texts), majority_ratio=0.5) for texts in ({"1/2", "0.5"}, {"0.5"}, {"1/2"})]
    assert flips(halves) == [False, False, True] and flips(halves[:1]) == [False]


def test_the_weight_after_a_flip() -> None:
    """1 - .5 after a flip; times 1 - .3 if the new majority is above .6."""
    assert frs_weight(votes("a")) == frs_weight(votes("a", "b", "b")) == 1.0
    assert frs_weight(votes("a", "b")) == frs_weight(votes("a", "b", ratios=[0.9, 0.6])) == 0.5
    assert frs_weight(votes("a", "b", ratios=[0.1, 0.61])) == pytest.approx(0.35)


def test_the_weight_of_a_question_that_never_flipped() -> None:
    """1 - .3 / 2 from the fifth sure vote on, five times; not if the mean of the last five is .6."""
    always = votes(*"a" * 12, ratios=0.9)
    assert [frs_weight(always[:n]) for n in range(1, 13)] == [1.0] * 4 + [0.85] * 5 + [1.0] * 3
    assert frs_weight(votes(*"aaaaa", ratios=0.6)) == 1.0 and frs_weight(votes(*"aaaaa", ratios=[0.1, 0.8, 0.8, 0.8, 0.8])) == 0.85
    assert frs_weight(votes(*"baaaaa", ratios=0.9)) == 1.0
    assert [frs_weight(always[:n], 2) for n in range(1, 6)] == [1.0, 0.85, 0.85, 1.0, 1.0]


def test_a_question_is_risky_if_it_flipped_once_and_is_sure_now() -> None:
    sure = [0.1, 0.8, 0.8, 0.8, 0.8, 0.8]
    assert is_risky(votes(*"baaaaa", ratios=sure)) and not is_risky(votes(*"aaaaaa", ratios=sure))
    assert not is_risky(votes(*"baaa", ratios=0.9)), "four votes are too few"
    assert not is_risky(votes(*"baaaa", ratios=sure[:5])) and is_risky(votes(*"baaaa", ratios=sure[:5]), share=0.5), "a mean of .66"
    assert is_risky(votes("b", "a", ratios=0.9), window=2)
    assert [most_skipped(n) for n in (1, 4, 7, 8, 32)] == [1, 1, 1, 2, 8]


def test_the_bonus_of_minorities() -> None:
    """12 samples: 4 for a, which is elected by its first place; 4 for b and 3 for c, of at least 12 / 4; one without an answer."""
    cast = ballots_of([*"aaaabbbbccc", None])
    election = majority(cast, VoteConfig(ties="first"))
    b, c = 0.3 * 4 / 7, 0.3 * 3 / 7
    assert mps_bonus(cast, election) == pytest.approx((*[0.0] * 4, *[b] * 4, *[c] * 3, 0.05 * (b + c) / 2))
    rare = ballots_of([*"aaaaaaaabbcc"])
    assert mps_bonus(rare, majority(rare, VoteConfig())) is None, "two of 12 are less than a quarter"


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"guard": ("frs",), "adaptation_method": "ttft"}, "--guard .* does nothing with --adaptation_method ttft"),
        ({"guard": ("frs",), "steps": 1}, "--guard frs does nothing with --steps 1: it needs 2 votes"),
        ({"guard": ("mps", "rcsu"), "steps": 4}, "--guard rcsu does nothing with --steps 4: it needs 5 votes"),
        ({"guard": ("rcsu",), "adaptation_method": "ttrl", "epochs": 3}, "--guard rcsu does nothing with --epochs 3"),
        ({"guard_share": 0.5}, "--guard_share 0.5 does nothing without --guard"),
        ({"guard": ("frs", "mps"), "guard_skip": 0.5}, "--guard_skip 0.5 does nothing with --guard frs mps"),
        ({"guard": ("mps",), "guard_window": 3}, "--guard_window 3 does nothing with --guard mps"),
    ],
)
def test_what_does_nothing_is_refused(settings: dict[str, object], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        RunConfig.of(**settings)


def test_a_part_can_be_left_out_of_the_preset() -> None:
    assert RunConfig.of(preset="guard", guard=("mps",)).ttrl_guard.guard_share == 0.7, "what rcsu alone reads is left out"
    assert RunConfig.of(preset="guard", guard=("mps", "rcsu")).ttrl_guard.guard_share == 0.5
