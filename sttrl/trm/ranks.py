"""The processes of a training: one, or as many as torchrun starts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from sttrl.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """``rank``: which of ``count`` processes this is. ``device``: where it computes."""

    rank: int = 0
    count: int = 1
    device: torch.device = torch.device("cpu")

    @staticmethod
    def begin(device: str) -> Ranks:
        """Join the processes that torchrun started (RANK, WORLD_SIZE, LOCAL_RANK), over NCCL on GPUs and gloo on CPUs.

        Without torchrun this process is alone.
        """
        count = int(os.environ.get("WORLD_SIZE", "1"))
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if count > 1 and "RANK" not in os.environ:
            raise UsageError(f"WORLD_SIZE is {count}, and RANK is not set.", "Start by torchrun, or unset WORLD_SIZE.")
        if device == "cuda" and local >= torch.cuda.device_count():
            raise UsageError(f"Process {local} here has no GPU: there are {torch.cuda.device_count()}.", "Start fewer processes.")
        place = torch.device(f"cuda:{local}" if device == "cuda" else device)
        if device == "cuda":
            torch.cuda.set_device(place)
        if count == 1:
            return Ranks(device=place)
        if not dist.is_initialized():
            dist.init_process_group("nccl" if device == "cuda" else "gloo")
        return Ranks(rank=dist.get_rank(), count=count, device=place)

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and says things."""
        return self.rank == 0

    def share(self, whole: int, what: str) -> int:
        """The share of each process. Raises `UsageError` if ``whole`` cannot be divided."""
        if whole % self.count:
            raise UsageError(f"{what} is {whole}, and {self.count} processes cannot share it equally.", f"Use a multiple of {self.count}.")
        return whole // self.count

    def sum(self, values: Sequence[torch.Tensor]) -> None:
        """Replace tensors, in place, by their sums over the processes."""
        if self.count > 1:
            for value in values:
                dist.all_reduce(value)

    def joined(self, values_B: torch.Tensor) -> torch.Tensor:
        """The values of every process, of equal number, in the order of their ranks."""
        if self.count == 1:
            return values_B
        parts = [torch.empty_like(values_B) for _ in range(self.count)]
        dist.all_gather(parts, values_B.contiguous())
        return torch.cat(parts)

    def gathered(self, value: Any) -> list[Any]:
        """A small value of every process, in the order of their ranks. Plain values only: dicts, lists, numbers, texts, arrays."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            dist.barrier()

    def end(self) -> None:
        """Leave the group."""
        if self.count > 1 and dist.is_initialized():
            dist.destroy_process_group()
