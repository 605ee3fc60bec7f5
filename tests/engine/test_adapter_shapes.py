"""Adapters of every shape: the learner, the sampler's merged weights and PEFT agree on what they are."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import odd_models
import pytest
import torch
from learner_tools import OPEN, batch, forked, plain_logprobs, same, score, state
from live_engine import PROMPT_T, EngineHouse, LiveEngine, group_of, sampled, scores, settings_for
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from sttrl.engine.base import AdapterShape
from sttrl.engine.merge import policy_weights
from sttrl.types import DeltaSpec, Objective, Sampling

PLAIN = AdapterShape(rank=8, alpha=16)
SHAPES = {
    "rank stabilised": replace(PLAIN, rank_stabilised=True),
    "chosen targets": replace(PLAIN, targets=("q_proj", "v_proj")),
    "tied embeddings": replace(PLAIN, trainable_modules=("embed_tokens",)),
    "embeddings and head": replace(PLAIN, rank_stabilised=True, trainable_modules=("embed_tokens", "lm_head")),
    "head": replace(PLAIN, targets=("down_proj",), trainable_modules=("lm_head",)),
    "LoRA on both ends": replace(PLAIN, rank_stabilised=True, targets=("embed_tokens", "lm_head", "q_proj")),
    "LoRA on the head": replace(PLAIN, targets=("lm_head", "q_proj"), trainable_modules=("embed_tokens",)),
}
UNTIED = ("embeddings and head", "head", "LoRA on both ends", "LoRA on the head")


@pytest.fixture(scope="module")
def untied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a head of its own."""
    return odd_models.llama(tmp_path_factory.mktemp("untied") / "model", initializer_range=0.2)


@pytest.fixture(params=SHAPES)
def shaped(request: pytest.FixtureRequest, local_learner: Callable[..., Any], tiny_model: Path, untied: Path) -> tuple[Any, Path]:
    """A learner with an adapter of each shape, and its model."""
    model = untied if request.param in UNTIED else tiny_model
    return local_learner(model_folder=str(model), adapter=SHAPES[request.param]), model


def plain(model: Path) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)


def merged(model: Path, adapter: Path) -> torch.nn.Module:
    """The model with the weights that the sampler is given."""
    network = plain(model)
    network.load_state_dict(dict(policy_weights(model, adapter)), strict=False)
    return network


def test_learner_sampler_and_peft_score_alike_and_the_base_stays(shaped: tuple[Any, Path], tmp_path: Path) -> None:
    (learner, model), data = shaped, batch()
    before = score(learner, None, data)
    for found, expected in zip(before, plain_logprobs(plain(model), data), strict=True):
        assert found == pytest.approx(expected.tolist(), abs=1e-4)
    with forked(learner, lr=0.01) as name:
        assert score(learner, name, data) == before
        for _ in range(3):
            learner.update(name, [data.group], OPEN)
        learner.export(name, str(tmp_path), "float32")
        adapted = score(learner, name, data)
        assert max(np.abs(np.subtract(a, b)).max() for a, b in zip(adapted, before, strict=True)) > 0.01
        for network in (PeftModel.from_pretrained(plain(model), tmp_path), merged(model, tmp_path)):
            for found, expected in zip(adapted, plain_logprobs(network, data), strict=True):
                assert found == pytest.approx(expected.tolist(), abs=2e-4)
        assert score(learner, None, data) == before
    assert score(learner, None, data) == before


def test_a_saved_fork_of_any_shape_goes_on_to_the_bit(shaped: tuple[Any, Path], tmp_path: Path) -> None:
    (learner, _), data = shaped, batch()
    with forked(learner, "a") as a, forked(learner, "b", seed=5) as b:
        learner.update(a, [data.group], OPEN)
        learner.save_fork(a, str(tmp_path))
        learner.restore_fork(b, str(tmp_path))
        for name in (a, b):
            learner.update(name, [data.group], OPEN)
        assert same(state(learner, a), state(learner, b)) and score(learner, a, data) == score(learner, b, data)


def test_an_adapter_has_what_its_shape_says(local_learner: Callable[..., Any]) -> None:
    names = [n for n, p in local_learner(adapter=SHAPES["chosen targets"]).engine.module.named_parameters() if p.requires_grad]
    assert len(names) == 8 and all(".q_proj.lora_" in n or ".v_proj.lora_" in n for n in names)


def test_a_rank_stabilised_adapter_moves_farther_by_the_root_of_its_rank(local_learner: Callable[..., Any]) -> None:
    """Scaled by alpha / sqrt(8), not alpha / 8: the gradient of its B matrices at the start is sqrt(8) times as large."""
    norms = []
    for shape in (PLAIN, SHAPES["rank stabilised"]):
        learner = local_learner(adapter=shape)
        with forked(learner, lr=0.0) as name:
            norms.append(learner.update(name, [batch().group], OPEN).grad_norm)
    assert norms[1] / norms[0] == pytest.approx(math.sqrt(8), rel=1e-3)


def test_embeddings_have_a_rate_of_their_own(local_learner: Callable[..., Any], tmp_path: Path) -> None:
    learner, data = local_learner(adapter=SHAPES["tied embeddings"]), batch()
    rates = {"still": {"main": 0.01, "embedding": 0.0}, "moving": {"main": 0.0, "embedding": 0.02}}
    weights = {}
    for name, lr in rates.items():
        learner.open_fork(name, DeltaSpec(kind="lora", lr=lr, seed=1, schedule="cosine", total_steps=4))
        stats = [learner.update(name, [data.group], OPEN) for _ in range(2)]
        factor = 0.5 * (1 + math.cos(math.pi / 4))
        assert [(s.lr, s.embedding_lr) for s in stats] == [
            (lr["main"], lr["embedding"]), pytest.approx((lr["main"] * factor, lr["embedding"] * factor))
        ]  # fmt: skip
        learner.export(name, str(tmp_path / name), "float32")
        weights[name] = load_file(tmp_path / name / "adapter_model.safetensors")
        learner.close_fork(name)
    (embedding,) = [n for n in weights["still"] if "embed_tokens" in n]
    base = load_file(Path(learner.settings.model_folder) / "model.safetensors")["model.embed_tokens.weight"].float()
    assert torch.equal(weights["still"][embedding], base) and not torch.equal(weights["moving"][embedding], base)
    b_of = {name: [w for n, w in found.items() if "lora_B" in n] for name, found in weights.items()}
    assert all(w.any() for w in b_of["still"]) and not any(w.any() for w in b_of["moving"])


def test_lora_on_embeddings_and_head_has_their_rate_and_depends_on_its_seed_alone(
    local_learner: Callable[..., Any], untied: Path, tmp_path: Path
) -> None:
    learner, data = local_learner(model_folder=str(untied), adapter=SHAPES["LoRA on both ends"]), batch()
    weights = []
    for name, seed, lr in (
        ("a", 1, {"main": 0.0, "embedding": 0.02}), ("b", 1, {"main": 0.0, "embedding": 0.02}), ("c", 2, {"main": 0.01, "embedding": 0.0})
    ):  # fmt: skip
        learner.open_fork(name, DeltaSpec(kind="lora", lr=lr, seed=seed))
        stats = learner.update(name, [data.group], OPEN)
        assert (stats.lr, stats.embedding_lr) == (lr["main"], lr["embedding"])
        learner.export(name, str(tmp_path / name), "float32")
        weights.append(load_file(tmp_path / name / "adapter_model.safetensors"))
        learner.close_fork(name)
    first, again, other = weights
    assert same(first, again)
    ends = [n for n in first if "embed_tokens" in n or "lm_head" in n]
    assert sorted(n.rpartition("model.")[2] for n in ends) == [
        "embed_tokens.lora_embedding_A", "embed_tokens.lora_embedding_B", "lm_head.lora_A.weight", "lm_head.lora_B.weight"
    ]  # fmt: skip
    moved = {n: bool(w.any()) for n, w in first.items() if n.endswith(("lora_B.weight", "embedding_A"))}
    assert all(moved[n] == (n in ends) for n in moved), "of B, and of A of the embeddings, only those with a rate are not zero any more"
    assert all(bool(other[n].any()) != moved[n] for n in moved)


def test_vllm_is_given_merged_weights_where_it_serves_no_adapter() -> None:
    def on_gpu(shape: AdapterShape | None) -> Any:
        return settings_for(Path("model"), device="cuda", adapter=shape)

    assert on_gpu(PLAIN).samples_adapters and on_gpu(SHAPES["rank stabilised"]).samples_adapters
    assert not on_gpu(SHAPES["LoRA on both ends"]).samples_adapters
    assert not on_gpu(SHAPES["tied embeddings"]).samples_adapters and not on_gpu(None).samples_adapters
    assert not settings_for(Path("model")).samples_adapters


@pytest.fixture
def engine(engine_house: EngineHouse, tiny_model: Path) -> LiveEngine:
    """An engine whose adapters differ from the usual in everything."""
    shape = AdapterShape(rank=4, alpha=8, rank_stabilised=True, targets=("q_proj", "up_proj"), trainable_modules=("embed_tokens",))
    return engine_house.get(settings_for(tiny_model, adapter=shape))


@pytest.mark.slow
@pytest.mark.long
def test_the_live_sampler_holds_what_the_learner_holds(engine: LiveEngine, tmp_path: Path) -> None:
    sampling, seeds, spec = (
        Sampling(temperature=1.0, max_tokens=10),
        range(16),
        DeltaSpec(kind="lora", lr={"main": 0.02, "embedding": 0.01}),
    )

    async def look() -> None:
        async with engine.engine.fork("base", DeltaSpec(kind="none")) as base, engine.engine.fork("fork", spec) as policy:
            before = await sampled(base, PROMPT_T, sampling, seeds)
            for _ in range(3):
                group = await sampled(policy, PROMPT_T, sampling, seeds)
                stats = await policy.update([group_of(group)], Objective(kl_coef=0.01))
                assert stats.logprob_gap_max < 1e-3 and (stats.lr, stats.embedding_lr) == (0.02, 0.01)
            after = await sampled(policy, PROMPT_T, sampling, seeds)
            gap = np.concatenate(await scores(policy, after)) - np.concatenate([r.logprob_T for r in after.rollout_G])
            assert np.abs(gap).max() < 1e-3 and [r.token_T for r in after.rollout_G] != [r.token_T for r in before.rollout_G]
            await policy.checkpoint(tmp_path / "state")
            async with engine.engine.fork("later", replace(spec, seed=7)) as later:
                await later.restore(tmp_path / "state")
                assert await sampled(later, PROMPT_T, sampling, seeds) == after
            assert await sampled(base, PROMPT_T, sampling, seeds) == before

    engine.run(look())
