"""Two learner ranks over gloo: weights and responses are sharded, and nothing else changes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import odd_models
import pytest
from learner_tools import scored
from live_engine import PROMPT_T, EngineHouse, LiveEngine, group_of, rollout, sampled, scores, settings_for
from safetensors.torch import load_file

from sttrl.engine.base import AdapterShape
from sttrl.engine.verl.interface import ForkWorker
from sttrl.types import DeltaSpec, Group, Objective, Row, Sampling, TrainGroup

pytestmark = [pytest.mark.slow, pytest.mark.long]
SAMPLING = Sampling(temperature=1.0, max_tokens=10)
SEEDS = tuple(range(11))
"""An odd number, so that the ranks' shares differ."""
SPEC = DeltaSpec(kind="lora", lr={"main": 0.003}, seed=4, weight_decay=0.01)
OBJECTIVE = Objective(kl_coef=0.1)


@pytest.fixture
def engine(engine_house: EngineHouse, tiny_model: Path) -> LiveEngine:
    """An engine whose learner is two processes."""
    return engine_house.get(settings_for(tiny_model, learner_ranks=2))


def test_two_ranks_are_one(engine: LiveEngine, lora_learner: Any, tmp_path: Path) -> None:
    async def look() -> tuple[Any, ...]:
        described = await (await engine.engine.lane.learner()).call(ForkWorker.describe)
        async with engine.engine.fork("fork", SPEC) as policy:
            groups, stats, found = [], [], []
            for _ in range(2):
                groups.append(await sampled(policy, PROMPT_T, SAMPLING, SEEDS))
                found.append(await scores(policy, groups[-1], 1.0))
                stats.append(await policy.update([group_of(groups[-1])], OBJECTIVE))
            found.append(await scores(policy, groups[-1], 1.0))
            groups.append(await sampled(policy, PROMPT_T, SAMPLING, SEEDS))
            await policy.save(tmp_path / "two")
            await policy.checkpoint(tmp_path / "state")
            async with engine.engine.fork("restored", replace(SPEC, seed=1)) as restored:
                await restored.restore(tmp_path / "state")
                assert await scores(restored, groups[-2], 1.0) == found[-1]
        prints = await engine.engine.fingerprint()
        return described, groups, stats, found, prints

    described, groups, stats, found, prints = engine.run(look())
    assert [d["world_size"] for d in described] == [2, 2] and len({d["pid"] for d in described}) == 2
    assert all(d["packs"] for d in described) and len(set(prints)) == 2

    lora_learner.open_fork("one", SPEC)
    try:
        for group, two, rows in zip(groups, stats, found, strict=False):
            for row, expected in zip(rows, scored(lora_learner, "one", group_of(group)), strict=True):
                assert list(row) == pytest.approx(expected, abs=1e-3)
            one = lora_learner.update("one", [group_of(group)], OBJECTIVE)
            for field in ("loss", "grad_norm", "lr", "kl_to_base", "logprob_correlation"):
                assert getattr(two, field) == pytest.approx(getattr(one, field), rel=1e-3, abs=1e-5), field
            assert two.tokens == one.tokens == group.n_tokens
            assert two.logprob_gap_max < 1e-3
        lora_learner.export("one", str(tmp_path / "one"), "float32")
        last = scored(lora_learner, "one", group_of(groups[1]))
    finally:
        lora_learner.close_fork("one")
    assert np.concatenate(found[-1]) == pytest.approx(np.concatenate(last), abs=1e-3)
    saved = {n: load_file(tmp_path / n / "adapter_model.safetensors") for n in ("one", "two")}
    assert saved["one"].keys() == saved["two"].keys()
    for name, tensor in saved["one"].items():
        assert saved["two"][name].shape == tensor.shape
        assert float((saved["two"][name] - tensor).norm()) <= 0.02 * float(tensor.norm()), name
    settings = [json.loads((tmp_path / n / "adapter_config.json").read_text()) for n in ("one", "two")]
    assert settings[0]["r"] == settings[1]["r"] == 8 and settings[0]["lora_alpha"] == settings[1]["lora_alpha"] == 16


SPLIT = Objective(
    kl_coef=0.1,
    max_logprob_gap=math.inf,
    loss_aggregation="seq-mean-token-sum-norm",
    horizon=10,
    ppo_epochs=2,
    clip_low=0.01,
    clip_high=0.01,
)
LEARN = Objective(loss="nll", max_logprob_gap=math.inf)


@pytest.mark.parametrize(
    ("length_G", "objective"), [((5,), LEARN), ((300, 3, 200, 150, 5), LEARN), ((300, 3, 200, 150, 5), SPLIT), ((4, 200, 2), SPLIT)]
)
def test_two_ranks_are_one_where_responses_do_not_divide_evenly(
    engine: LiveEngine, lora_learner: Any, length_G: tuple[int, ...], objective: Objective
) -> None:
    """One response for two ranks; a rank whose longest response is longer than a pass of the other; odd numbers."""
    chance = np.random.default_rng(0)
    group = Group(prompt_T=PROMPT_T, rollout_G=tuple(rollout(tuple(int(t) for t in chance.integers(3, 30, n))) for n in length_G))

    async def look() -> list[Any]:
        async with engine.engine.fork("fork", SPEC) as policy:
            return [await policy.update([group_of(group)], objective) for _ in range(2)]

    lora_learner.open_fork("one", SPEC)
    try:
        ones = [lora_learner.update("one", [group_of(group)], objective) for _ in range(2)]
    finally:
        lora_learner.close_fork("one")
    for two, one in zip(engine.run(look()), ones, strict=True):
        for field in ("loss", "grad_norm", "kl_to_base", "clip_fraction", "logprob_gap_mean", "tokens", "optimizer_steps"):
            expected = getattr(one, field)
            assert getattr(two, field) == (expected and pytest.approx(expected, rel=5e-3, abs=1e-5)), field


@pytest.mark.parametrize("low_rank", [False, True])
def test_two_ranks_train_embeddings_and_head_as_one_does(
    low_rank: bool, engine_house: EngineHouse, local_learner: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = odd_models.llama(tmp_path_factory.mktemp("untied") / "model", initializer_range=0.2)
    shape = AdapterShape(rank=8, alpha=16, rank_stabilised=True, trainable_modules=("embed_tokens", "lm_head"))
    shape = replace(shape, trainable_modules=(), targets=("embed_tokens", "lm_head", "q_proj")) if low_rank else shape
    two = engine_house.get(settings_for(model, learner_ranks=2, adapter=shape))
    spec = replace(SPEC, lr={"main": 0.003, "embedding": 0.001})
    chance = np.random.default_rng(0)
    rows = [Row(token_T=tuple(int(t) for t in chance.integers(3, 30, n)), weight_T=(1.0,) * n) for n in (9, 4, 13)]
    groups = [TrainGroup(prefix_T=PROMPT_T, row_G=tuple(rows))]

    async def look() -> list[Any]:
        async with two.engine.fork("fork", spec) as policy:
            return [await policy.update(groups, LEARN) for _ in range(3)]

    learner = local_learner(model_folder=str(model), adapter=shape)
    learner.open_fork("one", spec)
    ones = [learner.update("one", groups, LEARN) for _ in range(3)]
    for found, expected in zip(two.run(look()), ones, strict=True):
        for field in ("loss", "grad_norm", "lr", "embedding_lr", "tokens"):
            assert getattr(found, field) == pytest.approx(getattr(expected, field), rel=5e-3), field
    assert ones[-1].loss < ones[0].loss
