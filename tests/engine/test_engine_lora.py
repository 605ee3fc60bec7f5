"""The whole engine, Ray, vLLM and verl, with LoRA forks: what is sampled, by whom, and what is left when a fork ends."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from live_engine import OTHER_PROMPT_T, PROMPT_T, LiveEngine, group_of, sampled, scores
from peft import PeftModel
from tiny_model import STOP_IDS, VOCABULARY
from transformers import AutoModelForCausalLM

from sttrl.engine.base import Policy
from sttrl.errors import DivergedError
from sttrl.types import DeltaSpec, Group, Objective, Request, Rollout, Sampling

pytestmark = pytest.mark.slow
BASE = DeltaSpec(kind="none")
SAMPLING = Sampling(temperature=1.0, max_tokens=12)
SEEDS = tuple(range(100, 116))
OBJECTIVE = Objective(kl_coef=0.01)


def lora(lr: float = 0.02, seed: int = 1) -> DeltaSpec:
    return DeltaSpec(kind="lora", lr={"main": lr}, seed=seed, weight_decay=0.01)


def tokens(group: Group) -> list[tuple[int, ...]]:
    return [r.token_T for r in group.rollout_G]


def logprobs(group: Group) -> list[tuple[float, ...]]:
    return [r.logprob_T for r in group.rollout_G]


def heard(group: Group) -> tuple[Any, ...]:
    """What a policy said, without the name of the version that said it."""
    return tuple(replace(r, version=0) for r in group.rollout_G)


def flat(rows: Sequence[Sequence[float]]) -> np.ndarray[Any, Any]:
    return np.concatenate([np.asarray(row) for row in rows])


async def adapted(policy: Policy, updates: int) -> list[Group]:
    """Sample and learn in turns; every group that was sampled."""
    groups = []
    for step in range(updates):
        groups.append(await sampled(policy, PROMPT_T, SAMPLING, [s + 1000 * step for s in SEEDS]))
        await policy.update([group_of(groups[-1])], OBJECTIVE)
    return [*groups, await sampled(policy, PROMPT_T, SAMPLING, SEEDS)]


def test_a_group_has_a_response_for_every_seed(lora_engine: LiveEngine) -> None:
    async def look() -> None:
        async with lora_engine.engine.fork("base", BASE) as base:
            for n in (1, 3, 40):  # 40 is more than the sampler takes at once
                group = await sampled(base, PROMPT_T, SAMPLING, SEEDS[:3] * 14 if n == 40 else SEEDS[:n])
                assert [r.seed for r in group.rollout_G] == list(SEEDS[:3] * 14 if n == 40 else SEEDS[:n])
                assert group.prompt_T == PROMPT_T
                for r in group.rollout_G:
                    assert 1 <= len(r.token_T) <= 12 and len(r.logprob_T) == len(r.token_T) and r.version == 0
                    assert all(x <= 0 for x in r.logprob_T) and all(0 <= t < len(VOCABULARY) for t in r.token_T)
                    assert r.text == lora_engine.tokenizer.decode(r.token_T, skip_special_tokens=True)
            assert len(set(tokens(await sampled(base, PROMPT_T, SAMPLING, SEEDS)))) > 10

    lora_engine.run(look())


def test_a_turn_ends_at_a_stop_token_or_at_the_limit(lora_engine: LiveEngine) -> None:
    async def look() -> None:
        async with lora_engine.engine.fork("base", BASE) as base:
            group = await sampled(base, PROMPT_T, replace(SAMPLING, max_tokens=4), range(32))
        assert {r.finish for r in group.rollout_G} == {"stop", "length"}
        for r in group.rollout_G:
            assert not set(r.token_T[:-1]) & set(STOP_IDS)
            assert (r.token_T[-1] in STOP_IDS) == (r.finish == "stop")
            assert r.finish == "stop" or len(r.token_T) == 4

    lora_engine.run(look())


def test_the_same_seeds_give_the_same_tokens_and_log_probs_to_the_bit(lora_engine: LiveEngine) -> None:
    async def look() -> None:
        async with lora_engine.engine.fork("one", BASE) as one, lora_engine.engine.fork("two", BASE) as two:
            first, again, other = [await sampled(p, PROMPT_T, SAMPLING, SEEDS) for p in (one, one, two)]
            assert first == again == other
            elsewhere = await sampled(one, PROMPT_T, SAMPLING, [s + 1 for s in SEEDS])
            assert tokens(elsewhere)[:-1] == tokens(first)[1:], "a response belongs to its seed, not to its place"
            shuffled = await sampled(one, PROMPT_T, SAMPLING, SEEDS[::-1])
            assert tokens(shuffled) == tokens(first)[::-1]
            np.testing.assert_allclose(flat(logprobs(shuffled)[::-1]), flat(logprobs(first)), atol=1e-4)
            assert tokens(await sampled(one, OTHER_PROMPT_T, SAMPLING, SEEDS)) != tokens(first)

    lora_engine.run(look())


def test_who_copies_the_prompt_samples_what_it_would_alone(lora_engine: LiveEngine) -> None:
    """A group's samples have their prompt's keys and values from the first of them; one alone computes its own."""

    async def look() -> None:
        async with lora_engine.engine.fork("base", BASE) as base:
            group = await sampled(base, PROMPT_T, SAMPLING, SEEDS)
            for seed, sample in zip(SEEDS[:12], group.rollout_G, strict=False):
                (alone,) = (await sampled(base, PROMPT_T, SAMPLING, [seed])).rollout_G
                assert alone.token_T == sample.token_T
                np.testing.assert_allclose(alone.logprob_T, sample.logprob_T, atol=1e-4)

    lora_engine.run(look())


def test_groups_in_flight_together_are_what_each_is_alone(lora_engine: LiveEngine) -> None:
    async def look() -> None:
        async with lora_engine.engine.fork("base", BASE) as base:
            asked = [(PROMPT_T, 12, SEEDS), (OTHER_PROMPT_T, 5, SEEDS[:7]), (PROMPT_T, 9, [s + 50 for s in SEEDS[:5]])]
            alone = [await sampled(base, p, replace(SAMPLING, max_tokens=n), seeds) for p, n, seeds in asked]
            together = await asyncio.gather(*(sampled(base, p, replace(SAMPLING, max_tokens=n), seeds) for p, n, seeds in asked))
        for one, other in zip(alone, together, strict=True):
            assert tokens(one) == tokens(other)
            np.testing.assert_allclose(flat(logprobs(one)), flat(logprobs(other)), atol=1e-4)

    lora_engine.run(look())


def test_one_call_samples_many_prompts(lora_engine: LiveEngine) -> None:
    """Each response is the one that its prompt alone would get."""

    async def look() -> tuple[Sequence[Rollout], list[Group]]:
        async with lora_engine.engine.fork("base", BASE) as base:
            short = replace(SAMPLING, max_tokens=3)
            mixed = [(p, way, seed) for seed in SEEDS[:4] for p, way in ((PROMPT_T, SAMPLING), (OTHER_PROMPT_T, short))]
            together = await base.sample([Request(prompt_T=p, sampling=way, seed=seed) for p, way, seed in mixed])
            return together, [await sampled(base, p, way, [seed]) for p, way, seed in mixed]

    together, alone = lora_engine.run(look())
    assert [r.token_T for r in together] == [group.rollout_G[0].token_T for group in alone]
    np.testing.assert_allclose(flat([r.logprob_T for r in together]), flat([logprobs(group)[0] for group in alone]), atol=1e-4)


def test_who_samples_a_new_version_at_once_shares_its_export(lora_engine: LiveEngine) -> None:
    async def look() -> tuple[list[Group], int]:
        async with lora_engine.engine.fork("fork", lora()) as policy:
            await policy.update([group_of(await sampled(policy, PROMPT_T, SAMPLING, SEEDS))], Objective())
            asked, exports = (PROMPT_T, PROMPT_T, OTHER_PROMPT_T), lora_engine.engine.lane.home.numbers
            before = next(exports)
            groups = await asyncio.gather(*(sampled(policy, p, SAMPLING, SEEDS) for p in asked))
            return groups, next(exports) - before - 1

    (one, same, other), exported = lora_engine.run(look())
    assert tokens(one) == tokens(same) != tokens(other) and exported == 1


def test_samples_follow_the_models_distribution(lora_engine: LiveEngine, tiny_model: Path) -> None:
    async def look() -> Group:
        async with lora_engine.engine.fork("base", BASE) as base:
            return await sampled(base, PROMPT_T, Sampling(temperature=0.7, top_p=0.8, max_tokens=1), range(2000))

    count = np.bincount([r.token_T[0] for r in lora_engine.run(look()).rollout_G], minlength=len(VOCABULARY))
    network = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    p = (network(torch.tensor([PROMPT_T])).logits[0, -1].double() / 0.7).softmax(-1).detach().numpy()
    order = np.argsort(-p)
    kept = order[: int(np.searchsorted(p[order].cumsum(), 0.8)) + 1]
    assert set(count.nonzero()[0]) <= set(kept)
    expected = p[kept] / p[kept].sum() * 2000
    assert (((count[kept] - expected) ** 2 / expected).sum()) < len(kept) + 5 * math.sqrt(2 * len(kept))


def test_greedy_takes_the_likeliest_tokens_whatever_else_is_in_the_batch(lora_engine: LiveEngine, tiny_model: Path) -> None:
    greedy, cooler = Sampling(temperature=0.0, max_tokens=6), replace(SAMPLING, temperature=0.5, max_tokens=9)

    async def look() -> tuple[Group, list[Group]]:
        async with lora_engine.engine.fork("base", BASE) as base:
            mixed = await sampled(base, PROMPT_T, [greedy, SAMPLING, cooler, greedy], [1, 2, 3, 4])
            return mixed, [await sampled(base, PROMPT_T, way, [seed]) for way, seed in ((SAMPLING, 2), (cooler, 3))]

    mixed, alone = lora_engine.run(look())
    first, *drawn, second = mixed.rollout_G
    assert first.token_T == second.token_T and [r.token_T for r in drawn] == [group.rollout_G[0].token_T for group in alone]
    network, sequence = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32), list(PROMPT_T)
    for token in first.token_T:
        assert token == int(network(torch.tensor([sequence])).logits[0, -1].argmax())
        sequence.append(token)


@pytest.mark.parametrize("temperature", [0.6, 1.0])
def test_sampler_and_learner_agree(lora_engine: LiveEngine, temperature: float) -> None:
    async def look() -> None:
        async with lora_engine.engine.fork("fork", lora()) as policy:
            for version in range(3):
                group = await sampled(policy, PROMPT_T, replace(SAMPLING, temperature=temperature), SEEDS)
                scored = flat(await scores(policy, group, temperature))
                assert policy.version == version and {r.version for r in group.rollout_G} == {version}
                gap = np.abs(scored - flat(logprobs(group)))
                assert gap.max() < 1e-3, f"version {version}: {gap.max()}"
                stats = await policy.update([group_of(group)], replace(OBJECTIVE, temperature=temperature))
                assert stats.logprob_gap_mean == pytest.approx(gap.mean(), abs=1e-5)
                assert stats.logprob_correlation is not None and stats.logprob_correlation > 0.9999

    lora_engine.run(look())


def test_a_batch_of_another_policy_is_refused_by_the_gate(lora_engine: LiveEngine) -> None:
    async def look() -> None:
        async with lora_engine.engine.fork("fork", lora()) as policy:
            group = await sampled(policy, PROMPT_T, SAMPLING, SEEDS)
            wrong = replace(group, rollout_G=tuple(replace(r, logprob_T=tuple(x - 1 for x in r.logprob_T)) for r in group.rollout_G))
            with pytest.raises(DivergedError, match="differ by 1.0"):
                await policy.update([group_of(wrong)], OBJECTIVE)
            assert policy.version == 0 and await sampled(policy, PROMPT_T, SAMPLING, SEEDS) == group
            with pytest.raises(DivergedError, match="loss is nan"):
                await policy.update([group_of(group, advantage_G=(math.nan,) * 16)], OBJECTIVE)
            assert await scores(policy, group, 1.0) == await scores(policy, group, 1.0, at="base")
            await policy.update([group_of(group)], OBJECTIVE)
            assert policy.version == 1

    lora_engine.run(look())


def test_versions_share_no_prefix_cache(lora_engine: LiveEngine) -> None:
    """A prompt of several cache blocks, sampled before and after: the keys and values of one version must not serve another."""
    prompt_T = PROMPT_T + PROMPT_T[1:] + PROMPT_T[1:] + PROMPT_T[1:]

    async def look() -> None:
        async with lora_engine.engine.fork("base", BASE) as base, lora_engine.engine.fork("fork", lora(lr=0.3)) as policy:
            before = await sampled(base, prompt_T, SAMPLING, SEEDS)
            assert heard(await sampled(policy, prompt_T, SAMPLING, SEEDS)) == heard(before)
            for _ in range(2):
                group = await sampled(policy, prompt_T, SAMPLING, SEEDS)
                await policy.update([group_of(group)], replace(OBJECTIVE, max_logprob_gap=math.inf))
                after = await sampled(policy, prompt_T, SAMPLING, SEEDS)
                assert tokens(after) != tokens(group)
                scored = flat(await scores(policy, after, 1.0))
                assert np.abs(scored - flat(logprobs(after))).max() < 1e-2
                assert heard(await sampled(base, prompt_T, SAMPLING, SEEDS)) == heard(before)
                assert await sampled(policy, prompt_T, SAMPLING, SEEDS) == after

    lora_engine.run(look())


def test_forks_are_isolated_and_the_base_survives_them(lora_engine: LiveEngine) -> None:
    engine = lora_engine.engine

    async def alone(spec: DeltaSpec) -> list[Group]:
        async with engine.fork("alone", spec) as policy:
            return await adapted(policy, 3)

    async def look() -> None:
        fingerprint = await engine.fingerprint()
        async with engine.fork("base", BASE) as base:
            before = await sampled(base, PROMPT_T, SAMPLING, SEEDS)
            fixed = await scores(base, before, 1.0)
        specs = lora(seed=1), lora(seed=2, lr=0.05)
        expected = [await alone(spec) for spec in specs]
        async with engine.fork("a", specs[0]) as a, engine.fork("b", specs[1]) as b:
            together: tuple[list[Group], list[Group]] = [], []
            for step in range(3):
                for policy, groups in zip((a, b), together, strict=True):
                    groups.append(await sampled(policy, PROMPT_T, SAMPLING, [s + 1000 * step for s in SEEDS]))
                for policy, groups in zip((b, a), together[::-1], strict=True):
                    await policy.update([group_of(groups[-1])], OBJECTIVE)
            for policy, groups in zip((a, b), together, strict=True):
                groups.append(await sampled(policy, PROMPT_T, SAMPLING, SEEDS))
            assert await engine.fingerprint() == fingerprint
        assert together[0] == expected[0] and together[1] == expected[1]
        assert heard(expected[0][-1]) != heard(expected[1][-1]) != heard(before)
        assert await engine.fingerprint() == fingerprint
        async with engine.fork("base", BASE) as base:
            assert await sampled(base, PROMPT_T, SAMPLING, SEEDS) == before
            assert await scores(base, before, 1.0) == fixed

    lora_engine.run(look())


def test_two_forks_at_once_are_what_each_is_alone(lora_engine: LiveEngine) -> None:
    async def one(seed: int) -> list[Group]:
        async with lora_engine.engine.fork(f"fork{seed}", lora(seed=seed)) as policy:
            return await adapted(policy, 2)

    async def look() -> None:
        alone = [await one(seed) for seed in (3, 4)]
        together = await asyncio.gather(one(3), one(4))
        for a, b in zip(alone, together, strict=True):
            assert [tokens(g) for g in a] == [tokens(g) for g in b]

    lora_engine.run(look())


def test_a_checkpoint_goes_on_to_the_bit(lora_engine: LiveEngine, tmp_path: Path) -> None:
    async def look() -> None:
        async with lora_engine.engine.fork("a", lora()) as a, lora_engine.engine.fork("b", lora(seed=9)) as b:
            await adapted(a, 2)
            await a.checkpoint(tmp_path / "state")
            await adapted(b, 1)
            await b.restore(tmp_path / "state")
            assert b.version == a.version == 2
            one, other = await sampled(a, PROMPT_T, SAMPLING, SEEDS), await sampled(b, PROMPT_T, SAMPLING, SEEDS)
            assert one == other
            for policy in (a, b):
                await policy.update([group_of(one)], OBJECTIVE)
            assert await sampled(a, PROMPT_T, SAMPLING, SEEDS) == await sampled(b, PROMPT_T, SAMPLING, SEEDS)

    lora_engine.run(look())


def test_a_restored_fork_of_the_same_version_number_is_not_taken_for_the_old_one(lora_engine: LiveEngine, tmp_path: Path) -> None:
    """Both are "b" at version 1; the sampler must hold the restored weights, not those it has under that name."""

    async def look() -> None:
        async with lora_engine.engine.fork("a", lora()) as a, lora_engine.engine.fork("b", lora(seed=9)) as b:
            await adapted(a, 1)
            await a.checkpoint(tmp_path / "state")
            await adapted(b, 1)
            await b.restore(tmp_path / "state")
            assert await sampled(b, PROMPT_T, SAMPLING, SEEDS) == await sampled(a, PROMPT_T, SAMPLING, SEEDS)

    lora_engine.run(look())


def test_a_new_fork_of_an_old_name_is_a_new_fork(lora_engine: LiveEngine) -> None:
    """The sampler still holds the weights of the first one under this name and version."""

    async def one(seed: int, name: str, group: Group) -> Group:
        async with lora_engine.engine.fork(name, lora(seed=seed)) as policy:
            await policy.update([group_of(group)], OBJECTIVE)
            await policy.update([group_of(group)], replace(OBJECTIVE, max_logprob_gap=math.inf))
            return await sampled(policy, PROMPT_T, SAMPLING, SEEDS)

    async def look() -> None:
        async with lora_engine.engine.fork("base", BASE) as base:
            group = await sampled(base, PROMPT_T, SAMPLING, SEEDS)
        found = [await one(seed, name, group) for seed, name in ((5, "same"), (6, "same"), (6, "other"))]
        assert found[0] != found[1] == found[2]

    lora_engine.run(look())


def test_a_saved_policy_is_a_peft_adapter(lora_engine: LiveEngine, tiny_model: Path, tmp_path: Path) -> None:
    async def look() -> tuple[Group, Any]:
        async with lora_engine.engine.fork("fork", lora()) as policy:
            group = (await adapted(policy, 2))[-1]
            await policy.save(tmp_path / "adapter")
            return group, await scores(policy, group, 1.0)

    group, scored = lora_engine.run(look())
    assert {f.name for f in (tmp_path / "adapter").iterdir()} >= {"adapter_config.json", "adapter_model.safetensors"}
    network = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32), tmp_path / "adapter")
    for r, found in zip(group.rollout_G, scored, strict=True):
        logits = network(torch.tensor([[*PROMPT_T, *r.token_T]])).logits[0, len(PROMPT_T) - 1 : -1]
        plain = logits.log_softmax(-1).gather(1, torch.tensor(r.token_T)[:, None])[:, 0]
        assert list(found) == pytest.approx(plain.tolist(), abs=1e-4)


def test_a_fork_leaves_nothing_in_shared_memory(lora_engine: LiveEngine) -> None:
    room = lora_engine.engine.lane.home.room

    async def look() -> None:
        async with lora_engine.engine.fork("fork", lora()) as policy:
            await adapted(policy, 3)
            assert len(list(Path(room.memory, "deltas").iterdir())) == 1, "old versions are gone"
        assert not list(Path(room.memory, "deltas").iterdir()) and not list(Path(room.disk).iterdir())

    lora_engine.run(look())
