"""Lets requests with the same prompt share the keys and values of the prompt's last, partly filled block.

vLLM's prefix cache shares full blocks only, so every sample of a group computes the tokens after the last full block again: half a block
on average. Here the first request computes them. The others wait one step and then copy that block. This uses vLLM's interface for keys and
values that come from outside (``KVConnectorBase_V1``); here they come from another request that is running.

Used on CPU only. On GPU these few tokens cost almost nothing.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import torch
from vllm.config import VllmConfig
from vllm.distributed.kv_transfer.kv_connector.v1 import KVConnectorBase_V1, KVConnectorRole
from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorMetadata, SupportsHMA
from vllm.v1.core.kv_cache_manager import KVCacheBlocks
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.kv_cache_interface import KVCacheConfig
from vllm.v1.request import Request, RequestStatus

WORTH_A_STEP = 64
"""The others wait if together they would compute more tokens than this: one step of the first request alone takes about as long."""


@dataclass(frozen=True)
class Copies(KVConnectorMetadata):
    """The blocks to copy before a step: (from, to)."""

    blocks: tuple[tuple[int, int], ...]


class SharedPrompts(KVConnectorBase_V1, SupportsHMA):
    """vLLM makes two instances: the one at its scheduler decides what is copied, the one at its worker copies."""

    def __init__(self, vllm_config: VllmConfig, role: KVConnectorRole, kv_cache_config: KVCacheConfig) -> None:
        super().__init__(vllm_config, role, kv_cache_config)
        self.block_size = int(vllm_config.cache_config.block_size)
        # Nothing is shared for models whose layers have several kinds of cache, such as sliding windows.
        self.shares = len(kv_cache_config.kv_cache_groups) == 1
        self.in_flight: dict[Hashable, dict[str, Request]] = {}
        self.blocks: dict[str, list[int]] = {}
        self.sources: dict[str, str] = {}
        self.waited: set[str] = set()
        self.copies: list[tuple[int, int]] = []
        self.caches: list[torch.Tensor] = []

    @property
    def requires_kv_delivery(self) -> bool:
        """No copy has to arrive: a request that is taken out of the batch computes its prompt again."""
        return False

    def on_new_request(self, request: Request) -> None:
        """Remember a new request."""
        self.in_flight.setdefault(prompt_of(request), {})[request.request_id] = request

    def get_num_new_matched_tokens(self, request: Request, num_computed_tokens: int) -> tuple[int | None, bool]:
        """How many prompt tokens after the first ``num_computed_tokens`` can be copied; None: wait, another request computes them now.

        The prompt's last token is never copied, because its logits are needed.
        """
        left = request.num_prompt_tokens - 1 - num_computed_tokens
        if left <= 0 or not self.shares or asks_for_prompt(request):
            return 0, False
        group = self.in_flight[prompt_of(request)]
        at_work = [other for other in group.values() if other.status == RequestStatus.RUNNING]
        for other in at_work:
            if other.num_computed_tokens >= other.num_prompt_tokens:
                self.sources[request.request_id] = other.request_id
                return left, False
        if request.request_id in self.waited or not at_work or left * (len(group) - len(at_work)) <= WORTH_A_STEP:
            return 0, False
        self.waited.add(request.request_id)  # once only: the request it waits for may end with its first token
        return None, False

    def update_state_after_alloc(self, request: Request, blocks: KVCacheBlocks, num_external_tokens: int) -> None:
        """Note the blocks of a request, and which of them have to be copied from another request."""
        mine = self.blocks[request.request_id] = blocks.get_block_ids()[0]
        if num_external_tokens:
            end = request.num_prompt_tokens - 1
            wanted = slice((end - num_external_tokens) // self.block_size, -(-end // self.block_size))
            theirs = self.blocks[self.sources.pop(request.request_id)]
            self.copies.extend(zip(theirs[wanted], mine[wanted], strict=True))

    def build_connector_meta(self, scheduler_output: SchedulerOutput) -> Copies:
        """The copies that the worker makes before this step."""
        copies, self.copies = Copies(tuple(self.copies)), []
        return copies

    def request_finished(self, request: Request, block_ids: list[int]) -> tuple[bool, None]:
        """Forget a request that has ended. Its blocks may be reused."""
        prompt, name = prompt_of(request), request.request_id
        group = self.in_flight.get(prompt, {})
        group.pop(name, None)
        if not group:
            self.in_flight.pop(prompt, None)
        self.blocks.pop(name, None)
        self.sources.pop(name, None)
        self.waited.discard(name)
        return False, None

    def request_finished_all_groups(self, request: Request, block_ids: tuple[list[int], ...]) -> tuple[bool, None]:
        """The same for a model with several kinds of cache."""
        return self.request_finished(request, [])

    def register_kv_caches(self, kv_caches: dict[str, torch.Tensor]) -> None:
        """Keep the worker's caches, one for each layer: ``[blocks, ...]``."""
        self.caches = list(kv_caches.values())

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        """Copy whole blocks. What they hold after the prompt is overwritten before it is read."""
        copies = self._get_connector_metadata()
        assert isinstance(copies, Copies)
        if copies.blocks:
            sources, targets = torch.tensor(copies.blocks).unbind(1)
            for cache in self.caches:
                cache[targets] = cache[sources]

    def wait_for_layer_load(self, layer_name: str) -> None:
        """Nothing to wait for: copies are made at once."""

    def save_kv_layer(self, layer_name: str, kv_layer: torch.Tensor, attn_metadata: Any, **kwargs: Any) -> None:
        """Nothing is saved outside."""

    def wait_for_save(self) -> None:
        """Nothing to wait for: copies are made at once."""


def asks_for_prompt(request: Request) -> bool:
    """Whether the prompt's own log-probs are asked for, so that all of it has to be computed."""
    return request.sampling_params is not None and request.sampling_params.prompt_logprobs is not None


def prompt_of(request: Request) -> Hashable:
    """Equal for two requests whose prompts have the same keys and values."""
    adapter = request.lora_request.lora_int_id if request.lora_request else None
    return tuple(request.prompt_token_ids or ()), adapter
