"""Trees of responses that share their beginnings: entropy-fork tree rollout (ETTRL, arXiv 2508.11356).

A tree is one whole response, its trunk, and branches that leave it at its tokens of highest entropy. What they share is sampled once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sttrl.config.tree import TreeSettings
from sttrl.engine.base import Policy
from sttrl.types import Group, Measure, Request, Rollout, TrainGroup


async def sample(policy: Policy, requests: Sequence[Request], tree: TreeSettings, temperature: float) -> tuple[Rollout, ...]:
    """One response to each request, in their order: alone, or in trees. Greedy requests, which are the last, are in no tree.

    ``temperature``: of the samples, at which the learner measures where their trunks fork.
    """
    if tree.responses == 1:
        return await policy.sample(requests)
    asked = [request for request in requests if request.sampling.temperature > 0]
    trees, greedy = await sample_trees(policy, asked, tree, temperature), requests[len(asked) :]
    return trees + (await policy.sample(greedy) if greedy else ())


async def sample_trees(policy: Policy, requests: Sequence[Request], tree: TreeSettings, temperature: float) -> tuple[Rollout, ...]:
    """One response to each of the requests, which have one prompt.

    Every ``tree.responses`` successive requests are a tree, the first of them its trunk. The seed of a branch is that of its own request.
    """
    trunk_P = await policy.sample(requests[:: tree.responses])
    groups = TrainGroup.of(Group(prompt_T=requests[0].prompt_T, rollout_G=trunk_P))
    (stats_P,) = await policy.score(groups, Measure(want=frozenset({"entropy"}), temperature=temperature))
    trunk_of = [trunk for trunk in trunk_P for _ in range(tree.responses - 1)]
    places = [place for stats in stats_P for place in fork_places(stats.entropy_T or (), tree.fork_points, tree.fork_branches)]
    others = [request for number, request in enumerate(requests) if number % tree.responses]
    sampled = await policy.sample([branch_of(*parts) for parts in zip(others, trunk_of, places, strict=True)])
    branches = [joined(*parts) for parts in zip(trunk_of, places, sampled, strict=True)]
    size = tree.responses - 1
    return tuple(r for number, trunk in enumerate(trunk_P) for r in (trunk, *branches[number * size : (number + 1) * size]))


def fork_places(entropy_T: Sequence[float], points: int, branches: int) -> list[int]:
    """The place at which each branch leaves its trunk, in rising order: the token there is the first that is sampled anew.

    The ``points`` tokens with the highest entropy, of equal ones the first, with ``branches`` branches each. If a trunk has fewer tokens,
    they share the branches, those with the highest entropy first (derived).
    """
    surest_last = sorted(range(len(entropy_T)), key=lambda place: (-entropy_T[place], place))[:points]
    return sorted(surest_last[number % len(surest_last)] for number in range(points * branches))


def branch_of(request: Request, trunk: Rollout, place: int) -> Request:
    """The request for a branch that leaves its trunk at this place."""
    sampling = replace(request.sampling, max_tokens=request.sampling.max_tokens - place)
    return replace(request, begun_T=trunk.token_T[:place], sampling=sampling)


def joined(trunk: Rollout, place: int, branch: Rollout) -> Rollout:
    """The whole response of a branch: what it shares with its trunk has the log-probs with which it was sampled there."""
    return replace(
        branch,
        token_T=trunk.token_T[:place] + branch.token_T,
        logprob_T=trunk.logprob_T[:place] + branch.logprob_T,
        top_T=trunk.top_T[:place] + branch.top_T,
        reasoning_step_T=trunk.reasoning_step_T[:place] + branch.reasoning_step_T,
        begun=place,
    )
