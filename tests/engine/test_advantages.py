"""Advantages: every estimator of verl's by name, and the definitions by hand."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sttrl.config import RestrainSettings
from sttrl.errors import UsageError
from sttrl.objectives.advantages import Advantages, Evidence, advantages
from sttrl.objectives.estimators import OWN_ESTIMATORS
from sttrl.objectives.registry import check_estimator, check_policy_loss, estimator_names, estimator_needs, policy_loss_names
from sttrl.objectives.restrain import restrain
from sttrl.types import Answer, Ballots
from sttrl.voting import VoteConfig, majority

REWARDS = st.lists(st.sampled_from([0.0, 1.0]) | st.floats(-5, 5, width=32), min_size=2, max_size=40)

BATCH_WIDE = {"gae", "gdpo", "gpg", "reinforce_plus_plus", "reinforce_plus_plus_baseline"}
"""These whiten over the batch, or (gpg) count the rewarded samples of all of it."""
VERLS = [name for name in estimator_names() if name not in OWN_ESTIMATORS]
ALONE = [name for name in VERLS if name not in BATCH_WIDE]


def evidence(reward_G: Sequence[float], length_G: Sequence[int], seed: int = 0) -> Evidence:
    """A group with everything that any estimator asks for."""
    chance = np.random.default_rng(seed)

    def column(low: float, high: float) -> tuple[tuple[float, ...], ...]:
        return tuple(tuple(float(x) for x in chance.uniform(low, high, n)) for n in length_G)

    return Evidence(
        reward_G=tuple(reward_G),
        length_G=tuple(length_G),
        value_GT=column(-1, 1),
        logprob_GT=column(-3, 0),
        sum_pi_squared_GT=column(0.1, 0.9),
        baseline=0.25,
    )


def of_samples(reward_G: Sequence[float], estimator: str) -> tuple[float, ...]:
    """One number a sample, where all its tokens share it."""
    only = advantages([evidence(reward_G, [1 + i % 3 for i in range(len(reward_G))])], estimator)[0]
    assert all(len(set(advantage_T)) == 1 for advantage_T in only.advantage_GT)
    return tuple(advantage_T[0] for advantage_T in only.advantage_GT)


def whitened(rows: Sequence[Sequence[float]]) -> list[list[float]]:
    flat = [x for row in rows for x in row]
    mean, variance = float(np.mean(flat)), float(np.var(flat, ddof=1))
    return [[(x - mean) / math.sqrt(variance + 1e-8) for x in row] for row in rows]


def flat(*rows_P: Sequence[Sequence[float]]) -> list[float]:
    return [x for rows in rows_P for row in rows for x in row]


def numbers(found: Advantages) -> list[float]:
    return flat(found.advantage_GT, found.return_GT)


FIRST = evidence([1.0, 0.0, 1.0], [3, 1, 2], seed=1)
SECOND = evidence([0.5, -1.0], [5, 2], seed=2)


@given(REWARDS)
def test_grpo_by_hand(reward_G: list[float]) -> None:
    mean, deviation = np.mean(reward_G), np.std(reward_G, ddof=1)
    assert of_samples(reward_G, "grpo") == pytest.approx([(r - mean) / (deviation + 1e-6) for r in reward_G], rel=1e-6, abs=1e-6)


@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=2, max_size=40))
def test_grpo_vectorized_is_grpo_in_float32(reward_G: list[float]) -> None:
    assert of_samples(reward_G, "grpo_vectorized") == pytest.approx(of_samples(reward_G, "grpo"), rel=1e-5, abs=1e-5)


@given(REWARDS)
def test_rloo_by_hand(reward_G: list[float]) -> None:
    others = [(math.fsum(reward_G) - r) / (len(reward_G) - 1) for r in reward_G]
    expected = [r - other for r, other in zip(reward_G, others, strict=True)]
    assert of_samples(reward_G, "rloo") == pytest.approx(expected, abs=1e-9)
    assert of_samples(reward_G, "rloo_vectorized") == pytest.approx(expected, abs=1e-9)


def test_opo_by_hand() -> None:
    """The baseline weighs rewards by length (arXiv 2505.23585): (3 * 1 + 1 * 0 + 2 * 1) / 6."""
    found = advantages([FIRST], "opo")[0]
    assert flat(found.advantage_GT) == pytest.approx([1 / 6] * 3 + [-5 / 6] + [1 / 6] * 2)


def test_remax_by_hand() -> None:
    """The greedy response's reward is the baseline (arXiv 2310.10505)."""
    found = advantages([FIRST], "remax")[0]
    assert flat(found.advantage_GT) == pytest.approx([0.75] * 3 + [-0.25] + [0.75] * 2)
    assert flat(found.return_GT) == pytest.approx([1.0] * 3 + [0.0] + [1.0] * 2)


def test_passk_by_hand() -> None:
    """The best earns its lead over the second (arXiv 2503.19595), over the standard deviation 1."""
    assert of_samples([0.0, 2.0, 1.0], "grpo_passk") == pytest.approx((0.0, 1.0, 0.0), abs=1e-5)


@pytest.mark.parametrize("gamma", [1.0, 0.5])
def test_reinforce_plus_plus_by_hand(gamma: float) -> None:
    return_RT = [[r * gamma ** (n - 1 - t) for t in range(n)] for g in (FIRST, SECOND) for r, n in zip(g.reward_G, g.length_G, strict=True)]
    found_P = advantages([FIRST, SECOND], "reinforce_plus_plus", gamma=gamma)
    assert flat(*(found.return_GT for found in found_P)) == pytest.approx(flat(return_RT))
    assert flat(*(found.advantage_GT for found in found_P)) == pytest.approx(flat(whitened(return_RT)))


def test_reinforce_plus_plus_baseline_by_hand() -> None:
    centred = [[r - float(np.mean(g.reward_G))] * n for g in (FIRST, SECOND) for r, n in zip(g.reward_G, g.length_G, strict=True)]
    found_P = advantages([FIRST, SECOND], "reinforce_plus_plus_baseline")
    assert flat(*(found.advantage_GT for found in found_P)) == pytest.approx(flat(whitened(centred)))


def gae_of(reward: float, value_T: Sequence[float], gamma: float, gae_lambda: float) -> list[float]:
    """The definition (arXiv 1506.02438): discounted sum of what each step found above what the critic expected."""
    next_T = [*value_T[1:], 0.0]
    last = len(value_T) - 1
    delta_T = [(reward if t == last else 0.0) + gamma * next_T[t] - value_T[t] for t in range(last + 1)]
    return [sum((gamma * gae_lambda) ** (s - t) * delta_T[s] for s in range(t, last + 1)) for t in range(last + 1)]


@pytest.mark.parametrize(("gamma", "gae_lambda"), [(1.0, 1.0), (0.9, 0.7), (1.0, 0.0)])
def test_gae_by_hand(gamma: float, gae_lambda: float) -> None:
    rows = [(r, v) for g in (FIRST, SECOND) for r, v in zip(g.reward_G, g.value_GT or (), strict=True)]
    raw = [gae_of(reward, value_T, gamma, gae_lambda) for reward, value_T in rows]
    found_P = advantages([FIRST, SECOND], "gae", gamma=gamma, gae_lambda=gae_lambda)
    assert flat(*(found.advantage_GT for found in found_P)) == pytest.approx(flat(whitened(raw)))
    returns = [[a + v for a, v in zip(raw_T, value_T, strict=True)] for raw_T, (_, value_T) in zip(raw, rows, strict=True)]
    assert flat(*(found.return_GT for found in found_P)) == pytest.approx(flat(returns))


@pytest.mark.parametrize("estimator", ["optimal_token_baseline", "tir_optimal_token_baseline"])
def test_optimal_token_baseline_by_hand(estimator: str) -> None:
    """Baseline of position t: returns weighed by the path's sum of 1 - 2p + sum of p squared, over samples that reach t."""
    assert FIRST.logprob_GT and FIRST.sum_pi_squared_GT
    weight_GT = [
        np.cumsum([1 - 2 * math.exp(l) + s for l, s in zip(l_T, s_T, strict=True)])  # noqa: E741
        for l_T, s_T in zip(FIRST.logprob_GT, FIRST.sum_pi_squared_GT, strict=True)
    ]
    baseline_T = []
    for t in range(3):
        reach = [i for i, n in enumerate(FIRST.length_G) if n > t]
        total = sum(weight_GT[i][t] for i in reach)
        baseline_T.append(sum(FIRST.reward_G[i] * weight_GT[i][t] for i in reach) / (total + 1e-8))
    baseline_T[2] = 0.0  # one sample reaches position 2, so nothing there to compare it with
    expected = [[r - baseline_T[t] for t in range(n)] for r, n in zip(FIRST.reward_G, FIRST.length_G, strict=True)]
    found = advantages([FIRST], estimator)[0]
    assert flat(found.advantage_GT) == pytest.approx(flat(expected))
    assert flat(found.return_GT) == pytest.approx([1.0] * 3 + [0.0] + [1.0] * 2)


@pytest.mark.parametrize("estimator", VERLS)
def test_every_estimator_gives_each_token_a_finite_number(estimator: str) -> None:
    found_P = advantages([FIRST, SECOND], estimator, gamma=0.9, gae_lambda=0.8)
    for group, found in zip((FIRST, SECOND), found_P, strict=True):
        assert tuple(map(len, found.advantage_GT)) == tuple(map(len, found.return_GT)) == group.length_G
        assert all(map(math.isfinite, numbers(found)))
    assert any(x != 0 for found in found_P for x in flat(found.advantage_GT))


@pytest.mark.parametrize("estimator", VERLS)
def test_an_estimator_asks_for_what_it_needs_and_for_no_more(estimator: str) -> None:
    fields = {"values": ("value_GT",), "baseline": ("baseline",), "token_stats": ("logprob_GT", "sum_pi_squared_GT")}
    needs = estimator_needs(estimator)
    spared: dict[str, Any] = {field: None for need in fields.keys() - needs for field in fields[need]}
    enough = [dataclasses.replace(group, **spared) for group in (FIRST, SECOND)]
    assert advantages(enough, estimator) == advantages([FIRST, SECOND], estimator)
    for need in needs:
        for field in fields[need]:
            without: dict[str, Any] = {field: None}
            with pytest.raises(AssertionError, match=need):
                advantages([dataclasses.replace(FIRST, **without)], estimator)


def test_ddrls_advantage_is_fixed_by_hand() -> None:
    """1 for a reward of 1 and -1 for a reward of 0, however many samples of the group are rewarded."""
    for reward_G, advantage_G in (([1.0, 0.0, 0.0, 0.0], (1.0, -1.0, -1.0, -1.0)), ([1.0, 1.0, 1.0], (1.0, 1.0, 1.0)), ([0.0], (-1.0,))):
        assert of_samples(reward_G, "dae") == advantage_G
    uneven = advantages([evidence([0.0, 1.0], [1, 4]), evidence([1.0], [2])], "dae")
    assert [found.advantage_GT for found in uneven] == [((-1.0,), (1.0,) * 4), ((1.0, 1.0),)]
    assert not estimator_needs("dae") and "dae" in estimator_names()
    for reward_G in ([1.0, 0.5], [0.0, -1.0]):
        with pytest.raises(ValueError, match="dae takes rewards of 0 and 1"):
            of_samples(reward_G, "dae")


def test_the_reward_itself_is_an_advantage() -> None:
    assert of_samples([0.5, -1.0, 0.0], "reinforce") == (0.5, -1.0, 0.0) and of_samples([2.0], "reinforce") == (2.0,)
    assert not estimator_needs("reinforce")


@given(st.lists(st.none() | st.sampled_from("abcd"), min_size=2, max_size=20))
def test_restrain_is_the_weighed_mean_of_verls_grpo_over_all_answers(labels: list[str | None]) -> None:
    """Each answer in turn is the label, and verl computes the advantages; sigma is so large that all answers weigh the same."""
    answers = list(dict.fromkeys(label for label in labels if label is not None))
    ballots = Ballots(
        answer_G=tuple(Answer(text=label, invalid=None if label else "cut") for label in labels),
        class_G=tuple(None if label is None else answers.index(label) for label in labels),
        representative_C=tuple(answers),
    )
    found = restrain(
        ballots, majority(ballots, VoteConfig()), range(len(labels)), RestrainSettings(restrain_sigma=1e6, restrain_min_share=0.0)
    )
    of_each = [of_samples([float(label == answer) for label in labels], "grpo") for answer in answers]
    expected = [sum(column) / len(answers) for column in zip(*of_each, strict=True)] or [0.0] * len(labels)
    assert found == pytest.approx(expected, abs=1e-5)


def test_what_the_estimators_of_today_need() -> None:
    needy = {name: set(estimator_needs(name)) for name in estimator_names() if estimator_needs(name)}
    assert needy == {
        "gae": {"values"},
        "remax": {"baseline"},
        "optimal_token_baseline": {"token_stats"},
        "tir_optimal_token_baseline": {"token_stats"},
    }


@pytest.mark.parametrize("estimator", ALONE)
def test_a_group_in_a_batch_is_a_group_alone(estimator: str) -> None:
    """Whatever the other groups' rewards, and however long their padding makes every row."""
    alone = numbers(advantages([FIRST], estimator)[0])
    for other in (SECOND, evidence([3.0, 4.0], [40, 1], seed=3)):
        assert numbers(advantages([FIRST, other], estimator)[0]) == pytest.approx(alone, rel=1e-12)
        assert numbers(advantages([other, FIRST], estimator)[1]) == pytest.approx(alone, rel=1e-12)


@pytest.mark.parametrize("estimator", sorted(BATCH_WIDE))
def test_a_batch_does_not_depend_on_the_order_of_its_groups(estimator: str) -> None:
    straight = advantages([FIRST, SECOND], estimator, gamma=0.9, gae_lambda=0.8)
    turned = advantages([SECOND, FIRST], estimator, gamma=0.9, gae_lambda=0.8)
    for found, again in zip(straight, reversed(turned), strict=True):
        assert numbers(found) == pytest.approx(numbers(again), rel=1e-9)


@given(REWARDS, st.randoms())
def test_grpo_sums_to_nothing_and_follows_its_samples(reward_G: list[float], chance: Any) -> None:
    advantage_G = of_samples(reward_G, "grpo")
    assert math.fsum(advantage_G) == pytest.approx(0, abs=1e-4)
    order = list(range(len(reward_G)))
    chance.shuffle(order)
    assert of_samples([reward_G[i] for i in order], "grpo") == pytest.approx([advantage_G[i] for i in order], rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("estimator", ["grpo", "grpo_vectorized", "grpo_passk", "rloo", "rloo_vectorized"])
def test_equal_rewards_teach_nothing(estimator: str) -> None:
    assert of_samples([1.0] * 8, estimator) == of_samples([0.0] * 8, estimator) == (0.0,) * 8


@given(st.floats(-100, 100), st.integers(2, 70))
def test_equal_rewards_teach_nothing_but_rounding(reward: float, samples: int) -> None:
    """grpo divides the rounding of a mean by at least 1e-6."""
    assert of_samples([reward] * samples, "grpo") == pytest.approx((0.0,) * samples, abs=1e-6)


def test_no_groups_no_advantages() -> None:
    assert advantages([], "gae") == ()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_rewards_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        advantages([Evidence(reward_G=(1.0, bad), length_G=(1, 1))])
    with pytest.raises(ValueError, match="finite"):
        advantages([Evidence(reward_G=(1.0, 0.0), length_G=(1, 1), baseline=bad)], "remax")


def test_columns_fit_their_responses() -> None:
    with pytest.raises(AssertionError, match="a sample"):
        advantages([Evidence(reward_G=(1.0, 0.0), length_G=(1, 0))])
    with pytest.raises(AssertionError, match="a token"):
        advantages([Evidence(reward_G=(1.0,), length_G=(2,), value_GT=((0.0,),))], "gae")


def test_verls_names_are_checked() -> None:
    assert {"gae", "grpo", "rloo", "reinforce_plus_plus", "remax", "opo"} <= set(estimator_names())
    assert {"vanilla", "gspo", "clip_cov", "kl_cov"} <= set(policy_loss_names())
    for name in estimator_names():
        check_estimator(name)
    for name in policy_loss_names():
        check_policy_loss(name)


def test_a_wrong_name_lists_them_all() -> None:
    with pytest.raises(UsageError) as estimator:
        check_estimator("grop")
    assert estimator.value.message == "--adv_estimator 'grop' is unknown."
    assert all(name in estimator.value.hint for name in estimator_names()) and "\n" not in str(estimator.value)
    with pytest.raises(UsageError) as loss:
        check_policy_loss("vanila")
    assert loss.value.message == "--policy_loss 'vanila' is unknown."
    assert all(name in loss.value.hint for name in policy_loss_names()) and "\n" not in str(loss.value)
