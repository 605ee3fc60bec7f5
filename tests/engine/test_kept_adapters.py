"""Adapters that a policy has kept, loaded into another policy of the live engine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from live_engine import PROMPT_T, LiveEngine, group_of, sampled, scores
from safetensors.torch import load_file, save_file
from test_engine_lora import OBJECTIVE, SAMPLING, SEEDS, adapted, flat, heard, logprobs, lora

from sttrl.engine.merge import ADAPTER_WEIGHTS
from sttrl.errors import StepError
from sttrl.types import Group

pytestmark = pytest.mark.slow


def test_an_adapter_that_was_kept_gives_the_same_policy(lora_engine: LiveEngine, tmp_path: Path) -> None:
    async def look() -> tuple[Group, Group, Group]:
        async with lora_engine.engine.fork("first", lora()) as policy:
            before = (await adapted(policy, 2))[-1]
            await policy.save(tmp_path / "kept")
        as_published(tmp_path / "kept", tmp_path / "published")
        found = []
        for folder in ("kept", "published"):
            async with lora_engine.engine.fork("second", lora(seed=9)) as policy:
                await policy.load(tmp_path / folder)
                assert policy.version == 1
                found.append(await sampled(policy, PROMPT_T, SAMPLING, SEEDS))
                assert flat(await scores(policy, found[-1])) == pytest.approx(flat(logprobs(found[-1])), abs=1e-3)
                await policy.update([group_of(found[-1])], OBJECTIVE)
                assert policy.version == 2
        return before, *found

    before, kept, published = lora_engine.run(look())
    assert heard(before) == heard(kept) == heard(published)


def as_published(source: Path, target: Path) -> None:
    """An adapter as marc published it: a file of torch's."""
    target.mkdir()
    (target / "adapter_config.json").write_bytes((source / "adapter_config.json").read_bytes())
    torch.save(load_file(source / "adapter_model.safetensors"), target / "adapter_model.bin")


def test_an_adapter_that_does_not_fit_is_refused_and_changes_nothing(lora_engine: LiveEngine, tmp_path: Path) -> None:
    async def look() -> None:
        async with lora_engine.engine.fork("first", lora()) as policy:
            await adapted(policy, 1)
            await policy.save(tmp_path / "kept")
        weights, settings = (
            load_file(tmp_path / "kept" / ADAPTER_WEIGHTS),
            json.loads((tmp_path / "kept" / "adapter_config.json").read_text()),
        )
        name = next(iter(weights))
        wrong = {
            "unlike the first adapter": (settings | {"r": 4}, weights),
            "has no .*not_there": (settings, {**weights, name.replace("layers.0", "layers.0.not_there"): weights[name].clone()}),
            "has the shape": (settings, {**weights, name: weights[name][:, :3].contiguous()}),
        }
        async with lora_engine.engine.fork("second", lora()) as policy:
            plain = await sampled(policy, PROMPT_T, SAMPLING, SEEDS)
            for number, (message, (own, tensors)) in enumerate(wrong.items()):
                folder = tmp_path / str(number)
                folder.mkdir()
                (folder / "adapter_config.json").write_text(json.dumps(own))
                save_file(tensors, folder / ADAPTER_WEIGHTS)
                with pytest.raises(StepError, match=message) as stop:
                    await policy.load(folder)
                assert "\n" not in str(stop.value) and policy.version == 0
            assert heard(await sampled(policy, PROMPT_T, SAMPLING, SEEDS)) == heard(plain)

    lora_engine.run(look())
