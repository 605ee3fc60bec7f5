"""RESTRAIN's advantages against a computation by hand."""

from __future__ import annotations

import math

import pytest
from test_rewards import ballots_of

from sttrl.config import RestrainSettings, RunConfig
from sttrl.errors import UsageError
from sttrl.methods.reinforce import nothing_to_learn
from sttrl.objectives.restrain import prompt_weight, restrain
from sttrl.objectives.rewards import REWARDS, reward_of_run
from sttrl.types import Group, HeldVote
from sttrl.voting import VoteConfig, majority


def advantages(*answers: str | None, greedy: str | None = "", config: RestrainSettings | None = None) -> tuple[float, ...]:
    """The advantages of samples with these answers; ``greedy``: of one response more."""
    everyone = ballots_of([*answers, *([greedy] if greedy != "" else [])])
    return restrain(everyone, majority(ballots_of(answers), VoteConfig()), range(len(everyone.class_G)), config or RestrainSettings())


def test_four_samples_by_hand() -> None:
    """Shares 1/2 and 1/4. g(1/2) = exp(-2) and g(1/4) = exp(-9/2). The standard deviations of the rewards (divided by n - 1) are
    sqrt(1/3) and 1/2, so GRPO's advantages are (1 or 0, less 1/2) * sqrt(3), and (1 or 0, less 1/4) * 2."""
    a, b = math.exp(-2), math.exp(-9 / 2)
    a, b = a / (a + b), b / (a + b)
    first, second, none = a * math.sqrt(3) / 2 - b / 2, -a * math.sqrt(3) / 2 + b * 3 / 2, -a * math.sqrt(3) / 2 - b / 2
    assert advantages("a", "a", "b", None) == pytest.approx((first, first, second, none), abs=1e-5)
    assert (first, second, none) == pytest.approx((0.762, -0.686, -0.838), abs=1e-3)


def test_a_narrow_gaussian_leaves_the_majority_alone() -> None:
    narrow = advantages("a", "a", "b", None, config=RestrainSettings(restrain_sigma=0.01))
    assert narrow == pytest.approx((math.sqrt(3) / 2, math.sqrt(3) / 2, -math.sqrt(3) / 2, -math.sqrt(3) / 2), abs=1e-5)


def test_where_no_answer_is_frequent_all_are_punished() -> None:
    """At 16 samples of which no two agree, 1/16 is less than 1/8; with two that agree it is not."""
    alone = [chr(ord("a") + i) for i in range(16)]
    assert advantages(*alone) == (-1.0,) * 16
    assert advantages(*alone, config=RestrainSettings(restrain_offset=0.25)) == (-0.25,) * 16
    two = advantages(*alone[:15], "a")
    assert two[0] == two[15] > 0 > two[1]


def test_a_majority_of_a_third_among_answers_that_stand_alone_is_rewarded() -> None:
    """A wide Gaussian would weigh 44 answers that stand alone more than the one that 20 samples gave: sigma 1/2 does."""
    answers = [*["a"] * 20, *[f"{i}" for i in range(44)]]
    sure = advantages(*answers)
    assert sure[0] > 0 > sure[-1]
    wide = advantages(*answers, config=RestrainSettings(restrain_sigma=0.5))
    assert wide[0] < 0 < wide[-1]


def test_agreement_of_all_and_answers_of_none_teach_nothing() -> None:
    assert advantages("a", "a", "a") == (0.0,) * 3 and advantages(None, None) == (0.0,) * 2


def test_one_response_more_earns_what_its_answer_does_and_changes_nothing() -> None:
    plain = advantages("a", "a", "b", None)
    for greedy, expected in (("a", plain[0]), ("b", plain[2]), ("c", plain[3]), (None, plain[3])):
        assert advantages("a", "a", "b", None, greedy=greedy) == (*plain, expected)


def test_the_weight_of_a_question_by_hand() -> None:
    assert prompt_weight(1.0) == 1.0 and prompt_weight(0.5) == math.exp(-2)
    assert prompt_weight(0.5, RestrainSettings(restrain_sigma=1.0, restrain_center=0.75)) == math.exp(-1 / 32)


def test_the_settings_of_a_run_reach_it() -> None:
    cast = ballots_of(["a", "b", "c", "c"])
    election = majority(cast, VoteConfig())
    run = RunConfig.of(reward="restrain", adv_estimator="reinforce", restrain_min_share=0.75, restrain_offset=2.0)
    assert reward_of_run(run).function(cast, election, range(4)) == (-2.0,) * 4
    other = RunConfig.of(reward="restrain", adv_estimator="reinforce", restrain_sigma=0.2, restrain_center=0.9)
    assert reward_of_run(other).function(cast, election, range(4)) == restrain(
        cast, election, range(4), RestrainSettings(restrain_sigma=0.2, restrain_center=0.9)
    )
    assert REWARDS["restrain"].function(cast, election, range(4)) == advantages("a", "b", "c", "c"), "its defaults are the command line's"


def test_equal_advantages_teach_unless_they_are_0() -> None:
    """The estimator reinforce subtracts nothing, so rewards that are all -1 are no reason to stop."""
    cast = ballots_of(["a", "b", "c", "c"])
    election = majority(cast, VoteConfig())
    config = RunConfig.of(reward="restrain", adv_estimator="reinforce")
    for reward, stop in ((-1.0, None), (0.0, "unanimous")):
        group = Group(prompt_T=(1,), rollout_G=())
        vote = HeldVote(group=group, ballots=cast, election=election, majority=election, reward_G=(reward,) * 4)
        assert nothing_to_learn(config, vote) == stop


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"reward": "restrain"}, "--reward restrain with --adv_estimator grpo"),
        ({"restrain_sigma": 0.3}, "--restrain_sigma 0.3 does nothing with --reward agreement"),
        ({"reward": "restrain", "adv_estimator": "reinforce", "restrain_sigma": 0.0}, "--restrain_sigma is 0.0"),
        ({"restrain_prompt_weight": False}, "--restrain_prompt_weight False does nothing"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, object], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        RunConfig.of(**settings)
