"""Every method, vote, reward and estimator in whole runs on the real engine, and what each does to the policy."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from live_engine import OTHER_PROMPT_T, PROMPT_T, LiveEngine, everything, sampled, scores, settings_for
from method_runs import METHODS, TTRL, settled, steps_of, summary_of
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from sttrl.engine.base import EngineSettings
from sttrl.run.screen import Screen
from sttrl.sweep.runs import run_sweep
from sttrl.types import DeltaSpec, Objective, Row, Sampling, TrainGroup

pytestmark = pytest.mark.slow

VARIANTS: dict[str, dict[str, Any]] = {
    "energy": {"voting_function": "energy"},
    "semantic": {"voting_function": "energy", "energy": "semantic", "energy_tau": 0.5},
    "confidence": {"voting_function": "confidence", "ties": "confidence"},
    "deepconf": {"voting_function": "confidence", "confidence": "deepconf_bottom", "confidence_window": 2, "confidence_top_k": 5},
    "certainty": {"voting_function": "confidence", "confidence": "self_certainty"},
    **{
        f"reward_{name}": {"reward": name}
        for name in ("frequency", "neg_entropy", "self_certainty", "logprob", "scrl", "scope", "random", "format")
    },
    "steps": {"voting_function": "confidence", "confidence": "step_mean", "reward": "scope"},
    "spine": {"forking_tokens": "otsu", "entropy_band": "mad", "ppo_epochs": 2},
    "trees": {"rollouts": "tree", "fork_points": 3, "fork_branches": 1, "advantage_shaping": "relative_entropy"},
    "guard": {"guard": ("frs", "mps"), "n_votes": 8, "n_train": 8},
    "restrain": {"reward": "restrain", "adv_estimator": "reinforce"},
    "ddrl": {"adv_estimator": "dae", "train_samples": "balanced", "n_train": 8},
    "remax": {"adv_estimator": "remax"},
    "remax_logprob": {"adv_estimator": "remax", "reward": "logprob", "temp": 0.7},
    "otb": {"adv_estimator": "optimal_token_baseline"},
    "reinforce_plus_plus": {"adv_estimator": "reinforce_plus_plus", "gamma": 0.9},
    "gspo_minibatches": {"policy_loss": "gspo", "loss_aggregation": "seq-mean-token-mean", "ppo_epochs": 2, "mini_batches": 2},
    "ttrl_minibatches": {**TTRL, "mini_batches": 2},
    "gates": {"min_margin": 0.9},
}


@pytest.mark.parametrize("method", METHODS)
def test_a_method_adapts_and_repeats_to_the_byte(do_run: Callable[..., Path], tmp_path: Path, method: str) -> None:
    first, again = (do_run("arithmetic-demo", tmp_path / name, **METHODS[method], answer_kind=None) for name in ("first", "again"))
    found = summary_of(first)
    assert found["questions"]["done"] == 3 and found["tokens"]["trained"] > 0
    assert found["base"] and found["adapted"] and found["vote_same_tokens"] and found["confidence_same_tokens"]
    updates = [step["update"] for step in steps_of(first) if step["update"]]
    assert updates and all(math.isfinite(update["loss"]) and update["grad_norm"] > 0 for update in updates)
    assert everything(first) == everything(again)
    adapters = {f.parent.name for f in first.glob("adapters/**/*.safetensors")}
    assert len(adapters) == (1 if method == "ttrl" else 3 if method in ("slot", "memo_token") else len(adapters)) and adapters


@pytest.mark.long
@pytest.mark.parametrize("method", METHODS)
def test_learning_rate_zero_is_the_base(do_run: Callable[..., Path], tmp_path: Path, method: str) -> None:
    folder = do_run("arithmetic-demo", tmp_path, **{**METHODS[method], "lr": 0.0}, answer_kind=None)
    lines = [json.loads(line) for file in folder.glob("rollouts/*") for line in file.read_text().splitlines()]
    heard = {name: [(r["seed"], r["tokens"]) for r in lines if r.get("poll") == name] for name in ("base", "adapted")}
    assert heard["adapted"] == heard["base"] and len(heard["base"]) == 15
    assert any(step["update"] for step in steps_of(folder))


@pytest.mark.long
@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("sttrl", "ttrl")])
def test_a_method_goes_on_from_question_to_question(do_run: Callable[..., Path], tmp_path: Path, method: str) -> None:
    folder = do_run("arithmetic-demo", tmp_path, **METHODS[method], continuous=True, answer_kind=None)
    versions = [step["version"] for step in steps_of(folder) if step["update"]]
    assert versions == sorted(set(versions)) and versions[-1] >= 1


@pytest.mark.long
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_runs(do_run: Callable[..., Path], tmp_path: Path, variant: str) -> None:
    folder = do_run("arithmetic-demo", tmp_path, **VARIANTS[variant], limit=2, answer_kind=None)
    found, steps = summary_of(folder), steps_of(folder)
    assert found["questions"]["done"] == 2
    if variant == "gates":
        assert found["votes"]["gated"]["margin"] == len([s for s in steps if s["gate"] == "margin"]) > 0
        return
    assert [step for step in steps if step["update"]]
    if variant == "gspo_minibatches":
        assert {step["update"]["optimizer_steps"] for step in steps if step["update"]} == {4}
    if variant == "reward_random":
        assert any(0 < sum(step["reward_G"]) < 16 for step in steps)
    if variant == "spine":
        assert {0 < step["update"]["forking_share"] < 1 for step in steps if step["update"]} == {True}
    if variant == "trees":
        lines = [json.loads(line) for file in folder.glob("rollouts/*") for line in file.read_text().splitlines() if '"step"' in line]
        sampled_tokens = sum(len(line["tokens"]) - line.get("begun", 0) for line in lines)
        assert sum(step["tokens_sampled"] for step in steps) == sampled_tokens < sum(len(line["tokens"]) for line in lines)
    if variant in ("energy", "semantic", "deepconf", "certainty"):
        assert any(step["election"]["share_C"] != step["majority"]["share_C"] for step in steps)


def test_a_question_that_alone_teaches_something_is_one_optimiser_step(do_run: Callable[..., Path], tmp_path: Path) -> None:
    """Of a batch of 32 questions by default; and with fewer samples than that."""
    folder = do_run("arithmetic-demo", tmp_path, **{**TTRL, "train_batch_size": 32}, n_train=8, limit=1, answer_kind=None)
    updates = [step["update"] for step in steps_of(folder) if step["update"]]
    assert summary_of(folder)["questions"]["done"] == 1
    assert updates and {update["optimizer_steps"] for update in updates} == {1}


def test_a_sweep_keeps_its_engine_and_ends_on_a_table(
    lora_engine: LiveEngine, tiny_model: Path, keep_alive: Callable[[LiveEngine], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep_alive(lora_engine)
    configs = [
        settled(tiny_model, dataset="arithmetic-demo", output_dir=tmp_path / "sweep", limit=2, answer_kind=None, seed=seed, lr=lr,
                run_name=f"lr{lr}-seed{seed}")
        for lr in (0.0, 0.01) for seed in (0, 1)
    ]  # fmt: skip
    table = run_sweep("sweep", configs, None, Screen()).table
    first = capsys.readouterr()
    assert first.err.count("engine ready") == 4 and "0.01" in table
    assert {"sweep.md", "sweep.json", "sweep.csv", "sweep.png", "sweep.svg"} <= {f.name for f in (tmp_path / "sweep").iterdir()}
    assert run_sweep("sweep", configs, None, Screen()).table == table
    second = capsys.readouterr()
    assert "engine ready" not in second.err, "what is done is not done again"


def test_settings_that_one_engine_covers() -> None:
    def settings(**changes: Any) -> EngineSettings:
        return settings_for(Path("model"), **changes)

    small, large = settings(max_model_len=64, trains=False), settings(max_num_seqs=8, critic=True)
    both = small.together(large)
    assert (both.max_model_len, both.max_num_seqs, both.trains, both.critic) == (96, 32, True, True)
    assert both.covers(small) and both.covers(large) and not small.covers(large) and not large.covers(small)
    assert not both.covers(settings(adapter=None)) and not small.is_like(settings(dtype="bfloat16"))


VECTOR = DeltaSpec(kind="vector", lr={"main": 0.5}, weight_decay=1e-8, adam_eps=1e-5)


async def tuned(policy: Any, prompt_T: tuple[int, ...]) -> None:
    prompt = TrainGroup(prefix_T=prompt_T[:1], row_G=(Row(token_T=prompt_T[1:], weight_T=(1.0,) * (len(prompt_T) - 1)),))
    for _ in range(5):
        await policy.update([prompt], Objective(loss="nll"))


def test_slot_samples_in_one_batch_as_alone_and_as_transformers(lora_engine: LiveEngine, tiny_model: Path, tmp_path: Path) -> None:
    """Three forks at once, one of them the base: each request has its own bias, and its log-probs are those of h + delta."""
    engine, sampling, seeds = lora_engine.engine, Sampling(temperature=0.9, max_tokens=8), range(40, 52)

    async def look() -> tuple[list[Any], list[Any]]:
        async with (
            engine.fork("one", VECTOR) as one,
            engine.fork("two", VECTOR) as two,
            engine.fork("plain", DeltaSpec(kind="none")) as plain,
        ):
            await tuned(one, PROMPT_T)
            await tuned(two, OTHER_PROMPT_T)
            asked = [(one, PROMPT_T), (two, OTHER_PROMPT_T), (plain, PROMPT_T), (two, PROMPT_T)]
            alone = [await sampled(policy, prompt_T, sampling, seeds) for policy, prompt_T in asked]
            together = await asyncio.gather(*(sampled(policy, prompt_T, sampling, seeds) for policy, prompt_T in asked))
            scored = [await scores(p, g, 0.9) for (p, _), g in zip(asked, alone, strict=True)]
            for found, group in zip(scored, alone, strict=True):
                heard = [r.logprob_T for r in group.rollout_G]
                np.testing.assert_allclose(np.concatenate(found), np.concatenate(heard), atol=1e-3)
            await one.save(tmp_path)
            return alone, list(together)

    alone, together = lora_engine.run(look())
    for a, b in zip(alone, together, strict=True):
        assert [r.token_T for r in a.rollout_G] == [r.token_T for r in b.rollout_G]
        np.testing.assert_allclose(*(np.concatenate([r.logprob_T for r in g.rollout_G]) for g in (a, b)), atol=1e-4)
    network = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    delta = load_file(tmp_path / "vector.safetensors")["delta"]
    assert float(delta.norm()) > 0.5
    for r in alone[0].rollout_G:
        hidden = network.model(torch.tensor([[*PROMPT_T, *r.token_T]])).last_hidden_state[0, len(PROMPT_T) - 1 : -1]
        plain = (network.lm_head(hidden + delta) / 0.9).log_softmax(-1).gather(1, torch.tensor(r.token_T)[:, None])[:, 0]
        assert list(r.logprob_T) == pytest.approx(plain.tolist(), abs=2e-3)
