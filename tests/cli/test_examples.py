"""The scripts in examples/ and benchmarks/: what a reader runs after the README."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from sttrl.config import RunConfig, to_plain
from sttrl.ledger.journal import Journal
from sttrl.ledger.records import BallotsRecord, ElectionRecord, QuestionRecord, StepRecord
from sttrl.questions.records import PollRecord
from sttrl.report.runs import report_run

ROOT = Path(__file__).resolve().parents[2]
TTRL = ROOT / "examples" / "ttrl_in_100_lines.py"
GPU_CHECK = ROOT / "benchmarks" / "gpu_check.py"


def loaded(script: Path) -> ModuleType:
    """The script as a module, with everything it imports, but not run."""
    spec = importlib.util.spec_from_file_location(script.stem, script)
    assert spec and spec.loader
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_script(script: Path, *arguments: str, timeout_s: float, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script as a reader would."""
    command = [sys.executable, str(script.relative_to(ROOT)), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, env={**os.environ, **environment})


def test_ttrl_in_100_lines_has_at_most_100() -> None:
    assert len(TTRL.read_text().splitlines()) <= 100


def test_ttrl_in_100_lines_finds_all_it_imports_and_its_questions() -> None:
    from sttrl.data import SourceSpec, questions, read_table

    module = loaded(TTRL)
    assert len(questions(read_table(SourceSpec(dataset=module.DATA)), module.QUESTIONS)) == 3
    assert module.settings(8, 8, "folder", (0,)).adapter.rank == 16


@pytest.mark.slow
@pytest.mark.long
def test_ttrl_in_100_lines_runs() -> None:
    done = run_script(TTRL, "--epochs", "1", "--votes", "8", "--tokens", "8", timeout_s=500)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len([line for line in lines if re.fullmatch(r"epoch 1  \S+ +elected \S+, majority ratio [01]\.\d\d", line)]) == 3
    assert [line for line in lines if line.startswith("accuracy")] == lines[-2:]
    assert all(re.fullmatch(r"accuracy (before|after ) [01]\.\d\d", line) for line in lines[-2:])


def test_gpu_check_says_what_is_missing_without_a_gpu() -> None:
    done = run_script(GPU_CHECK, timeout_s=300, CUDA_VISIBLE_DEVICES="")
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith("gpu_check cannot run here:\n- --device cuda, and no NVIDIA GPU is visible.")
    assert "Traceback" not in done.stderr


def test_gpu_check_says_what_is_missing_without_packages(tmp_path: Path) -> None:
    """A Python without anything installed: -S hides site-packages."""
    command = [sys.executable, "-S", str(GPU_CHECK)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 4
    assert "Not installed: torch" in done.stderr
    assert "Traceback" not in done.stderr


def test_gpu_check_passes_a_wrong_flag_to_the_run() -> None:
    done = run_script(GPU_CHECK, "--device", "cpu", "--stepz", "3", timeout_s=300)
    assert done.returncode == 2
    assert "--stepz" in done.stderr


def test_gpu_check_measures_a_run_folder(tmp_path: Path) -> None:
    folder = a_run_folder(tmp_path)
    check = loaded(GPU_CHECK)
    rows = check.measured(folder, check.MemoryWatch(peak_mib={0: 900}, before_mib={0: 100}), "cpu")
    assert rows | {"machine": "", "versions": ""} == {
        "machine": "",
        "GPU": "-",
        "versions": "",
        "model": "builtin/SmolLM2-135M-Instruct in float32",
        "questions": "1 of arithmetic-demo, 1 done; 1 updates",
        "start-up, s": "20.0",
        "sampled, tokens/s": "5",
        "update, s (first / median)": "0.50 / 0.50",
        "trained, tokens/s": "12",
        "log-prob gap, nats (mean / max / least correlation)": "0.0100 / 0.200 / 0.9990",
        "mean@2 (before / after)": "0.500 / 1.000",
        "seconds per question": "10.0",
        "peak GPU memory, MiB (before the run)": "0: 900 (100)",
    }
    assert check.as_markdown(rows, ["--limit", "1"]).count("\n| ") == 2 + len(rows) - 1


def test_gpu_check_reads_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho '0, NVIDIA H200, 580.1, 143771, 1000'\necho '1, NVIDIA H200, 580.1, 143771, [N/A]'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    check = loaded(GPU_CHECK)
    assert check.gpu_names("cuda") == "0: NVIDIA H200, 143771 MiB, 1: NVIDIA H200, 143771 MiB; driver 580.1"
    with check.MemoryWatch() as watch:
        watch.done.wait(1.2)
    assert check.peak_memory(watch) == "0: 1000 (1000), 1: 0 (0)"


def a_run_folder(parent: Path) -> Path:
    """One question of the demo with one update, as a run would leave it."""
    folder = parent / "run"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(to_plain(RunConfig())))
    (folder / "environment.json").write_text(
        json.dumps(
            {
                "cores": 2,
                "memory_mib": 1,
                "platform": "Linux",
                "python": "3.11",
                "dtype": "float32",
                "packages": {"torch": "2", "vllm": None},
            }
        )
    )
    (folder / "rollouts").mkdir()
    responses = [(1, 0, 4), (2, 0, 6), (1, 0, 4), (3, 1, 10)]
    lines = [json.dumps({"seed": seed, "version": version, "tokens": [0] * n}) for seed, version, n in responses]
    (folder / "rollouts" / "2-plus-5.jsonl").write_text("\n".join(lines) + "\n")
    before, after = ballots("7", "8"), ballots("7", "7")
    update = {"loss": 0.0, "grad_norm": 1.0, "lr": 1e-3, "kl_to_base": 0.0, "logprob_gap_mean": 0.01, "logprob_gap_max": 0.2}
    record = QuestionRecord(
        id="2-plus-5", index=0, attempt=1, status="done", stop="steps", error=None, answer="7", answer_source="adapted",
        polls={"base": poll(before), "adapted": poll(after)}, steps=1, tokens_sampled=10, tokens_trained=6, tokens_evaluated=14,
        seconds={"sample": 4.0, "update": 0.5},
    )  # fmt: skip
    step = StepRecord(
        step=0, version=0, ballots=before, election=election(None), majority=election(None), reward_G=[1.0, 0.0], gate=None,
        tokens_sampled=10, tokens_trained=6, update={**update, "logprob_correlation": 0.999, "tokens": 6, "micro_batches": 1},
        seconds={"update": 0.5},
    )  # fmt: skip
    with Journal(folder) as journal:
        journal.begin("2-plus-5", 0, 1)
        journal.step("2-plus-5", step)
        journal.question(record)
        journal.append("attempt", attempt=1, seconds={"total": 30.0, "start_up": 20.0})
    report_run(folder)
    return folder


def ballots(*answers: str) -> BallotsRecord:
    """One vote for each answer."""
    classes = list(dict.fromkeys(answers))
    return BallotsRecord(
        answer_G=list(answers),
        invalid_G=[None] * len(answers),
        class_G=[classes.index(answer) for answer in answers],
        representative_C=classes,
    )


def election(answer: str | None) -> ElectionRecord:
    """A vote of two samples."""
    return ElectionRecord(answer=answer, winner=None, margin=0.0, share_C=[1.0], tied_C=[], voters=2, samples=2, majority_ratio=0.5)


def poll(of: BallotsRecord) -> PollRecord:
    """Two samples, no greedy response."""
    return PollRecord(
        k=2, greedy=False, temperature=1.0, top_p=1.0, max_tokens=8, version=0, ballots=of, election=election(None),
        confidence=election(None), tokens=10,
    )  # fmt: skip
