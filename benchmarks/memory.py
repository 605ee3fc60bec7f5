"""Memory of a run: the peak of all its processes together, each one's share, and what grows from question to question.

    python benchmarks/memory.py [--save] [any flag of a run]     (default: the demo)
    python benchmarks/memory.py --questions 300 [--save] [any flag of a run]     (sums, of many lengths, one short step each)

The run's own table comes first. Looks every second at the proportional set size (memory that processes share counts once) of the
program and everything it starts.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path

import psutil
from table import show

ROOT = Path(__file__).resolve().parents[1]
MIB = 1 << 20
NAMES = {"VLLM::EngineCor": "sampler: vLLM's engine core", "ray::TrainingRank": "learner", "ray::Sampler": "sampler", "raylet": "Ray"}
"""By how a process's name begins."""
MANY = {
    "model": "builtin/SmolLM2-135M-Instruct", "steps": 1, "n_votes": 4, "n_train": 4, "val_samples": 2, "ties": "first", "temp": 0.8,
    "lr": 1e-3, "max_response_tokens": 24, "answer_kind": "number",
}  # fmt: skip
"""Settings of a run of many short questions."""


class Watch:
    """Proportional set sizes of a process and its descendants, by second and kind."""

    def __init__(self, pid: int) -> None:
        self.root, self.done = psutil.Process(pid), threading.Event()
        self.seen: list[tuple[float, dict[str, int]]] = []
        self.thread = threading.Thread(target=self._look, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """No more looks."""
        self.done.set()
        self.thread.join()

    def _look(self) -> None:
        while not self.done.wait(1.0):
            sizes: dict[str, int] = defaultdict(int)
            with contextlib.suppress(psutil.Error):
                for process in (self.root, *self.root.children(recursive=True)):
                    with contextlib.suppress(psutil.Error):
                        sizes[kind_of(process, self.root.pid)] += process.memory_full_info().pss
            self.seen.append((time.monotonic(), dict(sizes)))


def kind_of(process: psutil.Process, root: int) -> str:
    """What a process is."""
    if process.pid == root:
        return "program"
    name = (process.cmdline() or [process.name()])[0]
    return next((kind for start, kind in NAMES.items() if name.startswith(start) or start in name), "others: Ray's workers, the judge's")


def main() -> None:
    """Run, watch, print."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--save", action="store_true", help="also keep the table under benchmarks/results")
    parser.add_argument("--questions", type=int, help="run this many sums instead of the demo")
    given, flags = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        if given.questions:
            made = Path(folder) / "sums.jsonl"
            made.write_text("".join(f"{json.dumps(row)}\n" for row in sums(given.questions)), encoding="utf-8")
            flags = ["--dataset", str(made), "--no_vote_same_tokens", *(f"--{name}={value}" for name, value in MANY.items()), *flags]
        command = [sys.executable, "main.py", *(flags or ["--config", "configs/demo.yaml"]), "--output_dir", folder, "--run_name", "memory"]
        program = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        watch, moments = Watch(program.pid), list[float]()
        assert program.stderr is not None
        last = ""
        for line in program.stderr:
            last = line.strip() or last
            if line.startswith("["):
                moments.append(time.monotonic())
        watch.stop()
        if program.wait():
            sys.exit(last)
    peak = max(watch.seen, key=lambda seen: sum(seen[1].values()))[1]
    rows = [[kind, f"{size / MIB:.0f}", growth(watch, kind, moments)] for kind, size in sorted(peak.items(), key=lambda item: -item[1])]
    rows.append(["together", f"{sum(peak.values()) / MIB:.0f}", growth(watch, None, moments)])
    shown = " ".join(command[1:-4]).replace(folder, "...")
    notes = (
        f"{len(moments)} questions: `{shown}`. Growth: the greatest size in the last quarter of the questions against the second quarter."
    )
    title = f"Memory, {len(moments)} questions" if given.questions else "Memory"
    show(title, ["process", "MiB at the peak of all", "growth"], rows, notes, given.save)


def sums(count: int) -> list[dict[str, str]]:
    """Questions of many lengths, each sum once."""
    draw = random.Random(0)
    pairs = draw.sample([(a, b) for a in range(2, 30) for b in range(2, 30)], count)
    rows = []
    for a, b in pairs:
        counted = ", ".join(str(1 + i) for i in range(draw.randrange(40)))
        rows.append({"question": f"{counted} What is {a} + {b}? Reply with only the number.".strip(), "answer": str(a + b)})
    return rows


def growth(watch: Watch, kind: str | None, moments: list[float]) -> str:
    """The last quarter against the second."""
    quarter = len(moments) // 4
    if quarter < 2:
        return "-"

    def greatest(begin: float, end: float) -> int:
        return max((sizes.get(kind, 0) if kind else sum(sizes.values()) for at, sizes in watch.seen if begin <= at <= end), default=0)

    before, after = greatest(moments[quarter - 1], moments[2 * quarter - 1]), greatest(moments[-quarter - 1], moments[-1])
    return f"{after / before - 1:+.1%}" if before else "-"


if __name__ == "__main__":
    main()
