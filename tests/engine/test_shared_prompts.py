"""A group's samples take their prompt from the first of them: what vLLM's own scheduler hands out with it, and what is copied."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from live_engine import settings_for
from vllm import SamplingParams
from vllm.config import VllmConfig
from vllm.distributed.kv_transfer.kv_connector.v1 import KVConnectorRole
from vllm.lora.request import LoRARequest
from vllm.platforms import current_platform
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request
from vllm.v1.structured_output import StructuredOutputManager

from sttrl.engine.cpu.shared_prompts import Copies, SharedPrompts
from sttrl.engine.vllm.generation import engine_args

pytestmark = pytest.mark.skipif(not current_platform.is_cpu(), reason="vLLM is not built for CPU here")
BLOCK, END = 32, 7


@pytest.fixture(scope="module")
def config(tiny_model: Path) -> VllmConfig:
    """What the sampler gives vLLM."""
    init_none_hash(sha256)
    return engine_args(settings_for(tiny_model, max_num_seqs=64)).create_engine_config()


def caches(config: VllmConfig, groups: int = 1, blocks: int = 100) -> KVCacheConfig:
    spec = FullAttentionSpec(block_size=BLOCK, num_kv_heads=1, head_size=32, dtype=torch.float32)
    return KVCacheConfig(blocks, [], [KVCacheGroupSpec([f"layer{i}"], spec) for i in range(groups)])


class Steps:
    """vLLM's scheduler, and a model that says what it is told to."""

    def __init__(self, config: VllmConfig, blocks: int = 100) -> None:
        config.cache_config.num_gpu_blocks = blocks
        self.scheduler = Scheduler(config, caches(config, blocks=blocks), StructuredOutputManager(config), BLOCK)
        self.hasher = get_request_block_hasher(BLOCK, sha256)

    def ask(self, names: str, prompt: int, tokens: int = 4, first: int = 10, **more: Any) -> None:
        """A request for each letter, all with one prompt."""
        wish = SamplingParams(max_tokens=tokens, stop_token_ids=[END])
        wish.update_from_generation_config({}, END)
        for name in names:
            ids = list(range(first, first + prompt))
            self.scheduler.add_request(Request(name, ids, wish, None, block_hasher=self.hasher, **more))

    def step(self, said: Callable[[str], int] = lambda name: 5) -> tuple[dict[str, int], list[tuple[int, int]]]:
        """Tokens computed of each request, and the blocks copied before."""
        out = self.scheduler.schedule()
        names = list(out.num_scheduled_tokens)
        tokens = ModelRunnerOutput(names, {n: i for i, n in enumerate(names)}, sampled_token_ids=[[said(n)] for n in names])
        self.scheduler.update_from_output(out, tokens)
        assert isinstance(out.kv_connector_metadata, Copies)
        return dict(out.num_scheduled_tokens), list(out.kv_connector_metadata.blocks)

    def blocks(self, name: str) -> list[int]:
        return list(self.scheduler.kv_cache_manager.get_block_ids(name)[0])


@pytest.mark.parametrize("prompt", [20, 45, 64, 72])
def test_the_prompt_is_computed_once(config: VllmConfig, prompt: int) -> None:
    steps, names = Steps(config), "abcdefghijkl"
    steps.ask(names, prompt)
    assert steps.step() == ({"a": prompt}, [])
    computed, copied = steps.step()
    assert computed == dict.fromkeys(names, 1), "each computes one token: the first its second, the others the prompt's last"
    tail = (prompt - 1) // BLOCK
    assert sorted(copied) == sorted((steps.blocks("a")[tail], steps.blocks(n)[tail]) for n in names[1:])
    assert len({steps.blocks(n)[tail] for n in names}) == len(names), "each has its own copy to write on"
    assert steps.step()[1] == []


def test_who_comes_later_copies_at_once(config: VllmConfig) -> None:
    steps = Steps(config)
    steps.ask("a", 45, tokens=8)
    steps.step()
    steps.step()
    steps.ask("b", 45)
    assert steps.step() == ({"a": 1, "b": 1}, [(steps.blocks("a")[1], steps.blocks("b")[1])])


def test_other_prompts_and_adapters_are_not_copied(config: VllmConfig) -> None:
    steps = Steps(config)
    steps.ask("abcdefgh", 45)
    steps.ask("A", 45, first=11)
    steps.ask("L", 45, lora_request=LoRARequest("tuned", 1, "/nowhere"))
    computed, _ = steps.step()
    assert computed == {"a": 45, "A": 45, "L": 45}


def test_a_few_tokens_are_computed_again_rather_than_waited_for(config: VllmConfig) -> None:
    steps = Steps(config)
    steps.ask("abcdefgh", 34)  # one token behind the full block and before the last
    computed, copied = steps.step()
    assert computed == {"a": 34} | dict.fromkeys("bcdefgh", 2) and not copied


def test_nobody_waits_twice(config: VllmConfig) -> None:
    steps = Steps(config)
    steps.ask("abcdefgh", 45)
    assert steps.step(lambda name: END)[0] == {"a": 45}, "the first ends with its first token, and its blocks are gone"
    assert steps.step()[0] == dict.fromkeys("bcdefgh", 13), "the full block is vLLM's prefix cache"


def test_one_that_was_taken_out_of_the_batch_comes_back(config: VllmConfig) -> None:
    """Seven blocks: four prompts of two, of which one is common, and no room for all to grow into a third."""
    steps = Steps(config, blocks=8)
    steps.ask("abcd", 64, tokens=30)
    seen = [steps.step() for _ in range(100)]
    assert seen[0] == ({"a": 64}, []) and seen[1][0] == dict.fromkeys("abcd", 1) and len(seen[1][1]) == 3
    turns = ["d" in computed for computed, _ in seen]
    assert not turns[2] and sum(turns) == 30, "it was taken out, and came back for all of its answer"
    assert steps.scheduler.get_num_unfinished_requests() == 0, "all have ended"
    assert not steps.scheduler.connector.in_flight and not steps.scheduler.connector.blocks


def test_models_with_several_kinds_of_cache_are_left_to_vllm(config: VllmConfig) -> None:
    connector = SharedPrompts(config, KVConnectorRole.SCHEDULER, caches(config, groups=2))
    for name in "ab":
        request = Request(name, list(range(45)), SamplingParams(), None)
        connector.on_new_request(request)
        assert connector.get_num_new_matched_tokens(request, 0) == (0, False)
        connector.request_finished_all_groups(request, ([], []))


def test_the_worker_copies_whole_blocks_of_every_layer(config: VllmConfig) -> None:
    worker = SharedPrompts(config, KVConnectorRole.WORKER, caches(config))
    layers = {f"layer{i}": torch.randn(9, 1, BLOCK, 64, generator=torch.Generator().manual_seed(i)) for i in range(2)}
    before = {name: cache.clone() for name, cache in layers.items()}
    worker.register_kv_caches(layers)
    worker.bind_connector_metadata(Copies(((3, 5), (3, 6), (1, 8))))
    worker.start_load_kv(None)
    for name, cache in layers.items():
        assert torch.equal(cache, before[name][[0, 1, 2, 3, 4, 3, 3, 7, 1]])
