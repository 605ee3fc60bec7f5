"""Branches of trees on the real engine: their tokens and log-probs are those of whole responses, their text is the whole text."""

from __future__ import annotations

import pytest
from live_engine import OTHER_PROMPT_T, LiveEngine

from sttrl.config.tree import TreeSettings
from sttrl.engine.steps import reasoning_steps
from sttrl.methods.trees import sample
from sttrl.types import DeltaSpec, Group, Measure, Request, Rollout, Sampling, TrainGroup

pytestmark = pytest.mark.slow
SAMPLING = Sampling(temperature=0.8, max_tokens=10, reasoning_steps=True)
TREE = TreeSettings(rollouts="tree", fork_points=2, fork_branches=2)


def test_a_branch_is_a_whole_response(lora_engine: LiveEngine) -> None:
    """The learner's log-probs of the joined tokens are the sampler's, so the beginning has those with which it was sampled."""
    requests = Request.each(OTHER_PROMPT_T, SAMPLING, range(15))

    async def ask() -> tuple[tuple[Rollout, ...], list[tuple[float, ...]]]:
        async with lora_engine.engine.fork("trees", DeltaSpec(kind="lora", lr={"main": 0.01}, seed=2)) as policy:
            found = await sample(policy, requests, TREE, SAMPLING.temperature)
            groups = TrainGroup.of(Group(prompt_T=OTHER_PROMPT_T, rollout_G=found))
            (stats_G,) = await policy.score(groups, Measure(temperature=SAMPLING.temperature))
            return found, [stats.logprob_T or () for stats in stats_G]

    found, logprob_GT = lora_engine.run(ask())
    tokenizer = lora_engine.engine.lane.tokenizer
    assert [r.seed for r in found] == list(range(15)) and any(r.begun for r in found)
    for number, (rollout, logprob_T) in enumerate(zip(found, logprob_GT, strict=True)):
        trunk = found[number - number % 5]
        assert rollout.token_T[: rollout.begun] == trunk.token_T[: rollout.begun] and len(rollout.token_T) <= 10
        assert rollout.logprob_T == pytest.approx(logprob_T, abs=2e-2)
        assert rollout.text == tokenizer.decode(list(rollout.token_T), skip_special_tokens=True)
        assert rollout.reasoning_step_T == reasoning_steps([tokenizer.decode([token]) for token in rollout.token_T])


def test_a_begun_response_is_continued_as_its_prompt_would_be(lora_engine: LiveEngine) -> None:
    """The same seed after the same tokens draws the same, whether they are of the prompt or of the response; only the text differs."""

    async def ask() -> tuple[Rollout, ...]:
        async with lora_engine.engine.fork("begun", DeltaSpec(kind="none")) as base:
            (trunk,) = await base.sample(Request.each(OTHER_PROMPT_T, SAMPLING, [1]))
            begun_T = trunk.token_T[:4]
            as_response = Request(prompt_T=OTHER_PROMPT_T, begun_T=begun_T, sampling=SAMPLING, seed=3)
            as_prompt = Request(prompt_T=OTHER_PROMPT_T + begun_T, sampling=SAMPLING, seed=3)
            return (trunk, *await base.sample([as_response]), *await base.sample([as_prompt]))

    trunk, as_response, as_prompt = lora_engine.run(ask())
    tokenizer = lora_engine.engine.lane.tokenizer
    assert as_response.token_T == as_prompt.token_T and as_response.logprob_T == pytest.approx(as_prompt.logprob_T, abs=1e-4)
    whole_T = trunk.token_T[:4] + as_response.token_T
    assert as_response.text == tokenizer.decode(list(whole_T), skip_special_tokens=True)
    assert len(as_response.reasoning_step_T) == len(as_response.token_T)
