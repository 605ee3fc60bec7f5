"""Presets: published methods as named sets of settings, under a file's settings and flags."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any, get_args

import pytest
from saying import Said, complaint

from sttrl.cli import configs_of, main, parse_run
from sttrl.config import PRESETS, PresetName, RunConfig, field_names, to_plain
from sttrl.errors import UsageError
from sttrl.ledger.folder import default_name, identity
from sttrl.library.session import AsyncSession
from sttrl.sweep.axes import read_sweep


def plain(config: RunConfig) -> dict[str, Any]:
    """All settings but the names of preset and file."""
    return {name: value for name, value in to_plain(config).items() if name not in ("preset", "config")}


def test_the_table_and_the_flag_agree() -> None:
    assert tuple(PRESETS) == get_args(PresetName)
    for preset in PRESETS.values():
        assert "arXiv " in preset.source and preset.what and set(preset.settings) < set(field_names())


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_the_flags_that_are_listed(name: PresetName, capsys: Said) -> None:
    assert main(["presets"]) == 0
    (listed,) = (part for part in capsys.readouterr().out.split("\n\n") if part.startswith(f"{name}: "))
    flags = shlex.split(listed[listed.index("--adaptation_method") :].replace("\n", " "))
    assert max(map(len, listed.splitlines())) <= 120 and "source: " in listed
    config = parse_run(["--preset", name])
    assert plain(config) == plain(parse_run(flags)) == plain(RunConfig.of(preset=name))
    assert {setting: config.setting(setting) for setting in PRESETS[name].settings} == PRESETS[name].settings, "nothing is left out"
    assert to_plain(config)["preset"] == name, "config.json has the name and the settings"
    assert default_name(config) == default_name(parse_run(flags)) and "preset" not in identity(to_plain(config))


def test_what_the_published_methods_differ_in() -> None:
    ttrl, scrl, ddrl, scope = (plain(RunConfig.of(preset=name)) for name in ("ttrl", "scrl", "ddrl", "scope"))
    assert {name: scrl[name] for name in scrl if scrl[name] != ttrl[name]} == {"reward": "scrl", "scrl_form": "shaped", "eval_every": 20}
    assert {name: ddrl[name] for name in ddrl if ddrl[name] != ttrl[name]} == {"train_samples": "balanced", "adv_estimator": "dae"}
    assert {name: scope[name] for name in scope if scope[name] != ttrl[name]} == {
        "voting_function": "confidence", "confidence": "step_mean", "reward": "scope", "scope_votes": 32, "n_train": 64, "eval_every": 1,
    }  # fmt: skip
    spine = plain(RunConfig.of(preset="spine"))
    assert {name: spine[name] for name in spine if spine[name] != ttrl[name]} == {
        "n_votes": 8, "n_train": 8, "forking_tokens": "otsu", "entropy_band": "mad",
    }  # fmt: skip
    ettrl = plain(RunConfig.of(preset="ettrl"))
    assert {name: ettrl[name] for name in ettrl if ettrl[name] != ttrl[name]} == {
        "n_votes": 60, "rollouts": "tree", "advantage_shaping": "relative_entropy",
    }  # fmt: skip
    restrain = plain(RunConfig.of(preset="restrain"))
    assert {name: restrain[name] for name in restrain if restrain[name] != ttrl[name]} == {
        "reward": "restrain",
        "adv_estimator": "reinforce",
    }
    guard = plain(RunConfig.of(preset="guard"))
    assert {name: guard[name] for name in guard if guard[name] != ttrl[name]} == {
        "guard": ["frs", "mps", "rcsu"], "guard_share": 0.5, "val_samples": 4, "eval_every": 5,
    }  # fmt: skip
    assert RunConfig.of(preset="ttrl").learning_rate == 5e-7 and RunConfig.of(preset="ttrl", lora_rank=16).learning_rate == 1e-3


def test_a_file_wins_over_a_preset_and_a_flag_over_both(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("n_votes: 40\nkl_coef: 0.5\npreset: ddrl\n")
    config = parse_run(["--config", str(file), "--kl_coef", "0.25"])
    assert (config.preset, config.reinforcement.adv_estimator, config.update.lora_rank) == ("ddrl", "dae", 0), (
        "the preset over the defaults"
    )
    assert (config.sampling.n_votes, config.update.kl_coef) == (40, 0.25)
    other = parse_run(["--preset", "scrl", "--config", str(file)])
    assert (other.preset, other.reinforcement.reward, other.reinforcement.adv_estimator) == ("scrl", "scrl", "grpo"), (
        "the flag's preset alone"
    )
    assert (other.sampling.n_votes, other.update.kl_coef) == (40, 0.5)
    assert parse_run(["--config", str(file), "--preset", "None"]).reinforcement.adv_estimator == "grpo"


def test_a_published_run_takes_another_method() -> None:
    config = parse_run(["--config", "paper/aime_qwen2.5-math-1.5b_ttrl", "--preset", "scrl"])
    assert (config.data.dataset, config.ttrl.epochs, config.reinforcement.reward, config.scrl.scrl_form) == (
        "AIME-TTT",
        80,
        "scrl",
        "shaped",
    )


def test_what_a_run_does_not_read_is_left_out_of_a_preset_but_not_of_the_flags() -> None:
    config = parse_run(["--preset", "scrl", "--adaptation_method", "sttrl", "--lora_rank", "16"])
    assert (config.method.adaptation_method, config.reinforcement.reward, config.training.eval_every) == ("sttrl", "scrl", None)
    agreeing = parse_run(["--preset", "scrl", "--reward", "agreement"])
    assert (agreeing.scrl.scrl_form, agreeing.training.eval_every) == ("fixed", 20)
    assert parse_run(["--preset=scrl", "--adaptation-method=none"]).method.adaptation_method == "none"
    assert RunConfig.of(preset="scrl", adaptation_method="sttrl").scrl.scrl_form == "shaped"
    with pytest.raises(UsageError, match="--eval_every 5 does nothing with --adaptation_method sttrl"):
        parse_run(["--preset", "scrl", "--adaptation_method", "sttrl", "--eval_every", "5"])
    with pytest.raises(UsageError, match="--adv_estimator dae with --reward scrl"):
        parse_run(["--preset", "ddrl", "--reward", "scrl"])


def test_a_sweep_over_presets(tmp_path: Path) -> None:
    file = tmp_path / "methods.yaml"
    file.write_text("base: {limit: 2, n_votes: 40, scrl_margin: 0.25, eval_every: 3}\naxes: {preset: [ttrl, scrl, slot], seed: [0, 1]}\n")
    sweep = read_sweep(file)
    assert [run.name for run in sweep.runs] == [f"{name}-seed{seed}" for seed in (0, 1) for name in ("ttrl", "scrl", "slot")]
    by_name = {str(config.run.run_name): config for config in configs_of(sweep, ["--kl_coef", "0.5"])}
    chosen = {name: (c.method.adaptation_method, c.sampling.n_votes, c.scrl.scrl_margin) for name, c in by_name.items()}
    for name, expected in (("ttrl", ("ttrl", 40, 0.125)), ("scrl", ("ttrl", 40, 0.25)), ("slot", ("slot", 40, 0.125))):
        assert chosen[f"{name}-seed0"] == chosen[f"{name}-seed1"] == expected
    assert {c.training.eval_every for c in by_name.values()} == {3, None} and {c.update.kl_coef for c in by_name.values()} == {0.5}


def test_a_session_takes_a_preset_and_a_question_another_method() -> None:
    session = AsyncSession("builtin/SmolLM2-135M-Instruct", preset="scrl", method="sttrl", scrl_margin=0.25)
    first, second = session.config_of({}), session.config_of({"method": "ttft"})
    assert (first.method.adaptation_method, first.reinforcement.reward, first.scrl.scrl_margin) == ("sttrl", "scrl", 0.25)
    assert (second.method.adaptation_method, second.reinforcement.reward, second.vote.ties) == ("ttft", "agreement", "first")


@pytest.mark.parametrize(
    ("given", "lost"),
    [
        ({"preset": "ddrl", "adaptation_method": "ttft"}, "--train_samples balanced"),
        ({"preset": "guard", "adaptation_method": "ttft"}, "--guard frs mps rcsu"),
        ({"preset": "restrain", "adaptation_method": "memo"}, "--reward restrain"),
        ({"preset": "self_harmony", "adaptation_method": "slot"}, "--voting_function harmony"),
        ({"preset": "spine", "loss_aggregation": "seq-mean-token-mean"}, "--forking_tokens otsu"),
    ],
)
def test_a_preset_that_loses_what_makes_its_method_is_refused(given: dict[str, Any], lost: str) -> None:
    with pytest.raises(UsageError, match=f"--preset {given['preset']} is made by {lost}, which does nothing"):
        RunConfig.of(**given)


def test_the_base_may_be_evaluated_under_every_preset() -> None:
    for name in PRESETS:
        assert RunConfig.of(preset=name, adaptation_method="none").method.adaptation_method == "none"


def test_an_endpoint_takes_none(capsys: Said) -> None:
    assert "--preset does nothing with serve" in complaint(capsys, "serve", "--preset", "scrl", code=2)


@pytest.mark.parametrize("where", ["flag", "file", "python"])
def test_an_unknown_preset_is_one_line(where: str, tmp_path: Path, capsys: Said) -> None:
    (tmp_path / "a.yaml").write_text("preset: tttrl\n")
    if where == "python":
        with pytest.raises(
            UsageError, match="--preset is tttrl.*ttrl, scrl, ddrl, scope, spine, ettrl, restrain, guard, self_harmony, slot"
        ):
            RunConfig.of(preset="tttrl")
        return
    said = complaint(capsys, *(("--preset", "tttrl") if where == "flag" else ("--config", str(tmp_path / "a.yaml"))), code=2)
    assert "tttrl" in said and "'ttrl'" in said and "'scrl'" in said


def test_the_listing_is_quick_to_read(capsys: Said) -> None:
    assert main(["presets"]) == 0
    assert [part.split(":")[0] for part in capsys.readouterr().out.split("\n\n")] == list(PRESETS)
    assert json.loads(json.dumps({name: dict(preset.settings) for name, preset in PRESETS.items()}))
