"""The training groups of a vote over several views: advantages weighed, with a bonus, and reshaped, against computations by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from sttrl.config import RunConfig
from sttrl.methods.train_groups import train_groups
from sttrl.types import Answer, Ballots, Group, HeldVote, Measure, Rollout, TokenStats, TrainGroup
from sttrl.voting import VoteConfig, majority

ENTROPY_G = (0.5, 1.0, 1.5, 3.0)
"""The mean entropy of the tokens of each sample, in nats: their mean is 1.5. The first token of sample i is i."""
PROMPT_V = ((10, 11), (10, 12))


class Unsure:
    """A learner that measures these entropies."""

    async def score(self, groups: Sequence[TrainGroup], measure: Measure) -> Any:
        """The entropies of each row."""
        assert measure.want == {"entropy"}
        return tuple(tuple(TokenStats(entropy_T=(ENTROPY_G[row.token_T[0]],) * 2) for row in group.row_G) for group in groups)


def held(views: int, **changes: Any) -> HeldVote:
    """A vote of four samples with the rewards 1, 2, 3 and 4."""
    rollouts = tuple(
        Rollout(seed=i, version=0, token_T=(i, 5), logprob_T=(-0.1, -0.2), finish="stop", text="", view=i % views) for i in range(4)
    )
    ballots = Ballots(answer_G=tuple(Answer(text=text) for text in "7773"), class_G=(0, 0, 0, 1), representative_C=("7", "3"))
    election = majority(ballots, VoteConfig())
    group = replace(Group.begin(PROMPT_V[:views]), rollout_G=rollouts)
    return HeldVote(group=group, ballots=ballots, election=election, majority=election, reward_G=(1.0, 2.0, 3.0, 4.0), **changes)


def advantages_of(vote: HeldVote, **changes: Any) -> dict[tuple[tuple[int, ...], int], float]:
    """The advantage of each sample, by the prompt of its group and its first token. The estimator takes rewards as advantages."""
    policy: Any = Unsure()
    config = RunConfig.of(n_votes=4, n_train=4, adv_estimator="reinforce", **changes)
    groups = asyncio.run(train_groups(config, policy, [vote]))
    assert {group.problem for group in groups} == {0}, "one mini-batch"
    found = {(group.prefix_T, row.token_T[0]): row.advantage_T for group in groups for row in group.row_G}
    assert all(a and len(a) == 2 and a[0] == a[1] for a in found.values())
    return {place: a[0] for place, a in found.items() if a}


@pytest.mark.parametrize("views", [1, 2])
def test_advantages_are_of_their_samples_whatever_the_views(views: int) -> None:
    """Weight 0.5: 0.5, 1, 1.5, 2, with a mean of 1.25. Bonuses of 0 and 0.4: 0.5, 1.5, 1.5, 2. Factors 2 - H / 1.5: 5/3, 4/3, 1, 0."""
    asked = [PROMPT_V[i % views] for i in range(4)]
    vote = held(views, weight=0.5, bonus_G=(0.0, 0.4, 0.0, 0.0))

    def by_sample(*expected: float) -> Any:
        return pytest.approx({(prompt_T, i): a for i, (prompt_T, a) in enumerate(zip(asked, expected, strict=True))})

    assert advantages_of(held(views)) == by_sample(1, 2, 3, 4)
    assert advantages_of(vote) == by_sample(0.5, 1.5, 1.5, 2.0)
    assert advantages_of(vote, advantage_shaping="clip", advantage_clip=1.25) == by_sample(0.5, 1.25, 1.25, 1.25)
    assert advantages_of(vote, advantage_shaping="relative_entropy") == by_sample(0.5 * 5 / 3, 2.0, 1.5, 0.0)
