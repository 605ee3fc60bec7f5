"""Trees of responses against computations by hand, on a sampler that says what it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from sttrl.config.tree import TreeSettings
from sttrl.methods.trees import fork_places, sample
from sttrl.types import Group, Measure, Request, Rollout, Sampling, TokenStats, TrainGroup

PROMPT_T = (7, 8)
SAMPLING = Sampling(temperature=0.5, max_tokens=6)


class Recorder:
    """Responds with tokens that name the seed and the place, up to the limit; the entropies of the trunks are given."""

    def __init__(self, *entropy_PT: Sequence[float]) -> None:
        self.entropy_PT, self.asked, self.scored = entropy_PT, list[tuple[Request, ...]](), list[tuple[TrainGroup, Measure]]()
        self.length_of: dict[int, int] = {}

    async def sample(self, requests: Sequence[Request]) -> tuple[Rollout, ...]:
        self.asked.append(tuple(requests))
        return tuple(self.rollout(request) for request in requests)

    def rollout(self, request: Request) -> Rollout:
        begun = len(request.begun_T)
        places = range(begun, begun + self.length_of.get(request.seed, request.sampling.max_tokens))
        return Rollout(
            seed=request.seed, version=3, finish="length", text=f"text {request.seed}",
            token_T=tuple(100 * request.seed + place for place in places),
            logprob_T=tuple(-request.seed - place / 10 for place in places),
            reasoning_step_T=tuple(place // 2 for place in places),
        )  # fmt: skip

    async def score(self, groups: Sequence[TrainGroup], measure: Measure) -> tuple[tuple[TokenStats, ...], ...]:
        self.scored.append((groups[0], measure))
        return (tuple(TokenStats(entropy_T=tuple(entropy_T)) for entropy_T in self.entropy_PT),)


def drawn(policy: Any, count: int, greedy: bool = False, **shape: Any) -> tuple[Rollout, ...]:
    """The samples of this many requests with the seeds 0, 1, ..., and a greedy response of seed 99."""
    requests = Request.each(PROMPT_T, SAMPLING, range(count))
    requests += Request.each(PROMPT_T, Sampling(temperature=0.0, max_tokens=6), [99]) if greedy else ()
    return asyncio.run(sample(policy, requests, TreeSettings(**{"rollouts": "tree", **shape}), 0.5))


def test_two_trees_by_hand() -> None:
    """The first trunk's entropies are highest at 4 and 1, the second's at 0 and 5. Each has two branches at both places."""
    policy = Recorder((0.1, 0.8, 0.3, 0.2, 0.9, 0.0), (2.0, 0.1, 0.2, 0.3, 0.4, 0.5))
    found = drawn(policy, 10)
    trunks, branches = policy.asked
    assert [request.seed for request in trunks] == [0, 5] and all(not request.begun_T for request in trunks)
    assert [(len(r.begun_T), r.seed, r.sampling.max_tokens) for r in branches] == [
        (1, 1, 5), (1, 2, 5), (4, 3, 2), (4, 4, 2), (0, 6, 6), (0, 7, 6), (5, 8, 1), (5, 9, 1),
    ]  # fmt: skip
    assert {request.prompt_T for request in (*trunks, *branches)} == {PROMPT_T}
    ((scored, measure),) = policy.scored
    assert [row.token_T[0] for row in scored.row_G] == [0, 500] and measure == Measure(want=frozenset({"entropy"}), temperature=0.5)
    assert [r.seed for r in found] == list(range(10)) and [r.begun for r in found] == [0, 1, 1, 4, 4, 0, 0, 0, 5, 5]
    assert found[3].token_T == (0, 1, 2, 3, 304, 305) and found[3].text == "text 3" and found[3].version == 3
    assert found[3].logprob_T == pytest.approx((0.0, -0.1, -0.2, -0.3, -3.4, -3.5)), "what is shared has the trunk's log-probs"
    assert found[9].token_T == (500, 501, 502, 503, 504, 905) and found[9].reasoning_step_T == (0, 0, 1, 1, 2, 2)


def test_only_what_was_sampled_counts() -> None:
    """Two trunks of 6, branches of 5, 5, 2, 2 and 6, 6, 1, 1: 40 tokens, where ten responses have 60."""
    found = drawn(Recorder((0.1, 0.8, 0.3, 0.2, 0.9, 0.0), (2.0, 0.1, 0.2, 0.3, 0.4, 0.5)), 10)
    assert Group(prompt_T=PROMPT_T, rollout_G=found).n_tokens == 40 and sum(len(r.token_T) for r in found) == 60


def test_a_greedy_response_is_in_no_tree() -> None:
    policy = Recorder((0.1, 0.8, 0.3, 0.2, 0.9, 0.0))
    *trees, greedy = drawn(policy, 5, greedy=True)
    assert (greedy.seed, greedy.begun, len(greedy.token_T)) == (99, 0, 6) and len(policy.asked) == 3
    assert tuple(trees) == drawn(Recorder((0.1, 0.8, 0.3, 0.2, 0.9, 0.0)), 5)


def test_parallel_samples_are_asked_as_they_are() -> None:
    policy = Recorder()
    found = drawn(policy, 4, greedy=True, rollouts="parallel")
    assert [r.seed for r in found] == [0, 1, 2, 3, 99] and len(policy.asked) == 1 and not policy.scored


@pytest.mark.parametrize(
    ("entropy_T", "points", "branches", "expected"),
    [
        ((0.3, 0.1, 0.5, 0.4), 3, 1, [0, 2, 3]),
        ((0.3, 0.3, 0.3), 2, 2, [0, 0, 1, 1]),
        ((0.1, 0.9), 3, 2, [0, 0, 0, 1, 1, 1]),
        ((0.1, 0.9), 3, 1, [0, 1, 1]),
        ((0.4,), 2, 2, [0, 0, 0, 0]),
    ],
)
def test_where_branches_leave(entropy_T: tuple[float, ...], points: int, branches: int, expected: list[int]) -> None:
    assert fork_places(entropy_T, points, branches) == expected
