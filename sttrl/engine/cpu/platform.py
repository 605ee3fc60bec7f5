"""A verl platform for machines without an accelerator, by verl's own registry. ``VERL_PLATFORM=cpu`` chooses it."""

from __future__ import annotations

import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import torch
from verl.plugin.platform.platform_base import PlatformBase
from verl.plugin.platform.platform_manager import PlatformRegistry


class _CpuDeviceModule(types.ModuleType):
    """What verl calls on ``torch.cuda``, answered for the CPU; the rest is ``torch.cpu``."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch.cpu, name)

    def memory_allocated(self, *_: Any) -> int:
        return int(psutil.Process().memory_info().rss)

    memory_reserved = max_memory_allocated = max_memory_reserved = memory_allocated

    def mem_get_info(self, *_: Any) -> tuple[int, int]:
        memory = psutil.virtual_memory()
        return memory.available, memory.total

    def nothing(self, *_: Any) -> None:
        return None

    empty_cache = ipc_collect = reset_peak_memory_stats = set_device = nothing

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    manual_seed_all = manual_seed

    def get_rng_state(self) -> torch.Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: torch.Tensor) -> None:
        torch.set_rng_state(state)

    def get_device_name(self, *_: Any) -> str:
        return "cpu"


@PlatformRegistry.register(platform="cpu")
class CpuPlatform(PlatformBase):
    """One device, the host, with gloo for collectives."""

    device_name = "cpu"
    vendor_name = "cpu"
    device_module = _CpuDeviceModule("sttrl_cpu_device")

    def is_available(self) -> bool:
        """Every machine has one."""
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        """Never chosen by detection: only ``VERL_PLATFORM=cpu`` asks for it."""
        return False

    def current_device(self) -> Any:
        """verl passes this to ``Tensor.to``."""
        return torch.device("cpu")

    def device_count(self) -> int:
        """One."""
        return 1

    def set_device(self, device_index: int) -> None:
        """There is nothing to choose."""

    def synchronize(self, device_index: int | None = None) -> None:
        """CPU kernels have returned already."""

    def manual_seed(self, seed: int) -> None:
        """Seed torch."""
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        """Seed torch."""
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None:
        """The host allocator has no such settings."""

    def empty_cache(self) -> None:
        """The host allocator has no cache to empty."""

    def get_device_capability(self, device_index: int = 0) -> tuple[int | None, int | None]:
        """No compute capability."""
        return None, None

    def communication_backend_name(self) -> str:
        """Collectives on CPU."""
        return "gloo"

    def visible_devices_envvar(self) -> str:
        """A name nobody else uses."""
        return "CPU_VISIBLE_DEVICES"

    def ray_resource_name(self) -> str:
        """Ray's own name of the resource."""
        return "CPU"

    def ray_resource_options(self, num: float) -> dict[str, float]:
        """Ray's option for ``num`` of it."""
        return {"num_cpus": num}

    def ray_noset_envvars(self) -> list[str]:
        """Ray hides no CPUs."""
        return []

    def is_ipc_supported(self) -> bool:
        """No device memory handles."""
        return False

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        """No profiler ranges."""
        yield

    def profiler_start(self) -> None:
        """No device profiler."""

    def profiler_stop(self) -> None:
        """No device profiler."""

    def cudart(self) -> None:
        """No CUDA runtime."""
