"""What each part that only CPUs need gains: tokens a second, seconds to start and memory of a sampler with it and without it.

    python benchmarks/cpu_parts.py [--model builtin/SmolLM2-135M-Instruct] [--rows 9 32] [--tokens 32] [--dtype auto] [--save]

One sampler has all parts, and one more for each part lacks that part (``STTRL_CPU_WITHOUT``). They take turns, so that a slow minute of
the machine is everybody's.
"""

from __future__ import annotations

import argparse
import os
import time

import psutil
from sampler import rate, settings_of, started
from table import show

from sttrl.engine.cpu.parts import PARTS, VARIABLE
from sttrl.engine.environment import choose_dtype
from sttrl.engine.vllm.sampler import environment

ALL = "all parts"
ROUNDS = 4


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--model", default="builtin/SmolLM2-135M-Instruct")
    parser.add_argument("--rows", type=int, nargs="+", default=[9, 32], help="samples of one prompt, taken at once")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--dtype", choices=("auto", "bfloat16", "float32"), default="auto", help="as main.py's (default: auto)")
    parser.add_argument("--save", action="store_true", help="also keep the table under benchmarks/results")
    given = parser.parse_args()
    dtype = choose_dtype(given.dtype, "cpu")
    settings, threads = settings_of(given.model, dtype, given.rows), len(os.sched_getaffinity(0))
    flags = ["--model", given.model, "--dtype", dtype, "--tokens", str(given.tokens), "--rows", *map(str, given.rows)]
    engines, seconds = {}, {}
    for name in (ALL, *PARTS):
        begun = time.monotonic()
        os.environ[VARIABLE] = "" if name == ALL else name
        engines[name] = started("ours", flags, os.environ | environment(settings, threads))
        seconds[name] = time.monotonic() - begun
    best = {name: [0.0] * len(given.rows) for name in engines}
    for at, count in enumerate(given.rows):
        for _ in range(ROUNDS):
            for name, engine in engines.items():
                best[name][at] = max(best[name][at], rate(engine, count))
    memory = {name: memory_mib(engine.pid) for name, engine in engines.items()}
    for engine in engines.values():
        engine.communicate("")
    rows = [
        [
            f"without {name}" if name != ALL else name,
            *(cell for mine, whole in zip(best[name], best[ALL], strict=True) for cell in (f"{mine:.0f}", f"{whole / mine:.2f}x")),
            f"{seconds[name]:.1f}",
            f"{memory[name]}",
        ]
        for name in engines
    ]
    columns = ["sampler", *(cell for n in given.rows for cell in (f"{n} samples: tokens/s", "gain")), "start, s", "memory, MiB"]
    notes = f"In {dtype}. A prompt of 45 tokens, {given.tokens} tokens a sample; the best of {ROUNDS} tries, in turns."
    show("CPU parts", columns, rows, notes, given.save)


def memory_mib(pid: int) -> int:
    """Proportional set size of a process and its children."""
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return sum(process.memory_full_info().pss for process in family) >> 20


if __name__ == "__main__":
    main()
