"""The whole program: seconds per question with one and with several in flight, start-up, and what is not sampling or training.

    python benchmarks/questions.py [--limit 16] [--in_flight 1 4] [--peer PYTHON SCRIPT] [--save] [any flag of a run]

``--peer`` is an interpreter that has TRL, and a script that takes ``MODEL --questions --steps --group --tokens --lr --dtype`` and
prints the seconds of each question; it gets the settings of our run. Ours and the peer's are taken one after the other on one machine.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from table import show

ROOT = Path(__file__).resolve().parents[1]
STEPS, GROUP, TOKENS = 4, 32, 24
FLAGS = {
    "dataset": "arithmetic-demo", "model": "builtin/SmolLM2-135M-Instruct", "steps": STEPS, "n_votes": GROUP, "n_train": GROUP,
    "max_response_tokens": TOKENS, "val_samples": GROUP, "temp": 1.0, "val_temp": 0.8, "lr": 1e-4, "kl_coef": 0.0, "ties": "first",
}  # fmt: skip


def main() -> None:
    """Run, look into the journals, print."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--limit", type=int, default=16, help="questions of each run")
    parser.add_argument("--in_flight", type=int, nargs="+", default=[1, 4], help="values of --parallel_problems")
    parser.add_argument("--peer", nargs=2, metavar=("PYTHON", "SCRIPT"), help="an interpreter with TRL, and its script")
    parser.add_argument("--peer_questions", type=int, default=2)
    parser.add_argument("--dtype", choices=("auto", "bfloat16", "float32"), default="auto", help="ours and the peer's (default: auto)")
    parser.add_argument("--save", action="store_true", help="also keep the table under benchmarks/results")
    given, others = parser.parse_known_args()
    from sttrl.engine.environment import choose_dtype

    dtype = choose_dtype(given.dtype, "cpu")
    others.append(f"--dtype={dtype}")
    rows: list[list[str]] = []
    first = 0.0
    relaunched = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for count in given.in_flight:
            found = run(Path(folder), count, given.limit, ["--no_vote_same_tokens", *others])
            each = (found["total"] - found["start_up"]) / given.limit
            first = first or each
            relaunched = relaunched or found["start_up"] + each
            rest = (
                f"judge {found['judge'] / found['total']:.1%}, else {found['else'] / found['total']:.1%} of the wall time"
                if count == 1
                else ""
            )
            rows.append([f"{count} in flight", f"{each:.1f}", f"{first / each:.2f}x", f"{found['start_up']:.1f}", rest])
        found = run(Path(folder), 1, given.limit, others)
        each = (found["total"] - found["start_up"]) / given.limit
        voting = "1 in flight, and the vote with the same tokens"
        rows.append([voting, f"{each:.1f}", f"{first / each:.2f}x", f"{found['start_up']:.1f}", ""])
    rows.append(
        ["the program launched for every question", f"{relaunched:.1f}", f"{first / relaunched:.2f}x", "", "start-up and one question"]
    )
    if given.peer:
        each = peer(given.peer, given.peer_questions, dtype)
        rows.append(["TRL, a trainer for every question", f"{each:.1f}", f"{first / each:.2f}x", "", f"{given.peer_questions} questions"])
    notes = (
        f"{given.limit} questions of arithmetic-demo, SmolLM2-135M in {dtype}, LoRA 16, {STEPS} steps of {GROUP} samples of at most "
        f"{TOKENS} tokens, {GROUP} samples before and after; no vote with the same tokens but in its row. Ratio: questions an hour against "
        "one in flight. 'else': neither sampling, updating, saving nor judging."
    )
    show("Questions", ["what", "seconds a question", "ratio", "start-up, s", "rest"], rows, notes, given.save)


def run(folder: Path, in_flight: int, limit: int, others: list[str]) -> dict[str, float]:
    """Seconds of a run by what they went to."""
    flags = [f"--{name}={value}" for name, value in {**FLAGS, "limit": limit, "parallel_problems": in_flight}.items()]
    name = f"run_{len(list(folder.iterdir()))}"
    command = [sys.executable, "main.py", *flags, f"--output_dir={folder}", f"--run_name={name}", *others]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr.strip().splitlines()[-1]}")
    summary: dict[str, Any] = json.loads((folder / name / "summary.json").read_text(encoding="utf-8"))
    seconds: dict[str, float] = dict.fromkeys(("judge", "save"), 0.0) | summary["seconds"]
    spent = sum(value for name, value in seconds.items() if name not in ("total", "start_up"))
    return seconds | {"else": max(0.0, seconds["total"] - seconds["start_up"] - spent)}


def peer(which: list[str], questions: int, dtype: str) -> float:
    """Mean seconds a question of the peer's script."""
    from sttrl.engine.models import model_folder

    model = str(model_folder(str(FLAGS["model"]), False))
    settings = {"questions": questions, "steps": STEPS, "group": GROUP, "tokens": TOKENS, "lr": FLAGS["lr"], "dtype": dtype}
    done = subprocess.run([*which, model, *(f"--{n}={v}" for n, v in settings.items())], capture_output=True, text=True, check=False)
    found = [float(x) for x in re.findall(r"question ([\d.]+)s", done.stdout)]
    if done.returncode or not found:
        sys.exit(f"{which[1]}: {(done.stderr.strip().splitlines() or ['printed no seconds'])[-1]}")
    return sum(found) / len(found)


if __name__ == "__main__":
    main()
