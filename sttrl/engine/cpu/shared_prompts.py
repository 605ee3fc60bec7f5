"""The prompt once, at the sampler: a group's samples take their prompt's keys and values from the first of them.

vLLM's prefix cache shares full blocks. What a prompt has behind its last full block, half a block on average, every sample computes for
itself; here only the first does, and the others, which wait a step for it, copy that block. To vLLM this is its interface for keys and
values from elsewhere (``KVConnectorBase_V1``), where elsewhere is a block of another request in flight.

On CPU only: on GPU these tokens cost next to nothing.
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
"""Tokens computed again by the others for which they rather wait: a step of the first one alone takes about as long as these."""


@dataclass(frozen=True)
class Copies(KVConnectorMetadata):
    """Blocks that a step begins by copying: (from, to)."""

    blocks: tuple[tuple[int, int], ...]


class SharedPrompts(KVConnectorBase_V1, SupportsHMA):
    """One instance at vLLM's scheduler, which decides, and one at its worker, which copies."""

    def __init__(self, vllm_config: VllmConfig, role: KVConnectorRole, kv_cache_config: KVCacheConfig) -> None:
        super().__init__(vllm_config, role, kv_cache_config)
        self.block_size = int(vllm_config.cache_config.block_size)
        # Models whose layers have several kinds of cache (sliding windows, states) keep to vLLM's own way.
        self.shares = len(kv_cache_config.kv_cache_groups) == 1
        self.in_flight: dict[Hashable, dict[str, Request]] = {}
        self.blocks: dict[str, list[int]] = {}
        self.sources: dict[str, str] = {}
        self.waited: set[str] = set()
        self.copies: list[tuple[int, int]] = []
        self.caches: list[torch.Tensor] = []

    @property
    def requires_kv_delivery(self) -> bool:
        """Nobody waits for what is copied here: a request that is taken out of the batch computes again."""
        return False

    def on_new_request(self, request: Request) -> None:
        """A request has come."""
        self.in_flight.setdefault(prompt_of(request), {})[request.request_id] = request

    def get_num_new_matched_tokens(self, request: Request, num_computed_tokens: int) -> tuple[int | None, bool]:
        """Tokens of the prompt behind the first ``num_computed_tokens`` that another request has; None: one will have them after this step.

        The prompt's last token is always computed: its logits are wanted.
        """
        left = request.num_prompt_tokens - 1 - num_computed_tokens
        if left <= 0 or not self.shares:
            return 0, False
        group = self.in_flight[prompt_of(request)]
        at_work = [other for other in group.values() if other.status == RequestStatus.RUNNING]
        for other in at_work:
            if other.num_computed_tokens >= other.num_prompt_tokens:
                self.sources[request.request_id] = other.request_id
                return left, False
        if request.request_id in self.waited or not at_work or left * (len(group) - len(at_work)) <= WORTH_A_STEP:
            return 0, False
        self.waited.add(request.request_id)  # once: the one it waits for may end with its first token
        return None, False

    def update_state_after_alloc(self, request: Request, blocks: KVCacheBlocks, num_external_tokens: int) -> None:
        """The request has its blocks; those with what it found elsewhere are to be copied."""
        mine = self.blocks[request.request_id] = blocks.get_block_ids()[0]
        if num_external_tokens:
            end = request.num_prompt_tokens - 1
            wanted = slice((end - num_external_tokens) // self.block_size, -(-end // self.block_size))
            theirs = self.blocks[self.sources.pop(request.request_id)]
            self.copies.extend(zip(theirs[wanted], mine[wanted], strict=True))

    def build_connector_meta(self, scheduler_output: SchedulerOutput) -> Copies:
        """What the worker does before this step."""
        copies, self.copies = Copies(tuple(self.copies)), []
        return copies

    def request_finished(self, request: Request, block_ids: list[int]) -> tuple[bool, None]:
        """A request has ended, and its blocks may go."""
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
        """The same, of a model with several kinds of cache."""
        return self.request_finished(request, [])

    def register_kv_caches(self, kv_caches: dict[str, torch.Tensor]) -> None:
        """The worker's caches, a layer each: ``[blocks, ...]``."""
        self.caches = list(kv_caches.values())

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        """Copy, whole blocks: what they hold behind the prompt is written again before it is read."""
        copies = self._get_connector_metadata()
        assert isinstance(copies, Copies)
        if copies.blocks:
            sources, targets = torch.tensor(copies.blocks).unbind(1)
            for cache in self.caches:
                cache[targets] = cache[sources]

    def wait_for_layer_load(self, layer_name: str) -> None:
        """Nothing is under way."""

    def save_kv_layer(self, layer_name: str, kv_layer: torch.Tensor, attn_metadata: Any, **kwargs: Any) -> None:
        """Nothing is kept elsewhere."""

    def wait_for_save(self) -> None:
        """Nothing is under way."""


def prompt_of(request: Request) -> Hashable:
    """What two requests have in common whose prompts have the same keys and values."""
    adapter = request.lora_request.lora_int_id if request.lora_request else None
    return tuple(request.prompt_token_ids or ()), adapter
