"""The published runs in configs/ and the scripts in examples/: they parse, hold the published values, and can be prepared."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from sttrl.cli import configs_of, parse_run
from sttrl.config import PRESETS, RunConfig, to_plain
from sttrl.data import questions, read_table
from sttrl.ledger.folder import source_of
from sttrl.questions import build_problems
from sttrl.sweep.axes import read_sweep

ROOT = Path(__file__).resolve().parents[2]
PAPER = sorted((ROOT / "configs" / "paper").glob("*.yaml"))
ARC = sorted((ROOT / "configs" / "arc").glob("*.yaml"))
DEMO = ROOT / "configs" / "demo.yaml"
DEMO_FINETUNE = ROOT / "configs" / "demo_finetune.yaml"
TRM = sorted((ROOT / "configs" / "trm").rglob("*.yaml"))
"""Those of the recursive model are tested in tests/trm/test_trm_config.py."""
SWEEPS = sorted((ROOT / "configs" / "sweeps").glob("*.yaml"))
SCRIPTS = sorted({*(ROOT / "examples").rglob("*.sh")} - {*(ROOT / "examples" / "arc").rglob("*.sh")})
"""Those of ARC systems are tested in tests/arc/test_systems.py."""
BUILTIN = "builtin/SmolLM2-135M-Instruct"

# What was published, written down here once more, apart from the files.
DATASETS = {"aime": "AIME-TTT", "amc": "AMC-TTT", "math": "MATH-TTT", "gsm8k": "GSM8K-TTT", "gpqa": "GPQA-TTT"}
MODELS = {
    "Math-1.5B": "Qwen/Qwen2.5-Math-1.5B",
    "Math-7B": "Qwen/Qwen2.5-Math-7B",
    "Qwen2.5-7B": "Qwen/Qwen2.5-7B",
    "Llama-3.1-8B": "meta-llama/Llama-3.1-8B-Instruct",
}
METHODS = ("sttrl", "ttft", "slot", "memo")
TTRL_PUBLISHED = {
    "Math-1.5B": {"aime": "7.7 -> 15.8", "amc": "28.6 -> 48.9", "math": "32.7 -> 73.0", "gpqa": "24.9 -> 26.1"},
    "Math-7B": {"aime": "12.9 -> 40.2", "amc": "35.6 -> 68.1", "math": "46.7 -> 83.4", "gpqa": "29.1 -> 27.7"},
    "Qwen2.5-7B": {"aime": "7.9 -> 23.3", "amc": "34.8 -> 56.6", "math": "60.5 -> 80.5", "gpqa": "31.8 -> 33.6"},
    "Llama-3.1-8B": {"aime": "4.6 -> 10.0", "amc": "23.3 -> 32.3", "math": "48.6 -> 63.7", "gpqa": "30.8 -> 34.1"},
}
TTRL_EVERYWHERE: dict[str, Any] = {
    "adaptation_method": "ttrl", "voting_function": "majority", "reward": "agreement", "ties": "first", "n_votes": 64, "n_train": 32,
    "top_p": 1.0, "max_response_tokens": 3072, "lora_rank": 0, "lr": 5e-7, "lr_schedule": "cosine", "warmup_ratio": 0.03,
    "weight_decay": 0.01, "adv_estimator": "grpo", "policy_loss": "vanilla", "loss_aggregation": "token-mean", "clip_low": 0.2,
    "clip_high": 0.2, "kl_coef": 0.001, "ppo_epochs": 1, "val_samples": 16, "val_temp": 0.6, "val_top_p": 0.95,
}  # fmt: skip
TTRL_TEMP = {"Math-1.5B": 1.0, "Math-7B": 1.0, "Qwen2.5-7B": 0.6, "Llama-3.1-8B": 0.6}
TTRL_BATCHES = {"aime": (8, 80), "amc": (8, 30), "math": (32, 10), "gsm8k": (32, 10), "gpqa": (32, 10)}
PROMPT_TOKENS = {"aime": 512, "amc": 1024, "math": 1024, "gsm8k": 1024, "gpqa": 1024}
SLOT_PUBLISHED = {
    ("gsm8k", "Qwen2.5-7B"): ("57.5 -> 66.2", 5, 0.1),
    ("aime", "Math-7B"): ("13.3 -> 20.0", 5, 0.1),
    ("math", "Math-7B"): ("57.6 -> 58.8", 5, 0.001),
    ("gpqa", "Math-7B"): ("25.8 -> 32.8", 3, 0.1),
}
"""Accuracy, steps and rate of SLOT's README (GSM8K) and of the logs it released (the others)."""
CONTEXT = {"Math-1.5B": 4096, "Math-7B": 4096, "Qwen2.5-7B": 131072, "Llama-3.1-8B": 131072}

SCRL_PUBLISHED = {("Math-7B", "amc"): "34.0 -> 66.9", ("Math-7B", "math"): "46.5 -> 85.6"}
"""SCRL's mean@16 with 32 votes."""
SCOPE_PUBLISHED = {("Math-1.5B", "aime"): "22.50", ("Math-1.5B", "amc"): "51.20", ("Math-1.5B", "math"): "76.85"}
"""SCOPE's mean@16."""
SUCCESSOR_PROMPT_TOKENS = {
    "scrl": {"aime": 512, "amc": 1024, "math": 1024}, "ddrl": {"aime": 512, "amc": 512, "math": 512},
    "scope": {"aime": 512, "amc": 1024, "math": 1024},
}  # fmt: skip
"""SCRL's are TTRL's, the others those of their scripts."""
SUCCESSOR_DIFFERS: dict[str, dict[str, Any]] = {
    "scrl": {"reward": "scrl", "n_votes": 32, "n_train": 16}, "ddrl": {"adv_estimator": "dae"},
    "scope": {"reward": "scope", "voting_function": "confidence", "n_train": 64},
}  # fmt: skip
"""What differs from TTRL's values everywhere."""

TTRL_RUNS = [(model, dataset) for model in MODELS for dataset in DATASETS]
SUCCESSOR_RUNS = [(m, model, d) for m in ("scrl", "ddrl", "scope") for model in ("Math-1.5B", "Math-7B") for d in ("aime", "amc", "math")]


def paper_file(model: str, dataset: str, method: str) -> Path:
    """The file of a published run, by the rule of its name."""
    return ROOT / "configs" / "paper" / f"{dataset}_{MODELS[model].split('/')[1].lower()}_{method}.yaml"


def comment_of(file: Path) -> str:
    """The comment a file begins with."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return "\n".join(lines[: next(number for number, line in enumerate(lines) if not line.startswith("#"))])


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


# The configurations


@pytest.mark.parametrize("file", [*PAPER, DEMO], ids=named)
def test_a_configuration_holds_what_it_says(file: Path) -> None:
    settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    plain = to_plain(parse_run(["--config", str(file)]))
    assert {name: plain[name] for name in settings} == settings


@pytest.mark.parametrize("file", SWEEPS, ids=named)
def test_every_run_of_a_sweep_has_a_configuration(file: Path) -> None:
    sweep = read_sweep(file)
    configs = configs_of(sweep, ["--output_dir", "elsewhere"])
    assert [(config.run.run_name, config.run.output_dir) for config in configs] == [
        (run.name, Path("elsewhere") / sweep.name) for run in sweep.runs
    ]
    assert len({json.dumps(to_plain(config)) for config in configs}) == len(configs) > 1


def test_the_sweep_of_methods_and_votes_has_all_of_them() -> None:
    configs = configs_of(read_sweep(ROOT / "configs" / "sweeps" / "methods_x_votes.yaml"), [])
    rows = {(c.method.adaptation_method, c.vote.voting_function) for c in configs if c.method.adaptation_method in ("sttrl", "ttft")}
    assert rows == {(method, vote) for method in ("sttrl", "ttft") for vote in ("majority", "energy", "confidence")}
    assert {c.method.adaptation_method for c in configs} == {"sttrl", "ttrl", "ttft", "slot", "memo", "none"}
    assert {c.memo.memo_form for c in configs if c.method.adaptation_method == "memo"} == {"answer", "token"}
    assert {c.reinforcement.reward for c in configs if c.method.adaptation_method == "sttrl"} == {"agreement", "random"}
    assert {c.learning_rate for c in configs if c.method.adaptation_method in ("sttrl", "ttrl")} == {1e-3}
    assert {(c.run.seed, len([d for d in configs if d.run.seed == c.run.seed])) for c in configs} == {(0, 13), (1, 13), (2, 13)}


def test_the_sweep_of_label_free_methods_gives_all_the_same_budget() -> None:
    """Only the ideas differ: every row has the samples, steps, rate and evaluation of the others. A published method is one preset."""
    file = ROOT / "configs" / "sweeps" / "label_free.yaml"
    configs = configs_of(read_sweep(file), ["--dataset", "GSM8K-TTT", "--limit", "40", "--max_response_tokens", "96"])
    by_seed = [[c for c in configs if c.run.seed == seed] for seed in (0, 1, 2)]
    assert {len(each) for each in by_seed} == {len(configs) // 3}
    adapting = [c for c in configs if c.method.adaptation_method != "none"]
    same = (
        "n_votes",
        "n_train",
        "temp",
        "top_p",
        "ties",
        "kl_coef",
        "lora_rank",
        "val_samples",
        "val_temp",
        "max_response_tokens",
        "limit",
    )
    for name in same:
        assert len({c.setting(name) for c in adapting}) == 1, name
    assert {c.optimiser["schedule"] for c in adapting} == {"constant"}
    together = [c for c in adapting if c.trains_together]
    assert {(c.learning_rate, c.ttrl.epochs) for c in together} == {(1e-4, 4)}, "one policy for all questions"
    assert {(c.learning_rate, c.method_steps) for c in adapting if c not in together} == {(1e-3, 2)}
    assert {c.preset for c in configs} == {None, *PRESETS} - {"slot"}
    assert {c.reinforcement.reward for c in adapting} == {"agreement", "scrl", "scope", "restrain", "random"}
    ours = {(c.vote.voting_function, c.vote.votes_until) for c in adapting if c.preset is None}
    assert ours == {("majority", None), ("confidence", None), ("majority", 0.75)}


def test_every_configuration_is_known_to_this_test() -> None:
    expected = {paper_file(*run, "ttrl") for run in TTRL_RUNS} | {paper_file(model, dataset, "slot") for dataset, model in SLOT_PUBLISHED}
    expected |= {paper_file(model, dataset, method) for method, model, dataset in SUCCESSOR_RUNS}
    assert set(PAPER) == expected
    assert {*PAPER, *ARC, *SWEEPS, *TRM, DEMO, DEMO_FINETUNE} == set((ROOT / "configs").rglob("*.yaml"))


@pytest.mark.parametrize(("model", "dataset"), TTRL_RUNS)
def test_ttrl_has_the_values_of_its_scripts(model: str, dataset: str) -> None:
    file = paper_file(model, dataset, "ttrl")
    config = parse_run(["--config", str(file)])
    assert {name: config.setting(name) for name in TTRL_EVERYWHERE} == TTRL_EVERYWHERE
    assert (config.data.dataset, config.engine.model, config.sampling.temp) == (DATASETS[dataset], MODELS[model], TTRL_TEMP[model])
    assert (config.reinforcement.mini_batches, config.training.eval_every) == (config.ttrl.train_batch_size, 2), (
        "an optimiser step a question"
    )
    assert (config.ttrl.train_batch_size, config.ttrl.epochs) == (config.ttrl_batch_size, config.ttrl_epochs) == TTRL_BATCHES[dataset]
    assert config.data.max_prompt_tokens == PROMPT_TOKENS[dataset]
    comment = comment_of(file)
    assert "arXiv 2504.16084" in comment and TTRL_PUBLISHED[model].get(dataset, "no published number") in comment
    assert ("Derived: batch and epochs" in comment or "batch and epochs are those of MATH" in comment) == (dataset in ("gsm8k", "gpqa"))


@pytest.mark.parametrize(("method", "model", "dataset"), SUCCESSOR_RUNS)
def test_what_came_after_ttrl_has_the_values_of_their_papers_and_scripts(method: str, model: str, dataset: str) -> None:
    file = paper_file(model, dataset, method)
    config, comment = parse_run(["--config", str(file)]), comment_of(file)
    expected = {**TTRL_EVERYWHERE, **SUCCESSOR_DIFFERS[method]}
    assert {name: config.setting(name) for name in expected} == expected
    assert (config.data.dataset, config.engine.model, config.sampling.temp) == (DATASETS[dataset], MODELS[model], 1.0)
    batches = {"aime": (8, 200), "amc": (8, 60), "math": (32, 30)} if method == "scope" else TTRL_BATCHES
    assert (config.ttrl.train_batch_size, config.ttrl.epochs) == batches[dataset]
    assert config.reinforcement.mini_batches == config.ttrl.train_batch_size
    assert config.data.max_prompt_tokens == SUCCESSOR_PROMPT_TOKENS[method][dataset]
    assert (config.reinforcement.train_samples, config.training.eval_every) == {
        "scrl": ("first", 20), "ddrl": ("balanced", 2), "scope": ("first", 1),
    }[method]  # fmt: skip
    scrl = config.scrl
    assert (scrl.scrl_positive_share, scrl.scrl_margin, scrl.scrl_negative_share, scrl.scrl_entropy_weight) == (0.375, 0.125, 0.125, 0.1)
    assert (config.data.on_bad_row == "skip") == (method == "ddrl" and dataset == "math"), "prompts over 512 tokens"
    assert {"scrl": "arXiv 2603.19880", "ddrl": "arXiv 2604.21327", "scope": "arXiv 2512.15146"}[method] in comment
    if method == "scrl":
        assert SCRL_PUBLISHED.get((model, dataset), "no published number") in comment
        assert "Derived: this model" in comment or model == "Math-7B"
    elif method == "scope":
        assert SCOPE_PUBLISHED.get((model, dataset), "no published number") in comment
        assert "Derived: this model" in comment or model == "Math-1.5B"
    else:
        assert ("no published number" if model == "Math-7B" else "could not be read") in comment
        assert "Derived: this model" in comment or model == "Math-1.5B"


@pytest.mark.parametrize(("dataset", "model"), SLOT_PUBLISHED)
def test_slot_has_the_published_values(dataset: str, model: str) -> None:
    number, steps, lr = SLOT_PUBLISHED[dataset, model]
    file = paper_file(model, dataset, "slot")
    config = parse_run(["--config", str(file)])
    assert (config.data.dataset, config.engine.model, config.method.adaptation_method) == (DATASETS[dataset], MODELS[model], "slot")
    assert (config.method.steps, config.update.lr, config.update.weight_decay, config.update.lr_schedule) == (steps, lr, 1e-8, "constant")
    assert "arXiv 2505.12392" in comment_of(file) and number in comment_of(file)


@pytest.mark.parametrize("file", PAPER, ids=named)
def test_prompt_and_response_fit_the_model(file: Path) -> None:
    config = parse_run(["--config", str(file)])
    folder = next(folder for folder, model in MODELS.items() if model == config.engine.model)
    assert (config.data.max_prompt_tokens or 0) + config.sampling.max_response_tokens <= CONTEXT[folder]


# The scripts


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that only says what it was asked to do, and where."""
    return make_stub(tmp_path_factory.mktemp("stub") / "python")


def make_stub(file: Path) -> Path:
    """Write such a Python."""
    file.parent.mkdir(parents=True, exist_ok=True)
    program = "import json, os, sys; print(json.dumps({'as': sys.argv[1], 'argv': sys.argv[2:], 'cwd': os.getcwd()}))"
    file.write_text(f'#!/bin/sh\nexec "{sys.executable}" -IS -c "{program}" "$0" "$@"\n')
    file.chmod(0o755)
    return file


def said_by(script: Path, *flags: str, cwd: Path, **environment: str) -> dict[str, Any]:
    """What a script asks Python to do."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHON"}
    command = ["bash", str(script), *flags]
    done = subprocess.run(command, cwd=cwd, env=clean | environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def config_of_script(script: Path, stub: Path, *flags: str) -> RunConfig:
    """The configuration that a script runs, started from its own folder."""
    said = said_by(Path(script.name), *flags, cwd=script.parent, PYTHON=str(stub))
    assert (said["argv"][0], said["cwd"]) == ("main.py", str(ROOT))
    return parse_run(said["argv"][1:])


def test_there_is_a_script_for_every_model_method_and_data_set() -> None:
    expected = {Path("ttrl") / model / f"{dataset}.sh" for model, dataset in TTRL_RUNS}
    expected |= {Path(method) / model / f"{dataset}.sh" for method, model, dataset in SUCCESSOR_RUNS}
    expected |= {Path(method) / f"{dataset}.sh" for method in METHODS for dataset in DATASETS}
    assert {script.relative_to(ROOT / "examples") for script in SCRIPTS} == expected


def test_the_readme_of_the_examples_lists_them() -> None:
    text = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `(\S+)/<data set>\.sh` \|", text, re.MULTILINE))
    assert listed == {str(script.parent.relative_to(ROOT / "examples")) for script in SCRIPTS}
    assert all(f"`{dataset}`" in text for dataset in DATASETS) and all(model in text for model in MODELS.values())
    assert "ttrl_in_100_lines.py" in text


@pytest.mark.parametrize("script", SCRIPTS, ids=named)
def test_a_script_is_short_executable_and_careful(script: Path) -> None:
    lines = script.read_text(encoding="utf-8").splitlines()
    assert os.access(script, os.X_OK) and lines[0] == "#!/usr/bin/env bash" and len(lines) < 10
    assert "set -euo pipefail" in lines


@pytest.mark.parametrize("script", SCRIPTS, ids=named)
def test_a_script_runs_what_its_name_says(script: Path, stub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    method, *model = script.parent.relative_to(ROOT / "examples").parts
    config = config_of_script(script, stub)
    assert (config.method.adaptation_method, config.data.dataset) == ("ttrl" if model else method, DATASETS[script.stem])
    assert config.engine.model == (MODELS[model[0]] if model else "Qwen/Qwen2.5-Math-1.5B")
    assert config.config == (paper_file(model[0], script.stem, method).relative_to(ROOT) if model else None)
    assert config.preset == (method if model else None)
    assert method != "ttft" or config.learning_rate == 1e-4
    small = config_of_script(script, stub, "--model", BUILTIN, "--limit", "1", "--prompt_format", "two words: {question}")
    assert (small.engine.model, small.data.limit, small.questions.prompt_format) == (BUILTIN, 1, "two words: {question}")


def test_a_script_takes_the_python_it_should(tmp_path: Path) -> None:
    """PYTHON first, then .venv, then the path."""
    script = tmp_path / "checkout of mine" / "examples" / "ttrl" / "Math-1.5B" / "aime.sh"
    script.parent.mkdir(parents=True)
    shutil.copy(ROOT / "examples" / "ttrl" / "Math-1.5B" / "aime.sh", script)
    on_path, in_venv, chosen = (make_stub(tmp_path / place / "python") for place in ("bin", "checkout of mine/.venv/bin", "other one"))
    path = f"{on_path.parent}{os.pathsep}{os.environ['PATH']}"
    assert Path(said_by(script, cwd=tmp_path, PATH=path, PYTHON=str(chosen))["as"]) == chosen
    said = said_by(script, cwd=tmp_path, PATH=path)
    assert Path(said["cwd"]) / said["as"] == in_venv
    in_venv.unlink()
    assert Path(said_by(script, cwd=tmp_path, PATH=path)["as"]) == on_path


# Data, prompts and lengths


@pytest.fixture(scope="session")
def benchmark_data() -> None:
    """The named data sets, where somebody says that they are here."""
    if not os.environ.get("STTRL_DATA"):
        pytest.skip("STTRL_DATA is not set: the named data sets are not here")


@pytest.fixture(scope="session")
def builtin_tokenizer(benchmark_data: None) -> tuple[Any, int | None]:
    """The builtin model's tokenizer and the longest sequence it was made for."""
    from sttrl.engine.models import context_length, load_tokenizer, model_folder

    folder = model_folder(BUILTIN)
    return load_tokenizer(folder), context_length(folder)


@pytest.fixture
def prepared(builtin_tokenizer: tuple[Any, int | None]) -> Callable[[RunConfig], None]:
    """Check that a run's data, prompts and lengths can be prepared."""

    def prepare(config: RunConfig) -> None:
        table = read_table(source_of(to_plain(config)))
        assert len(table.rows) == table.dataset.rows
        limit = config.data.max_prompt_tokens or table.dataset.max_prompt_tokens
        chosen = questions(table, config.data.ids or None, config.data.limit)
        problems, skipped = build_problems(
            chosen,
            builtin_tokenizer[0],
            instruction=table.dataset.instruction,
            prompt_format=config.questions.prompt_format,
            max_prompt_tokens=limit,
        )
        assert len(problems) == config.data.limit == 1 and not skipped
        needed = len(problems[0].prompt_T) + config.sampling.max_response_tokens
        key = next(key for key, name in DATASETS.items() if name == config.data.dataset)
        assert limit == SUCCESSOR_PROMPT_TOKENS.get(config.preset or "", PROMPT_TOKENS)[key]
        assert builtin_tokenizer[1] is not None and needed <= min(4096, builtin_tokenizer[1])

    return prepare


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=named)
def test_a_script_can_be_prepared_with_the_builtin_model(
    script: Path, stub: Path, prepared: Callable[[RunConfig], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    prepared(config_of_script(script, stub, "--model", BUILTIN, "--limit", "1"))


@pytest.mark.slow
@pytest.mark.parametrize("file", PAPER, ids=named)
def test_a_published_run_can_be_prepared_with_the_builtin_model(file: Path, prepared: Callable[[RunConfig], None]) -> None:
    prepared(parse_run(["--config", str(file), "--model", BUILTIN, "--limit", "1"]))
