"""The likeliest tokens at each position, from the live engine: transformers' own numbers, and samples that do not change by asking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from live_engine import OTHER_PROMPT_T, PROMPT_T, LiveEngine, sampled
from tiny_model import STOP_IDS, VOCABULARY
from transformers import AutoModelForCausalLM

from sttrl.types import MOST_TOP_LOGPROBS, DeltaSpec, Group, Request, Rollout, Sampling

pytestmark = pytest.mark.slow
SEEDS = tuple(range(8))


def of_base(live: LiveEngine, prompt_T: Sequence[int], sampling_G: Sequence[Sampling]) -> Group:
    """One response for each way of sampling, from the base."""

    async def ask() -> Group:
        async with live.engine.fork("base", DeltaSpec(kind="none")) as base:
            return await sampled(base, prompt_T, sampling_G, SEEDS[: len(sampling_G)])

    return live.run(ask())


def likeliest(network: Any, prompt_T: Sequence[int], rollout: Rollout, temperature: float, top: int) -> list[list[tuple[int, float]]]:
    """What transformers says of every position of a response."""
    with torch.no_grad():
        logit_TV = network(torch.tensor([[*prompt_T, *rollout.token_T]])).logits[0].float()
    found = (logit_TV[len(prompt_T) - 1 : -1] / temperature).log_softmax(-1).topk(top)
    return [list(zip(i, p, strict=True)) for i, p in zip(found.indices.tolist(), found.values.tolist(), strict=True)]


def ways(top: int) -> list[Sampling]:
    """Sampled at temperature 1 and at another, with a nucleus, and greedily."""
    return [
        Sampling(temperature=temperature, top_p=top_p, max_tokens=12, top_logprobs=top)
        for temperature, top_p in ((1.0, 1.0), (1.0, 0.8), (0.7, 1.0), (0.0, 1.0))
    ]


@pytest.mark.parametrize("top", [1, 5, len(VOCABULARY)])
@pytest.mark.parametrize("prompt_T", [PROMPT_T, OTHER_PROMPT_T], ids=["long", "short"])
def test_they_are_transformers_own_at_every_temperature(lora_engine: LiveEngine, tiny_model: Path, prompt_T: Any, top: int) -> None:
    network = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    for sampling, rollout in zip(ways(top), of_base(lora_engine, prompt_T, ways(top)).rollout_G, strict=True):
        expected_T = likeliest(network, prompt_T, rollout, sampling.temperature or 1.0, top)
        assert len(rollout.top_T) == len(rollout.token_T) == len(expected_T)
        for found, expected in zip(rollout.top_T, expected_T, strict=True):
            assert [p for _, p in found] == pytest.approx([p for _, p in expected], abs=1e-3)
            assert dict(found) == pytest.approx(dict(expected), abs=1e-3)
            assert [p for _, p in found] == sorted((p for _, p in found), reverse=True)


def test_asking_for_them_changes_no_token_and_no_other_response(lora_engine: LiveEngine) -> None:
    plain, asked = of_base(lora_engine, PROMPT_T, ways(0)), of_base(lora_engine, PROMPT_T, ways(6))
    mixed = of_base(lora_engine, PROMPT_T, [*ways(6)[:2], *ways(0)[2:]])
    assert all(not r.top_T for r in plain.rollout_G) and [bool(r.top_T) for r in mixed.rollout_G] == [True, True, False, False]
    for other in (asked, mixed):
        for before, after in zip(plain.rollout_G, other.rollout_G, strict=True):
            assert (after.token_T, after.finish) == (before.token_T, before.finish)
            assert after.logprob_T == pytest.approx(before.logprob_T, abs=1e-5)
    for rollout in asked.rollout_G:
        for token, logprob, top in zip(rollout.token_T, rollout.logprob_T, rollout.top_T, strict=True):
            assert dict(top).get(token, logprob) == logprob
    greedy = asked.rollout_G[-1]
    assert greedy.token_T == tuple(top[0][0] for top in greedy.top_T)


def test_a_response_ends_where_it_becomes_too_unlikely(lora_engine: LiveEngine) -> None:
    for whole, limited in ((ways(5), ways(5)), (ways(0), ways(0))):
        before = of_base(lora_engine, PROMPT_T, whole).rollout_G
        lowest_G = [sum(rollout.logprob_T[:4]) + 1e-4 for rollout in before]
        cut = of_base(lora_engine, PROMPT_T, [replace(way, lowest_logprob=low) for way, low in zip(limited, lowest_G, strict=True)])
        for rollout, limit, full in zip(cut.rollout_G, lowest_G, before, strict=True):
            assert rollout.finish == "unlikely" and len(rollout.token_T) == len(rollout.top_T or rollout.token_T) <= 3
            assert rollout.token_T == full.token_T[: len(rollout.token_T)] and sum(rollout.logprob_T) >= limit
            assert sum(full.logprob_T[: len(rollout.token_T) + 1]) < limit
    for way in (ways(5), ways(0)):
        likely = of_base(lora_engine, PROMPT_T, [replace(one, lowest_logprob=-1e6) for one in way]).rollout_G
        assert [(r.token_T, r.finish) for r in likely] == [(r.token_T, r.finish) for r in of_base(lora_engine, PROMPT_T, way).rollout_G]


@pytest.mark.parametrize("prompt_T", [PROMPT_T, OTHER_PROMPT_T], ids=["long", "short"])
def test_a_given_response_is_scored_and_nothing_is_drawn(lora_engine: LiveEngine, tiny_model: Path, prompt_T: Any) -> None:
    network = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    sampled_T, end = of_base(lora_engine, prompt_T, ways(5)[:1]).rollout_G[0].token_T[:6], STOP_IDS[0]
    given_G = [sampled_T, (*sampled_T[:3], end), sampled_T[:1], (7, end, 7)]
    sampling = Sampling(temperature=0.0, max_tokens=12, top_logprobs=5)
    asked = [Request(prompt_T=tuple(prompt_T), sampling=sampling, seed=0, given_T=given_T) for given_T in given_G]
    plain = Request(prompt_T=tuple(prompt_T), sampling=sampling, seed=0)

    async def ask() -> tuple[Rollout, ...]:
        async with lora_engine.engine.fork("base", DeltaSpec(kind="none")) as base:
            return await base.sample([plain, *asked, plain])

    before, *found, after = lora_engine.run(ask())
    assert before.token_T == after.token_T == of_base(lora_engine, prompt_T, [sampling]).rollout_G[0].token_T
    assert [rollout.token_T for rollout in found] == given_G
    assert [rollout.finish for rollout in found] == ["stop" if given_T[-1] in STOP_IDS else "length" for given_T in given_G]
    for rollout in found:
        expected_T = likeliest(network, prompt_T, rollout, 1.0, len(VOCABULARY))
        assert list(rollout.logprob_T) == pytest.approx([dict(e)[t] for e, t in zip(expected_T, rollout.token_T, strict=True)], abs=1e-3)
        for top, expected in zip(rollout.top_T, expected_T, strict=True):
            assert [p for _, p in top] == pytest.approx([p for _, p in expected[:5]], abs=1e-3)


def test_a_search_can_ask_for_no_more_than_the_engine_shows() -> None:
    with pytest.raises(AssertionError, match="top_logprobs is"):
        Sampling(temperature=1.0, max_tokens=1, top_logprobs=MOST_TOP_LOGPROBS + 1)
