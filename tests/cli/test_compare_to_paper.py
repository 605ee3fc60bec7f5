"""The subcommand compare_to_paper: a run beside published numbers, and the settings in which they differ."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from saying import Said, complaint
from test_report_command import fabricated

from sttrl.cli import main, parse_run
from sttrl.config import RunConfig, field_names, fields_of, to_plain
from sttrl.config.packaged import CONFIGS
from sttrl.config.run_config import GROUP_OF
from sttrl.data.registry import DATASETS
from sttrl.ledger.files import write_json
from sttrl.ledger.folder import ENVIRONMENT, read_config
from sttrl.report.deviations import BY_GROUP, EFFECTS, METHOD_SETTINGS, NO_CHANGE, deviations, effect_of, run_settings
from sttrl.report.published import NUMBERS, nothing_published, published_numbers, settings_of
from sttrl.report.statistics import interval_of_mean

AIME = "paper/aime_qwen2.5-math-1.5b_ttrl"


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A folder with an AIME of eight questions."""
    folder = tmp_path / "data"
    folder.mkdir()
    lines = [{"id": f"q{n}", "question": f"How much is {n} and 40?", "answer": str(40 + n)} for n in range(8)]
    (folder / "AIME-TTT.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def published_run(folder: Path, data_dir: Path, dtype: str = "bfloat16", questions: int = 8, **changed: Any) -> Path:
    """A run folder of TTRL on AIME as published, but for some settings: half of the base's samples are right, 7 of 8 adapted."""
    plain = {name: value for name, value in vars_of(AIME).items() if name != "preset"}
    settings = {**plain, "limit": None, "val_samples": 16, "data_dir": data_dir, **changed}
    run = fabricated(folder, questions=questions, finished=questions, rows_of="AIME-TTT", **settings)
    write_json(run / ENVIRONMENT, {"dtype": dtype})
    return run


def vars_of(name: str) -> dict[str, Any]:
    """The flat settings of a file of settings."""
    config = parse_run(["--config", name])
    return {setting: config.setting(setting) for setting in field_names() if setting not in ("config", "run_name")}


def said(capsys: Said, *arguments: object) -> str:
    assert main(["compare_to_paper", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def test_ours_beside_theirs(tmp_path: Path, data_dir: Path, capsys: Said) -> None:
    lines = said(capsys, published_run(tmp_path / "run", data_dir)).splitlines()
    assert lines[:2] == [
        str(tmp_path / "run"),
        "TTRL on AIME-TTT with Qwen/Qwen2.5-Math-1.5B: 8 of 30 questions are in our means.",
    ]
    ends = interval_of_mean([0.5] * 8)
    assert ends is not None
    base = next(line for line in lines if "TTRL (2504.16084)" in line)
    assert base.split()[3:] == ["base", "7.7", "50.0", f"[{100 * ends.low:.1f},", f"{100 * ends.high:.1f}]", "no"]
    adapted = next(line for line in lines if "adapted" in line and "15.8" in line)
    assert "87.5 [" in adapted and adapted.endswith(" no")
    assert any("SCOPE (2512.15146)" in line and "16.5" in line for line in lines), "another paper's run of the same method"
    assert "No setting differs from configs/paper/aime_qwen2.5-math-1.5b_ttrl.yaml, behind the number of TTRL and SCOPE:" in " ".join(lines)
    assert "Source: TTRL, arXiv 2504.16084, main results; read in the paper." in lines


def test_a_published_number_in_the_interval(tmp_path: Path, data_dir: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    run, number = published_run(tmp_path / "run", data_dir), published_numbers()[0]
    near = [type(number)(**{**vars(number), "base": 50.0, "adapted": 86.0})]
    monkeypatch.setattr("sttrl.report.published.published_numbers", lambda: tuple(near))
    text = said(capsys, run)
    assert [line.split()[-1] for line in text.splitlines() if "50.0" in line or "86.0" in line] == ["yes", "yes"]


def test_every_difference_is_named_with_what_it_changes(tmp_path: Path, data_dir: Path, capsys: Said) -> None:
    run = published_run(
        tmp_path / "run", data_dir, dtype="float32", questions=4, limit=4, n_votes=16, n_train=8, max_response_tokens=512, lora_rank=16,
        lr=None, epochs=2, model="/models/Qwen2.5-Math-1.5B", seed=3, parallel_problems=4, run_name="mine",
    )  # fmt: skip
    text = " ".join(said(capsys, run).split())
    for part in (
        "--n_votes 16, published 64: with fewer votes a wrong answer is elected more often, with more votes less often",
        "--limit 4, published unset: the mean is over other questions",
        "--max_response_tokens 512, published 3072: longer responses are cut",
        "--model /models/Qwen2.5-Math-1.5B, published Qwen/Qwen2.5-Math-1.5B: taken for the same weights",
        "--dtype float32, published bfloat16: sampler and learner round differently",
        "--lora_rank 16, published 0: an adapter is trained",
        "--lr 0.001, published 5e-07: larger or smaller",
        "--epochs 2, published 80: another number of optimiser steps",
        "--n_train 8, published 32:",
        "4 of 30 questions are in our means",
    ):
        assert part in text, part
    assert not [name for name in ("--seed", "--parallel_problems", "--run_name", "--data_dir", "--steps") if f"{name} " in text]


def test_a_setting_unset_and_set_to_what_it_stands_for_are_the_same() -> None:
    published = RunConfig.of(**{**vars_of(AIME), "preset": None})
    spelled = published.changed(epochs=None, train_batch_size=None, lr=None, mini_batches=None, max_prompt_tokens=None)
    assert deviations(spelled, published) == []
    assert [each.name for each in deviations(spelled.changed(weight_decay=0.5), published)] == ["weight_decay"]


def test_a_run_that_nobody_published_has_one_line(tmp_path: Path, capsys: Said) -> None:
    run = fabricated(tmp_path / "run")
    lines = said(capsys, run).splitlines()
    assert lines[0] == str(run) and " ".join(lines[1:]) == nothing_published(read_config(run))
    assert " ".join(lines[1:]).startswith(
        "Nothing is published for sttrl on arithmetic-demo with builtin/SmolLM2-135M-Instruct and these settings. Nearest: "
    )


@pytest.mark.parametrize(
    ("changed", "nearest", "differs"),
    [
        ({"model": "Qwen/Qwen3-8B"}, "TTRL on AIME-TTT", "--model Qwen/Qwen3-8B (there Qwen/Qwen2.5-Math-1.5B)"),
        ({"dataset": "GSM8K-TTT"}, "with Qwen/Qwen2.5-Math-1.5B", "--dataset GSM8K-TTT (there AIME-TTT)"),
        ({"reward": "random"}, "TTRL on AIME-TTT with Qwen/Qwen2.5-Math-1.5B", "--reward random (there agreement)"),
        ({"adaptation_method": "sttrl"}, "TTRL on AIME-TTT with Qwen/Qwen2.5-Math-1.5B", "--adaptation_method sttrl (there ttrl)"),
    ],
)
def test_the_nearest_published_number(changed: dict[str, Any], nearest: str, differs: str) -> None:
    text = nothing_published({**to_plain(parse_run(["--config", AIME])), **changed})
    assert nearest in text and text.endswith(f"it differs in {differs}.")


def test_a_number_may_differ_from_its_file_in_a_few_settings() -> None:
    """SCRL's authors ran TTRL with 32 votes: the file is TTRL's, and what differed in their run is known."""
    number = next(each for each in published_numbers() if each.paper == "SCRL" and each.method == "TTRL")
    settings = settings_of(number)
    assert settings is not None and (settings.sampling.n_votes, settings.sampling.n_train) == (32, 16)


def test_a_config_json_is_read_back() -> None:
    config = RunConfig.of(preset="ttrl", ids=("a", "b"), adam_betas=(0.5, 0.75), track=("tensorboard",), output_dir=Path("there"))
    assert to_plain(run_settings(json.loads(json.dumps(to_plain(config))))) == {**to_plain(config), "preset": None}


def test_the_published_numbers_are_whole() -> None:
    content = yaml.safe_load(NUMBERS.read_text())
    assert set(content) == {"papers", "results"}
    seen = [(n.paper, n.place, n.method, n.model, n.dataset) for n in published_numbers()]
    assert len(set(seen)) == len(seen) == len(content["results"])
    for number in published_numbers():
        assert number.dataset in DATASETS and 0 < number.adapted < 100 and (number.base is None or 0 < number.base < 100)
        settings = settings_of(number)
        if settings is not None:
            assert (settings.engine.model, settings.data.dataset) == (number.model, number.dataset)
            assert number.method.lower() in str(number.config)


@pytest.mark.parametrize(("method", "comment"), [("ttrl", "mean@16"), ("slot", "accuracy"), ("scrl", "mean@16")])
def test_the_files_of_settings_name_the_same_numbers(method: str, comment: str) -> None:
    own = [n for n in published_numbers() if n.paper.lower() == method == n.method.lower()]
    assert own
    for number in own:
        assert f"published {comment} {number.base} -> {number.adapted}" in (CONFIGS / f"{number.config}.yaml").read_text()


def test_every_setting_is_compared_or_has_a_reason_not_to_be() -> None:
    assert set(EFFECTS) - {"dtype"} <= set(field_names()) - NO_CHANGE and set(METHOD_SETTINGS) <= set(field_names())
    assert set(BY_GROUP) <= {GROUP_OF[name] for name in field_names()}
    unexplained = {name for name in field_names() if name not in NO_CHANGE and effect_of(name) == "the run differs"}
    other_kinds = {group for group, _ in fields_of(RunConfig) if group.startswith("arc")} | {"ttt", "stored"}
    assert {name for name in unexplained if GROUP_OF[name] not in other_kinds} == {"adaptation_method"}, "its difference is another method"


def test_what_cannot_be_compared_is_one_line(tmp_path: Path, capsys: Said) -> None:
    assert "compare_to_paper needs a run folder" in complaint(capsys, "compare_to_paper", code=2)
    assert "is not a run folder" in complaint(capsys, "compare_to_paper", str(tmp_path), code=2)


def test_without_labels_theirs_stand_alone(tmp_path: Path, data_dir: Path, capsys: Said) -> None:
    run = published_run(tmp_path / "run", data_dir)
    (data_dir / "AIME-TTT.jsonl").unlink()
    (data_dir / "AIME-TTT.jsonl").write_text(json.dumps({"id": "other", "question": "How?", "answer": "1"}) + "\n")
    text = said(capsys, run)
    assert "0 of 30 questions are in our means" in text and "15.8" in text
