"""The main job through the command line, as a user runs it: it rises, it survives a kill, and labels change nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

REPO = Path(__file__).resolve().parents[2]
SMALL = {
    "limit": 3, "steps": 2, "n_votes": 12, "n_train": 8, "val_samples": 4, "max_response_tokens": 8, "lr": 0.01, "dtype": "float32",
}  # fmt: skip
MARK = "STTRL_TEST_RUN"


def start(arguments: list[str], mark: str, log: Path) -> subprocess.Popen[bytes]:
    """The program in a process of its own; ``mark`` is in the environment of everything it starts."""
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, str(REPO / "main.py"), *arguments], cwd=log.parent, env={**os.environ, MARK: mark}, stdout=file, stderr=file
        )


def finish(arguments: list[str], log: Path) -> None:
    """Run the program to its end."""
    assert start(arguments, "", log).wait(timeout=280) == 0, log.read_text()


def marked(mark: str) -> list[str]:
    """Names of living processes that a run started."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.name())
        except psutil.Error:
            continue
    return found


def questions(folder: Path, labels: list[str]) -> Path:
    """A data set in a file."""
    folder.mkdir()
    rows = [
        {"id": f"q{i}", "question": f"What is {a} plus {b} ?", "answer": label}
        for i, (a, b, label) in enumerate(zip("123", "456", labels, strict=True))
    ]
    file = folder / "sums.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def question_lines(run: Path) -> list[bytes]:
    """The journal's lines of finished questions."""
    return [line for line in (run / "journal.jsonl").read_bytes().splitlines() if b'"kind": "question"' in line] if run.exists() else []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_run_goes_on_and_labels_change_nothing(tmp_path: Path, tiny_model: Path) -> None:
    whole, broken = tmp_path / "outputs" / "whole", tmp_path / "outputs" / "broken"
    common = [
        "--model",
        str(tiny_model),
        "--answer_kind",
        "number",
        "--deterministic",
        *(f"--{name}={value}" for name, value in SMALL.items()),
    ]
    right = questions(tmp_path / "right", ["5", "7", "9"])
    finish(["--dataset", str(right), "--run_name", "whole", *common], tmp_path / "whole.log")

    # The same questions with other labels, killed in the middle and taken up again.
    wrong = questions(tmp_path / "wrong", ["9", "5", "7"])
    arguments = ["--dataset", str(wrong), "--run_name", "broken", *common]
    mark = f"killed-{os.getpid()}"
    process = start(arguments, mark, tmp_path / "killed.log")
    while not question_lines(broken):
        assert process.poll() is None, (tmp_path / "killed.log").read_text()
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = question_lines(broken)
    deadline = time.monotonic() + 60
    while marked(mark) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert marked(mark) == []
    assert len(before) < 3, "killed too late to show anything"
    finish(arguments, tmp_path / "resumed.log")

    assert question_lines(broken)[: len(before)] == before
    assert len(question_lines(broken)) == 3
    names = [
        "results.jsonl",
        *(str(f.relative_to(whole)) for f in sorted(whole.rglob("*")) if f.parent.name == "rollouts" or f.suffix == ".safetensors"),
    ]
    assert len(names) > 4, "no adapter was trained"
    for name in names:
        assert (whole / name).read_bytes() == (broken / name).read_bytes(), name
    assert json.loads((whole / "grades.json").read_text()) != json.loads((broken / "grades.json").read_text())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_real_model_rises_on_real_questions(tmp_path: Path) -> None:
    arguments = ["--config", str(REPO / "configs/demo.yaml"), "--ids", "3-plus-4", "7-plus-5", "--run_name", "demo"]
    finish(arguments, tmp_path / "demo.log")
    run = tmp_path / "outputs" / "demo"
    summary = json.loads((run / "summary.json").read_text())
    for row in ("base", "vote_same_tokens", "adapted", "gain"):
        assert {"greedy", "mean@k", "maj@k", "pass@k", "ci95"} <= set(summary[row])
    assert summary["adapted"]["mean@k"] >= summary["base"]["mean@k"] + 0.2
    assert {"won", "lost", "unchanged"} <= set(summary["questions"])
    assert {"total", "start_up", "sample", "update", "judge"} <= set(summary["seconds"])
    assert {"label_accuracy", "reward_accuracy", "majority_ratio", "tokens"} <= set(summary)
    for name in (
        "config.json",
        "environment.json",
        "journal.jsonl",
        "results.jsonl",
        "metrics.jsonl",
        "report.html",
        "rollouts",
        "adapters",
        "logs/attempt_1",
    ):
        assert (run / name).exists(), name
    updates = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    gaps = [row["update/logprob_gap_mean_nats"] for row in updates if "update/logprob_gap_mean_nats" in row]
    assert gaps and max(gaps) < 0.2, "sampler and learner hold the same weights"
