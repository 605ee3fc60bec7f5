"""Pseudo-rewards, and MEMO's against the exact gradient of an entropy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sttrl.config import RewardKind
from sttrl.objectives.rewards import REWARDS, memo_answer_rewards
from sttrl.types import Answer, Ballots, Stat, TokenStats
from sttrl.voting import VoteConfig, majority

TOKENS = st.lists(st.floats(-30, 30), min_size=1, max_size=5).map(tuple)
SAMPLE = st.tuples(st.none() | st.sampled_from("abcd"), TOKENS, st.integers(0, 2**63 - 1))
GROUP = st.lists(SAMPLE, min_size=1, max_size=30)
Sample = tuple[str | None, tuple[float, ...], int]
COMPUTED = [name for name in REWARDS if name != "demonstrations"]
"""Those that are computed from a vote; `demonstrations` is what the kind of problem gave."""
ADVANTAGES = ("restrain",)
"""Those that may be below 0."""
MEASURED = [name for name, reward in REWARDS.items() if reward.stats]


def ballots_of(label_G: Sequence[str | None], token_GT: Sequence[tuple[float, ...]] | None = None) -> Ballots:
    """Ballots with these answers; every statistic the rewards read has the same numbers."""
    numbers: dict[str, int] = {}
    class_G = tuple(None if label is None else numbers.setdefault(label, len(numbers)) for label in label_G)
    answer_G = tuple(Answer(text=None, invalid="cut") if label is None else Answer(text=label) for label in label_G)
    stats_G = None if token_GT is None else tuple(TokenStats(logprob_T=t, entropy_T=t, self_certainty_T=t) for t in token_GT)
    return Ballots(answer_G=answer_G, class_G=class_G, representative_C=tuple(numbers), stats_G=stats_G)


def rewards_of(name: str, group: Sequence[Sample]) -> tuple[float, ...]:
    ballots = ballots_of([label for label, _, _ in group], [token_T for _, token_T, _ in group])
    return REWARDS[name].function(ballots, majority(ballots, VoteConfig()), [seed for _, _, seed in group])


def of_labels(name: str, labels: Sequence[str | None]) -> tuple[float, ...]:
    return rewards_of(name, [(label, (0.0,), i) for i, label in enumerate(labels)])


def test_the_table_and_the_flag_agree() -> None:
    assert tuple(REWARDS) == get_args(RewardKind)
    assert [name for name, reward in REWARDS.items() if reward.elects] == ["agreement"]
    assert all(reward.stats <= set(get_args(Stat)) and reward.function.__doc__ for reward in REWARDS.values())


def test_the_reward_of_demonstrations_is_what_the_kind_of_problem_gave() -> None:
    ballots = ballots_of(["a", None])
    given_by_kind, election = replace(ballots, reward_G=(0.5, 0.0)), majority(ballots, VoteConfig())
    assert REWARDS["demonstrations"].function(given_by_kind, election, [0, 1]) == (0.5, 0.0)
    with pytest.raises(ValueError, match="demonstrations"):
        REWARDS["demonstrations"].function(ballots, election, [0, 1])


def test_rewards_by_hand() -> None:
    labels = ["a", "b", "a", None, "a", "c"]
    assert of_labels("agreement", labels) == (1.0, 0.0, 1.0, 0.0, 1.0, 0.0)
    assert of_labels("frequency", labels) == (3 / 6, 1 / 6, 3 / 6, 0.0, 3 / 6, 1 / 6)
    assert of_labels("format", labels) == (1.0, 1.0, 1.0, 0.0, 1.0, 1.0)
    assert memo_answer_rewards(ballots_of(labels)) == pytest.approx([math.log(n / 6) for n in (3, 1, 3, 1, 3, 1)])


def test_token_rewards_by_hand() -> None:
    group: list[Sample] = [("a", (1.0, 2.0), 0), ("b", (4.0,), 1), (None, (0.0, 0.25, 0.5), 2), (None, (9.0,), 3)]
    assert rewards_of("neg_entropy", group) == (-1.5, -4.0, -9.0, -9.0)
    assert rewards_of("logprob", group) == rewards_of("self_certainty", group) == (1.5, 4.0, 0.25, 0.25)


@pytest.mark.parametrize("labels", [["a", "b", "c"], ["a", "b", None], ["a"], ["a", None], [None, None]])
def test_frequency_is_nothing_where_all_differ(labels: list[str | None]) -> None:
    assert of_labels("frequency", labels) == (0.0,) * len(labels)


@given(st.lists(st.none() | st.sampled_from("abcd"), min_size=1, max_size=30))
def test_frequency_and_the_marginal_agree(labels: list[str | None]) -> None:
    share_G, memo_G = of_labels("frequency", labels), memo_answer_rewards(ballots_of(labels))
    if any(share_G):
        voted = [(share, memo) for share, memo in zip(share_G, memo_G, strict=True) if share]
        assert [math.log(share) for share, _ in voted] == pytest.approx([memo for _, memo in voted])
    else:
        assert memo_G == (math.log(1 / len(labels)),) * len(labels)


@pytest.mark.parametrize("name", COMPUTED)
@given(group=GROUP)
def test_a_reward_a_sample_in_range(name: str, group: list[Sample]) -> None:
    reward_G = rewards_of(name, group)
    assert len(reward_G) == len(group) and all(map(math.isfinite, reward_G))
    if name in MEASURED:
        assert all(-30 <= reward <= 30 for reward in reward_G)
    elif name not in ADVANTAGES:
        assert all(0 <= reward <= 1 for reward in reward_G)
    if name in ("agreement", "format", "random", "demonstrations_random"):
        assert set(reward_G) <= {0.0, 1.0}


@pytest.mark.parametrize("name", COMPUTED)
@given(group=GROUP, chance=st.randoms())
def test_a_reward_follows_its_sample(name: str, group: list[Sample], chance: Any) -> None:
    if name == "scope":
        return  # its subgroups are successive samples
    order = list(range(len(group)))
    chance.shuffle(order)
    reward_G = rewards_of(name, group)
    assert rewards_of(name, [group[i] for i in order]) == tuple(reward_G[i] for i in order)


@pytest.mark.parametrize("name", COMPUTED)
@given(group=GROUP)
def test_no_answer_earns_no_more_than_any_answer(name: str, group: list[Sample]) -> None:
    if name in ("random", "demonstrations_random"):
        return
    reward_G = rewards_of(name, group)
    voteless = {reward for reward, (label, _, _) in zip(reward_G, group, strict=True) if label is None}
    assert voteless <= ({min(reward_G)} if name in (*MEASURED, *ADVANTAGES) else {0.0})


@given(group=GROUP, chance=st.randoms())
def test_memo_rewards_are_logarithms_of_shares(group: list[Sample], chance: Any) -> None:
    labels = [label for label, _, _ in group]
    reward_G = memo_answer_rewards(ballots_of(labels))
    assert all(-math.log(len(labels)) - 1e-12 <= reward <= 0 for reward in reward_G)
    order = list(range(len(labels)))
    chance.shuffle(order)
    assert memo_answer_rewards(ballots_of([labels[i] for i in order])) == tuple(reward_G[i] for i in order)


@pytest.mark.parametrize("samples", [2, 7, 64])
def test_unanimity_teaches_nothing(samples: int) -> None:
    labels = ["a"] * samples
    for name in ("agreement", "frequency", "format"):
        assert of_labels(name, labels) == (1.0,) * samples
    assert memo_answer_rewards(ballots_of(labels)) == (0.0,) * samples


@pytest.mark.parametrize("name", [name for name in COMPUTED if not REWARDS[name].elects])
@given(group=GROUP)
def test_the_vote_matters_to_agreement_alone(name: str, group: list[Sample]) -> None:
    ballots = ballots_of([label for label, _, _ in group], [token_T for _, token_T, _ in group])
    seeds = [seed for _, _, seed in group]
    nobody = majority(ballots_of([None] * len(group)), VoteConfig())
    assert nobody.abstains
    assert REWARDS[name].function(ballots, nobody, seeds) == rewards_of(name, group)


def test_the_coin_is_fair_and_hangs_on_the_seed_alone() -> None:
    seeds = range(4000)
    ballots = ballots_of([None] * len(seeds))
    flips = REWARDS["random"].function(ballots, majority(ballots, VoteConfig()), seeds)
    assert abs(np.mean(flips) - 0.5) < 5 * 0.5 / math.sqrt(len(seeds)), "five standard errors"
    assert [rewards_of("random", [("a", (0.0,), seed)])[0] for seed in range(50)] == list(flips[:50])
    assert rewards_of("random", [("a", (0.0,), seed) for seed in range(8)]) == (0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0), "on every machine"


@pytest.mark.parametrize("name", MEASURED)
def test_a_statistic_that_is_missing_or_not_finite_is_named(name: str) -> None:
    (stat,) = REWARDS[name].stats
    labels = ["a", "b"]
    election = majority(ballots_of(labels), VoteConfig())
    broken = [ballots_of(labels, [(1.0,), (1.0, bad)]) for bad in (math.nan, math.inf, -math.inf)]
    unmeasured = Ballots(**{**vars(ballots_of(labels)), "stats_G": (TokenStats(), TokenStats())})
    for ballots in (ballots_of(labels), unmeasured, ballots_of(labels, [(1.0,), ()]), *broken):
        with pytest.raises(ValueError, match=f"'{stat}'"):
            REWARDS[name].function(ballots, election, [0, 1])


POLICY_LOGIT = np.array([0.8, 0.1, -0.4, 0.5, -1.0, 0.0])
CLASS_OF_ANSWER = np.array([0, 1, 0, 2, 1, 2])
"""Six answers in three equivalence classes."""


def marginal(logit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of the answers, and of their classes."""
    weight = np.exp(logit - logit.max())
    policy = weight / weight.sum()
    return policy, np.bincount(CLASS_OF_ANSWER, weights=policy)


def entropy(logit: np.ndarray) -> float:
    """Of the marginal, in nats."""
    p_C = marginal(logit)[1]
    return float(-(p_C * np.log(p_C)).sum())


def entropy_gradient(logit: np.ndarray) -> np.ndarray:
    """Gradient of the marginal's entropy by the logits: -p(y) (log p(class of y) + entropy)."""
    policy, p_C = marginal(logit)
    return np.asarray(-policy * (np.log(p_C[CLASS_OF_ANSWER]) + entropy(logit)))


def memo_estimate(count: np.ndarray, logit: np.ndarray) -> np.ndarray:
    """(1/N) sum of (r - mean r) grad log policy, for a group in which each answer was sampled ``count`` times."""
    drawn = [y for y, n in enumerate(count) for _ in range(n)]
    reward_G = np.array(memo_answer_rewards(ballots_of([f"class {CLASS_OF_ANSWER[y]}" for y in drawn])))
    score_G = np.eye(len(logit))[drawn] - marginal(logit)[0]
    return np.asarray((reward_G - reward_G.mean()) @ score_G / len(drawn))


def test_the_gradient_by_hand_is_the_slope() -> None:
    step = 1e-5 * np.eye(len(POLICY_LOGIT))
    slope = [(entropy(POLICY_LOGIT + d) - entropy(POLICY_LOGIT - d)) / 2e-5 for d in step]
    assert entropy_gradient(POLICY_LOGIT) == pytest.approx(slope, abs=1e-9)


def test_memos_estimator_lowers_the_entropy_of_the_marginal() -> None:
    """Its mean over groups is minus the exact gradient, within five standard errors, once its bias of order 1/N is taken off.

    The plug-in marginal and the baseline that counts the sample itself bias the component of an answer of policy p and class
    share q, out of C classes, by (p (1 - q) / (2 q) - p (C - 1) / 2 - g) / N, g the exact component; the rest is of order 1/N^2.
    """
    samples, groups = 400, 2000
    policy, p_C = marginal(POLICY_LOGIT)
    count_P = np.random.default_rng(7).multinomial(samples, policy, size=groups)
    estimate_P = np.array([memo_estimate(count, POLICY_LOGIT) for count in count_P])
    mean, error = estimate_P.mean(axis=0), estimate_P.std(axis=0, ddof=1) / math.sqrt(groups)
    exact, q = -entropy_gradient(POLICY_LOGIT), p_C[CLASS_OF_ANSWER]
    bias = (policy * (1 - q) / (2 * q) - policy * (len(p_C) - 1) / 2 - exact) / samples
    assert (np.abs(mean - exact - bias) <= 5 * error + 10 / samples**2).all()
    assert (5 * error + np.abs(bias)).max() < 0.05 * np.abs(exact).max(), "the bounds are tight enough to tell"
    assert entropy(POLICY_LOGIT + 0.1 * mean) < entropy(POLICY_LOGIT)
