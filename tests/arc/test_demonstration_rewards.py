"""Rewards from held-out demonstrations."""

from __future__ import annotations

import pytest

from sttrl.arc.codecs.base import Unreadable
from sttrl.arc.rewards import DEFAULT_WEIGHTS, RewardParts, reward, reward_parts

ANSWER = ((1, 2), (3, 4))
PARTS = {
    "unreadable": (Unreadable(reason="no digits"), (0.0, 0.0, 0.0, 0.0)),
    "another shape": (((1, 2, 3),), (1.0, 0.0, 0.0, 0.0)),
    "three cells of four": (((1, 2), (3, 9)), (1.0, 1.0, 0.75, 0.0)),
    "exact": (ANSWER, (1.0, 1.0, 1.0, 1.0)),
}


@pytest.mark.parametrize("name", PARTS)
def test_the_parts_of_a_reward(name: str) -> None:
    reply, (form, shape, cells, exact) = PARTS[name]
    parts = RewardParts(format=form, shape=shape, cells=cells, exact=exact)
    assert reward_parts(reply, ANSWER) == parts
    weights = RewardParts(format=1.0, shape=10.0, cells=100.0, exact=1000.0)
    assert reward(reply, ANSWER, weights) == pytest.approx(form + 10 * shape + 100 * cells + 1000 * exact)


def test_better_replies_have_higher_rewards() -> None:
    rewards = [reward(reply, ANSWER) for reply, _ in PARTS.values()]
    assert rewards == sorted(set(rewards))
    assert rewards[0] == 0
    assert DEFAULT_WEIGHTS.exact >= DEFAULT_WEIGHTS.format + DEFAULT_WEIGHTS.shape + DEFAULT_WEIGHTS.cells
