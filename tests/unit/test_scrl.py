"""SCRL's reward against a computation by hand."""

from __future__ import annotations

import pytest

from sttrl.config import RunConfig, ScrlSettings
from sttrl.errors import UsageError
from sttrl.objectives.rewards import REWARDS, reward_of_run, scrl
from sttrl.types import Answer, Ballots, TokenStats
from sttrl.voting import VoteConfig, majority

Sample = tuple[str | None, tuple[float, ...]]
FIXED = ScrlSettings()
SHAPED = ScrlSettings(scrl_form="shaped", scrl_entropy_weight=0.5)


def rewards(samples: list[Sample], config: ScrlSettings = FIXED, greedy: Sample | None = None) -> tuple[float, ...]:
    """The rewards of samples with (answer, entropy of each token), the greedy response last."""
    voted, everyone = ballots_of(samples), ballots_of([*samples, *([greedy] if greedy else [])])
    return scrl(everyone, majority(voted, VoteConfig()), range(len(everyone.class_G)), config)


def ballots_of(samples: list[Sample]) -> Ballots:
    numbers: dict[str, int] = {}
    return Ballots(
        answer_G=tuple(Answer(text=None, invalid="cut") if label is None else Answer(text=label) for label, _ in samples),
        class_G=tuple(None if label is None else numbers.setdefault(label, len(numbers)) for label, _ in samples),
        representative_C=tuple(numbers),
        stats_G=tuple(TokenStats(entropy_T=entropy_T) for _, entropy_T in samples),
    )


def group(first: int) -> list[Sample]:
    """Sixteen samples: ``first`` of class a; b to the end of thirteen; three that stand alone, one of them without an answer.

    The entropies of the samples are 1 but for c (3), d (0.5) and the one without an answer (0.5): 16 samples have a mean of 17 / 16.
    """
    ones: list[Sample] = [("a", (1.0, 1.0))] * first + [("b", (0.5, 1.5))] * (13 - first)
    return [*ones, ("c", (2.0, 4.0)), ("d", (0.5,)), (None, (0.5,))]


def test_a_clear_majority_is_rewarded_and_a_rare_unsure_answer_is_punished() -> None:
    """a has 8 / 16 and leads by 3 / 16. c and d have 1 / 16 each; only c is less sure than the group."""
    assert rewards(group(8)) == (*(1.0,) * 8, *(0.0,) * 5, -1.0, 0.0, -1.0)


def test_nobody_is_rewarded_without_a_clear_majority_and_the_rare_are_still_punished() -> None:
    """a has 7 / 16, which is enough, and leads by 1 / 16, which is not."""
    assert rewards(group(7)) == (*(0.0,) * 13, -1.0, 0.0, -1.0)


def test_the_edges_of_share_and_margin() -> None:
    """6 / 16 is enough as a share, and 2 / 16 is not enough as a margin; 2 / 16 is no rare class."""
    six_of_a: list[Sample] = [("a", (1.0,))] * 6
    assert rewards([*six_of_a, *[("b", (1.0,))] * 4, *[("c", (1.0,))] * 4, *[("d", (9.0,))] * 2])[:6] == (0.0,) * 6
    wide: list[Sample] = [*six_of_a, *[("b", (1.0,))] * 3, *[("c", (1.0,))] * 3, *[("d", (9.0,))] * 2, *[("e", (9.0,))] * 2]
    assert rewards(wide) == (*(1.0,) * 6, *(0.0,) * 10), "nobody has less than 2 / 16"
    assert rewards(wide, ScrlSettings(scrl_negative_share=0.13)) == (*(1.0,) * 6, *(0.0,) * 6, *(-1.0,) * 4)
    assert rewards(wide, ScrlSettings(scrl_positive_share=0.376)) == (0.0,) * 16


def test_the_shaped_reward_by_hand() -> None:
    """p, p - 0.125 or 0, each minus half of (entropy of the class - 17 / 16)."""
    found = rewards(group(8), SHAPED)
    a, b, c, d = 8 / 16 + 0.5 / 16, 0.5 / 16, 1 / 16 - 0.125 - 0.5 * (3 - 17 / 16), -0.5 * (0.5 - 17 / 16)
    assert found == pytest.approx((*(a,) * 8, *(b,) * 5, c, d, -1.0))


def test_entropies_that_differ_by_rounding_are_equal() -> None:
    """A class of one with exactly the group's entropy is negative, however the means are rounded."""
    for samples in range(9, 40):
        alike: list[Sample] = [("a", (0.1, 0.7, 0.3))] * (samples - 1) + [("b", (0.1, 0.7, 0.3))]
        assert rewards(alike) == (*(1.0,) * (samples - 1), -1.0)


def test_all_alike_and_nobody_with_an_answer() -> None:
    assert rewards([("a", (1.0,))] * 4) == (1.0,) * 4, "nobody is second: the lead is the share"
    assert rewards([(None, (1.0,))] * 4) == (-1.0,) * 4


def test_a_greedy_response_is_no_sample() -> None:
    for greedy, earned in (
        (("a", (50.0,)), 1.0),
        (("c", (0.0,)), -1.0),
        (("new", (50.0,)), -1.0),
        (("new", (0.0,)), 0.0),
        ((None, (1.0,)), -1.0),
    ):
        assert rewards(group(8), greedy=greedy) == (*rewards(group(8)), earned)


def test_a_run_has_its_thresholds() -> None:
    ballots = ballots_of(group(7))
    election = majority(ballots, VoteConfig())
    for settings, first in (({}, 0.0), ({"scrl_margin": 0.0}, 1.0), ({"scrl_margin": 0.0, "scrl_positive_share": 0.5}, 0.0)):
        reward = reward_of_run(RunConfig.of(reward="scrl", **settings))
        assert reward.function(ballots, election, range(16))[0] == first
    shaped = reward_of_run(RunConfig.of(reward="scrl", scrl_form="shaped", scrl_entropy_weight=0.5)).function(ballots, election, range(16))
    assert shaped == rewards(group(7), SHAPED)
    assert REWARDS["scrl"].function(ballots, election, range(16)) == rewards(group(7)), "its defaults are the command line's"


def test_its_settings_belong_to_it() -> None:
    for settings in ({"scrl_margin": 0.2}, {"reward": "scrl", "scrl_entropy_weight": 0.2}, {"scrl_form": "shaped"}):
        with pytest.raises(UsageError, match="does nothing with --"):
            RunConfig.of(**settings)
