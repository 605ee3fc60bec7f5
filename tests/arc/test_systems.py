"""The published systems: every configuration parses and starts, every script's commands parse, and small runs of each end."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from arc_stand_in import ArcStandIn, arc_attempt
from test_arc_runs import results_of, two_tests
from test_finetune import generated

from sttrl import cli
from sttrl.arc.submission import read_submission
from sttrl.config import RunConfig, to_plain
from sttrl.run.kind import check_kind
from sttrl.trm.data.commands import BUILDERS

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted((ROOT / "configs" / "arc").glob("*.yaml"))
SCRIPTS = sorted((ROOT / "examples" / "arc").rglob("*.sh"))
SUBCOMMANDS: dict[str, Any] = {
    "shrink": cli.ShrinkArguments, "merge": cli.MergeArguments, "pool": cli.PoolArguments, "score": cli.ScoreArguments,
}  # fmt: skip
SCALES = {
    "marc": (128, 16, False), "marc_barc": (128, 16, False), "architects_2024": (64, 16, True), "product_of_experts": (32, 16, True),
    "nvarc": (256, 32, True), "kaggle_2026": (256, 32, True), "architects_2024_llama_rearc_finetune": (256, 24, True),
    "architects_2024_nemo_full_finetune": (256, 24, True), "product_of_experts_finetune": (256, 24, True), "nvarc_finetune": (0, 32, False),
    "snu_base_finetune": (512, 24, True), "snu_base_finetune_final": (512, 24, True), "snu_train_grpo": (512, 24, True),
    "arc_rl": (16, 16, True), "architects_2024_kaggle": (64, 16, True), "product_of_experts_sudoku_finetune": (256, 24, True),
    "product_of_experts_sudoku": (16, 32, False),
}  # fmt: skip
"""Rank, alpha and whether the scale is rank-stabilised, as published; written down here once more."""
SEARCHES = {
    "marc": ("greedy", 0.1, 0, "marc"), "marc_barc": ("greedy", 0.1, 0, "marc"), "architects_2024": ("threshold", 0.1, 8, "mul_all_prob"),
    "product_of_experts": ("threshold", 0.09, 16, "mul_aug_prob"), "nvarc": ("threshold", 0.2, 8, "kgmon"),
    "kaggle_2026": ("threshold", 0.2, 8, "kgmon"), "architects_2024_kaggle": ("threshold", 0.17, 8, "full_probmul_3"),
}  # fmt: skip
TRAININGS = {
    "marc": (250, 2, 2, 5e-5, 0.1), "marc_barc": (250, 2, 2, 5e-5, 0.1), "architects_2024": (48, 4, 1, 1e-4, 0.25),
    "product_of_experts": (64, 1, 1, 1e-4, 0.5), "nvarc": (128, 1, 1, 5e-5, 0.1), "kaggle_2026": (128, 1, 1, 5e-5, 0.1),
    "architects_2024_kaggle": (32, 4, 1, 1e-4, 0.25),
}  # fmt: skip
"""Rows, rows of a step, epochs, rate and warm-up of ttt."""


SOURCES = {
    "marc": "2411.07279", "architects_2024": "da-fr/arc-prize-2024", "product_of_experts": "2505.07859", "nvarc": "1ytic/NVARC",
    "kaggle_2026": "nvarc.yaml", "snu": "jamster0070/ARC-AGI-DL-2025", "arc_rl": "priyankaranke/arc_rl",
}  # fmt: skip


def named(path: Path) -> str:
    return path.stem


def config_of(name: str, *flags: str) -> RunConfig:
    return cli.parse_run(["--config", str(ROOT / "configs" / "arc" / f"{name}.yaml"), *flags])


@pytest.mark.parametrize("file", CONFIGS, ids=named)
def test_a_configuration_holds_what_it_says_and_names_its_source(file: Path) -> None:
    settings = yaml.safe_load(file.read_text())
    config = config_of(file.stem)
    assert {name: to_plain(config)[name] for name in settings} == settings
    assert check_kind(config) == ("arc-rows" if config.method.adaptation_method == "finetune" else "arc")
    chosen = config.update
    assert (chosen.lora_rank, chosen.lora_alpha, chosen.lora_rank_stabilised) == SCALES[file.stem]
    comment = "".join(line for line in file.read_text().splitlines() if line.startswith("#"))
    quantised = file.stem.startswith(("architects", "product", "snu", "arc_rl")) and config.method.adaptation_method != "none"
    assert config.engine.base_dtype == ("nf4" if quantised else "same")
    assert config.update.optimizer == ("adamw_8bit" if quantised and file.stem != "arc_rl" else "adamw")
    assert next(source for system, source in SOURCES.items() if file.stem.startswith(system)) in comment


@pytest.mark.parametrize("name", SEARCHES)
def test_a_system_has_the_published_numbers(name: str) -> None:
    config = config_of(name)
    assert (config.arc.search, config.arc.min_prob, config.arc.score_views, config.arc.selection) == SEARCHES[name]
    ttt, rate = config.ttt, config.optimiser["warmup_ratio"]
    assert (ttt.ttt_rows, ttt.ttt_batch, ttt.ttt_epochs, config.learning_rate, rate) == TRAININGS[name]
    assert config.arc.view_form == "marc" if name.startswith("marc") else config.arc.views == 16
    assert config.ttt.scope == ("dataset" if name.startswith("architects_2024") else "problem")


def test_the_machine_of_a_contest_leaves_a_margin() -> None:
    config = config_of("kaggle_2026")
    assert (config.run.lanes, config.arc.time_limit, config.arc.task_time_limit) == (4, 12 * 3600 - 1200, 1200)
    assert config.arc.search_time_limit == 540
    assert config.run.save_adapters
    nvarc, contest = (to_plain(config_of(name)) for name in ("nvarc", "kaggle_2026"))
    assert {name for name in nvarc if nvarc[name] != contest[name]} == {
        "lanes",
        "time_limit",
        "task_time_limit",
        "search_time_limit",
        "on_bad_row",
        "config",
    }


def test_rewards_of_arc_rl_are_its_own_raised_by_a_constant() -> None:
    parts = config_of("arc_rl").arc_reward
    worth = [0.0, parts.reward_format]
    worth += [parts.reward_format + parts.reward_shape + share * parts.reward_cells for share in (0.0, 0.5)]
    worth.append(parts.reward_format + parts.reward_shape + parts.reward_cells + parts.reward_exact)
    assert [value - 3 for value in worth] == [-3, -2, 0, 0.5, 6]


# The scripts


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that adds its arguments as a line to the file in SAID."""
    file = tmp_path_factory.mktemp("stub") / "python"
    # One write a command, because commands may run at the same time.
    file.write_text('#!/bin/sh\nline=$(printf \'%s\\037\' "$@")\nprintf \'%s\\n\' "$line" >> "$SAID"\n')
    file.chmod(0o755)
    return file


@pytest.mark.parametrize("script", SCRIPTS, ids=named)
def test_the_commands_of_a_script_parse(script: Path, stub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = script.read_text().splitlines()
    assert os.access(script, os.X_OK) and lines[0] == "#!/usr/bin/env bash" and "set -euo pipefail" in lines and len(lines) < 16
    environment = {**os.environ, "PYTHON": str(stub), "SAID": str(tmp_path / "said")}
    environment |= {"OUT": str(tmp_path)} if script.parent.name == "snu" else {}
    subprocess.run(["bash", script.name, "--limit", "2"], cwd=script.parent, env=environment, check=True, timeout=60)
    monkeypatch.chdir(ROOT)
    said = [line.rstrip("\037").split("\037") for line in (tmp_path / "said").read_text().splitlines()]
    runs = [parsed(words) for words in said]
    mine = [run for run in runs if isinstance(run, RunConfig)]
    parts = [run.arc.part for run in mine]
    assert mine and (set(parts) == {None} or sorted(part for part in parts if part) == [(1, 2), (2, 2)])
    assert all(run.data.limit == 2 for run in mine), "flags are passed on to the run"
    assert {words[0] for words in said} == {"main.py"}


def parsed(words: list[str]) -> Any:
    """The arguments of a command, parsed."""
    if words[1:3] == ["trm", "build"]:
        return cli.parse(BUILDERS[words[3]], words[4:])
    if words[1] in SUBCOMMANDS:
        return cli.parse(SUBCOMMANDS[words[1]], words[2:])
    arguments = ["--adaptation_method", *words[1:]] if words[1] == "finetune" else words[1:]
    config = cli.parse_run(arguments)
    check_kind(config)
    return config


def test_every_configuration_has_a_script_and_every_stage_finds_the_one_before() -> None:
    texts = {script: script.read_text() for script in SCRIPTS}
    for file in CONFIGS:
        assert any(f"configs/arc/{file.name} " in text for text in texts.values()), file.name
    snu = "\n".join(text for script, text in texts.items() if script.parent.name == "snu")
    assert sorted(script.stem for script in texts if script.parent.name == "snu") == ["base_finetune", "base_finetune_final", "train_grpo"]
    assert "Llama-3.2-1B-Final-RL-lora" in snu and "Llama-3.2-1B-Final-RL-merged" in snu
    made = {word for text in texts.values() for line in text.splitlines() if "sttrl merge" in line for word in shlex.split(line)}
    used = {line.split(":-")[1].rstrip("}") for text in texts.values() for line in text.splitlines() if line.startswith("MODEL=${MODEL:-")}
    assert {model for model in used if "/models/" in model or "$OUT" in model} <= made


def test_the_readme_of_the_examples_names_every_system() -> None:
    text = (ROOT / "examples" / "README.md").read_text()
    assert all(f"`arc/{script.parent.name}/`" in text for script in SCRIPTS)


# Small runs


SMALL: dict[str, dict[str, Any]] = {
    "none": {"views": 2, "score_views": 2},
    "ttt": {"ttt_rows": 4, "ttt_batch": 2, "lanes": 1},
    "finetune": {"pairs_per_task": (3,), "ttt_batch": 5, "ttt_epochs": 1, "eval_every": 0},
    "sttrl": {"steps": 3, "n_votes": 8, "n_train": 8, "views": 2, "score_views": 2},
    "ttrl": {"train_batch_size": 2, "n_votes": 4, "n_train": 4, "views": 1},
}


def reduced(name: str, folder: Path) -> RunConfig:
    """The configuration with less of everything, and the text of the stand-in. What else it says stays."""
    config = config_of(name)
    method = config.method.adaptation_method
    changes = {**SMALL[method], "dataset": str(two_tests(folder / "data")), "codec": "cells_16", "output_dir": folder, "run_name": "run"}
    if method == "ttt":
        changes |= {"score_views": min(config.arc.score_views, 2), "part": None} | ({} if config.arc.view_form == "marc" else {"views": 2})
    if method == "finetune":
        changes["train_dataset"] = (f"{generated(folder / 're_arc')}*3",)
    return config.changed(**changes)


@pytest.mark.parametrize("name", [file.stem for file in CONFIGS])
def test_a_system_runs_two_small_tasks(name: str, tmp_path: Path) -> None:
    config, engine = reduced(name, tmp_path), ArcStandIn()
    report = arc_attempt(config, engine)
    folder = tmp_path / "run"
    assert [result["status"] for result in results_of(folder)] == ["done", "done"]
    stage = "base" if config.method.adaptation_method == "none" else "adapted"
    assert bool(list((folder / "adapters").glob("*/delta.json"))) == (stage == "adapted")
    if config.method.adaptation_method == "finetune":
        assert not engine.requests and json.loads((folder / "summary.json").read_text())["adapted"]["loss"] > 0
        return
    assert {name: len(tests) for name, tests in read_submission(folder / "submission.json").items()} == {"one": 1, "two": 2}
    assert "kaggle" in report.table
    assert any(result["polls"][stage]["attempts"] != [[]] for result in results_of(folder))


def test_the_halves_of_kaggle_make_one_submission(tmp_path: Path) -> None:
    config, engines = reduced("architects_2024_kaggle", tmp_path), (ArcStandIn(), ArcStandIn())
    halves = [config.changed(part=(number, 2), run_name=f"half_{number}") for number in (1, 2)]
    for half, engine in zip(halves, engines, strict=True):
        arc_attempt(half, engine)
    done = [[result["id"] for result in results_of(tmp_path / f"half_{number}")] for number in (1, 2)]
    assert [len(names) for names in done] == [1, 1] and sorted(sum(done, [])) == ["one", "two"]
    assert all((tmp_path / f"half_{number}" / "adapters" / "all" / "delta.json").exists() for number in (1, 2)), "an adapter each"
    runs = [str(tmp_path / f"half_{number}") for number in (1, 2)]
    assert cli.main(["pool", *runs, "--selection", "full_probmul_3", "--out", str(tmp_path / "both")]) == 0
    both = read_submission(tmp_path / "both" / "submission.json")
    for run, [name] in zip(runs, done, strict=True):
        assert both[name] == read_submission(Path(run) / "submission.json")[name]
        assert both[name][0][0] != ((0,),)


def program(*words: object) -> str:
    """The output of a command."""
    done = subprocess.run([sys.executable, str(ROOT / "main.py"), *map(str, words)], capture_output=True, text=True, cwd=ROOT, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_model_is_cut_fine_tuned_merged_and_run(tiny_model: Path, tmp_path: Path) -> None:
    """The chain of Product of Experts, with the true engine: two tasks, a random model of two layers."""
    base, small, merged = tmp_path / "base", tmp_path / "small", tmp_path / "merged"
    base.mkdir()
    for file in tiny_model.iterdir():
        (base / file.name).write_bytes(file.read_bytes())
    settings = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**settings, "max_position_embeddings": 4096}))
    program("shrink", base, "--codec", "cells", "--untie", "--out", small)
    train = f"{generated(tmp_path / 're_arc')}*2"
    few = ("--lora_rank", 4, "--dataset", "arc-demo", "--ids", "6150a2bd", "66e6c45b", "--output_dir", tmp_path)
    stage = ("--config", ROOT / "configs" / "arc" / "product_of_experts_finetune.yaml", "--model", small, "--run_name", "tuned")
    program("finetune", *stage, *few, "--train_dataset", train, "--pairs_per_task", 3, "--ttt_batch", 2, "--eval_every", 0)
    program("merge", tmp_path / "tuned", "--out", merged)
    assert "already merged" in program("merge", tmp_path / "tuned", "--out", merged)
    stage = ("--config", ROOT / "configs" / "arc" / "product_of_experts.yaml", "--model", merged, "--run_name", "run")
    said = program(*stage, *few, "--ttt_rows", 2, "--views", 2, "--score_views", 2, "--search_requests", 2)
    assert "kaggle" in said and [result["status"] for result in results_of(tmp_path / "run")] == ["done", "done"]
    assert len(read_submission(tmp_path / "run" / "submission.json")) == 6
