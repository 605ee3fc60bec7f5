"""The engine with full weights, and what it says when its processes are killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from live_engine import PROMPT_T, EngineHouse, LiveEngine, group_of, living, rollout, sampled, scores, settings_for
from method_runs import METHODS, settled, steps_of, summary_of
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from sttrl import cli
from sttrl.engine.reaper import family
from sttrl.engine.verl.interface import ForkWorker
from sttrl.engine.vllm.sampler import Sampler
from sttrl.errors import EngineError
from sttrl.types import DeltaSpec, Group, Objective, Sampling, TrainGroup

pytestmark = [pytest.mark.slow, pytest.mark.long]
SAMPLING = Sampling(temperature=1.0, max_tokens=10)
SEEDS = tuple(range(12))
FULL = DeltaSpec(kind="full", lr={"main": 1e-3}, weight_decay=0.01)
GROUP = Group(prompt_T=PROMPT_T, rollout_G=(rollout((5, 6)), rollout((7, 8))))


@pytest.fixture
def engine(engine_house: EngineHouse, tiny_model: Path) -> LiveEngine:
    """Full weights in bfloat16, as a run has them, with a reference worker and a critic."""
    return engine_house.get(settings_for(tiny_model, adapter=None, dtype="bfloat16", separate_reference=True, critic=True))


def test_a_fork_of_full_weights_leaves_the_base_as_it_was(engine: LiveEngine, tiny_model: Path, tmp_path: Path) -> None:
    async def look() -> None:
        fingerprint = await engine.engine.fingerprint()
        async with engine.engine.fork("base", DeltaSpec(kind="none")) as base:
            before = await sampled(base, PROMPT_T, SAMPLING, SEEDS)
            fixed = await scores(base, before, 1.0)
            async with engine.engine.fork("fork", FULL) as policy:
                same = await sampled(policy, PROMPT_T, SAMPLING, SEEDS)
                assert same == before
                for _ in range(3):
                    group = await sampled(policy, PROMPT_T, SAMPLING, SEEDS)
                    stats = await policy.update([group_of(group)], Objective(kl_coef=0.01))
                    assert stats.logprob_gap_mean < 0.2
                after = await sampled(policy, PROMPT_T, SAMPLING, SEEDS)
                assert [r.token_T for r in after.rollout_G] != [r.token_T for r in before.rollout_G]
                scored = np.concatenate(await scores(policy, after, 1.0))
                assert np.abs(scored - np.concatenate([r.logprob_T for r in after.rollout_G])).mean() < 0.1
                await policy.save(tmp_path / "saved")
                assert await sampled(base, PROMPT_T, SAMPLING, SEEDS) == before
            assert await sampled(base, PROMPT_T, SAMPLING, SEEDS) == before
            assert await scores(base, before, 1.0) == fixed
        assert await engine.engine.fingerprint() == fingerprint

    engine.run(look())
    saved = load_file(tmp_path / "saved" / "model.safetensors")
    network = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    base = dict(network.named_parameters())
    assert saved.keys() == base.keys() and all(not torch.equal(saved[n], base[n]) for n in saved)


def test_two_full_forks_in_turn_give_the_same(engine: LiveEngine) -> None:
    async def one(name: str) -> Any:
        async with engine.engine.fork(name, FULL) as policy:
            for _ in range(2):
                group = await sampled(policy, PROMPT_T, SAMPLING, SEEDS)
                await policy.update([group_of(group)], Objective())
            return await sampled(policy, PROMPT_T, SAMPLING, SEEDS)

    assert engine.run(one("first")) == engine.run(one("second"))


def test_full_weights_ppo_and_every_method(
    engine: LiveEngine, tiny_model: Path, keep_alive: Callable[[LiveEngine], None], tmp_path: Path
) -> None:
    """One engine for all of it: each start takes as long as all of these runs."""
    keep_alive(engine)
    runs = {**METHODS, "gae": {"adv_estimator": "gae", "critic_lr": 0.01, "mini_batches": 2}, "energy": {"voting_function": "energy"}}
    for name, changes in runs.items():
        config = settled(
            tiny_model, dataset="arithmetic-demo", output_dir=tmp_path / name, lora_rank=0, dtype="bfloat16", separate_ref_gpu=True,
            answer_kind=None,
            **{"lr": 0.001, "limit": 2, **changes},
        )  # fmt: skip
        cli.run(config)
        updates = [step["update"] for step in steps_of(tmp_path / name / "run") if step["update"]]
        assert summary_of(tmp_path / name / "run")["questions"]["done"] == 2 and updates, name
        if name == "gae":
            assert all(update["value_loss"] > 0 and update["optimizer_steps"] == 2 for update in updates)


def test_the_reference_worker_has_the_numbers_of_the_learner(engine: LiveEngine) -> None:
    async def look() -> None:
        async with engine.engine.fork("fork", DeltaSpec(kind="full", lr={"main": 0.001})) as policy:
            group = await sampled(policy, PROMPT_T, Sampling(temperature=1.0, max_tokens=8), range(8))
            (known,) = await engine.engine.lane.with_reference(TrainGroup.of(group), 0.7)
            own = await scores(policy, group, 0.7, at="base")
        assert [row.base_logprob_T for row in known.row_G] == own

    engine.run(look())


async def pid_of(engine: LiveEngine) -> int:
    """The learner's process."""
    workers = await engine.engine.lane.learner()
    return int((await workers.call(ForkWorker.describe))[0]["pid"])


def test_vllm_that_stops_is_an_error_that_says_so(engine: LiveEngine) -> None:
    """Its core is a thread: it can die and leave the process alive. Second to last in this file: nothing samples after it."""

    def stop(sampler: Sampler) -> None:
        assert sampler.vllm.thread is not None
        sampler.vllm.thread.core.step_fn = None

    async def sample() -> None:
        await engine.engine.lane.sampler.handle.__ray_call__.remote(stop)
        async with engine.engine.fork("base", DeltaSpec(kind="none")) as base:
            await sampled(base, PROMPT_T, SAMPLING, SEEDS)

    for _ in range(2):
        with pytest.raises(EngineError, match="The sampler failed: .*EngineDeadError") as caught:
            engine.run(sample())
        assert "logs/" in caught.value.hint


def test_a_killed_process_is_an_error_that_names_it(engine: LiveEngine, engine_house: EngineHouse) -> None:
    """Last in this file: it ends the engine."""
    sampler, learner = engine.engine.lane.pids[0], engine.run(pid_of(engine))
    processes = family(engine.engine.lane.pids)

    async def after(pid: int, what: str) -> EngineError:
        async with engine.engine.fork("base", DeltaSpec(kind="none")) as base, engine.engine.fork(f"fork-{what}", FULL) as policy:
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(EngineError) as caught:
                await (sampled(base, PROMPT_T, SAMPLING, SEEDS) if what == "sampler" else policy.update([group_of(GROUP)], Objective()))
            return caught.value
        raise AssertionError

    for pid, what in ((sampler, "sampler"), (learner, "learner")):
        with pytest.raises(EngineError) as leaving:
            raise engine.run(after(pid, what))
        assert f"The {what} died" in leaving.value.message and "same command" in leaving.value.hint and "\n" not in str(leaving.value)
    engine_house.close()
    assert not living(processes)
