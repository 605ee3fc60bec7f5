"""Settings of a training run: files, both forms of a command line, and what is refused in one line."""

from __future__ import annotations

from dataclasses import fields as fields_of
from pathlib import Path
from typing import Any

import pytest

from sttrl.errors import UsageError
from sttrl.trm.config import CONFIGS, EvaluatorConfig, TrainConfig, as_mapping, config_of, fields, flat, read_config
from sttrl.trm.config_help import documentation, help_text
from sttrl.trm.overrides import find_config, take_config
from sttrl.trm.run_names import named, run_folder, run_name

OURS = sorted(CONFIGS.glob("*.yaml"))
PRESETS = sorted((CONFIGS / "arch").glob("*.yaml"))


def changed(*arguments: str) -> dict[str, Any]:
    """The settings that these arguments change, by dotted name."""
    return differing(read_config(None, arguments))


def differing(config: TrainConfig) -> dict[str, Any]:
    default = flat(as_mapping(read_config(None)))
    return {name: value for name, value in flat(as_mapping(config)).items() if value != default[name]}


@pytest.mark.parametrize("file", OURS, ids=lambda file: file.stem)
def test_every_configuration_is_read(file: Path) -> None:
    config = read_config(file)
    assert file.read_text().startswith("# ") and config.optimiser in ("adam_atan2", "adam_atan2_pytorch")


@pytest.mark.parametrize("preset", PRESETS, ids=lambda file: file.stem)
def test_every_preset_of_an_architecture_is_read(preset: Path) -> None:
    assert read_config(None, [f"arch={preset.stem}"]) == read_config(None, ["--arch", preset.stem])


def test_the_preset_trm_is_the_default() -> None:
    assert read_config(None, ["arch=trm"]) == read_config(None)


def test_the_readme_command_for_sudoku() -> None:
    """TinyRecursiveModels' command as a shell gives it."""
    given = (
        "arch=trm data_paths=[data/sudoku-extreme-1k-aug-1000] evaluators=[] epochs=50000 eval_interval=5000 lr=1e-4 puzzle_emb_lr=1e-4 "
        "weight_decay=1.0 puzzle_emb_weight_decay=1.0 arch.mlp_t=True arch.pos_encodings=none arch.L_layers=2 arch.H_cycles=3 "
        "arch.L_cycles=6 +run_name=pretrain_mlp_t_sudoku ema=True"
    )
    config = read_config(None, given.split())
    assert config.run_name == "pretrain_mlp_t_sudoku"
    assert differing(config) == {**differing(read_config(CONFIGS / "sudoku_mlp.yaml")), "run_name": "pretrain_mlp_t_sudoku"}


def test_the_forks_command_for_a_checkpoint_of_sixteen_positions() -> None:
    given = (
        "data_paths=['data/arc-eval2-aug-1000'] data_paths_test=['data/arc-eval2-aug-1000'] load_checkpoint=pretrained/step_155718 "
        "arch.puzzle_emb_len=16 +run_name=posttrain_aa1"
    )
    config = read_config(CONFIGS / "trelis_posttrain.yaml", given.split())
    assert (config.arch.puzzle_emb_len, config.arch.L_cycles, config.adaptation) == (16, 4, "embeddings_then_full")
    assert config.data_paths == config.data_paths_test == ("data/arc-eval2-aug-1000",)


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        (("--lr", "3e-4"), {"lr": 3e-4}),
        (("--lr=3e-4",), {"lr": 3e-4}),
        (("lr=3e-4",), {"lr": 3e-4}),
        (("lr=1", "lr=3e-4"), {"lr": 3e-4}),
        (("--ema",), {"ema": True}),
        (("--ema", "lr=3e-4"), {"ema": True, "lr": 3e-4}),
        (("--ema", "false"), {}),
        (("--no_checkpoint_every_eval",), {"checkpoint_every_eval": False}),
        (("--no-checkpoint-every-eval",), {"checkpoint_every_eval": False}),
        (("--data-paths", "a", "b", "--ema"), {"data_paths": ["a", "b"], "ema": True}),
        (("data_paths=[a,b]",), {"data_paths": ["a", "b"]}),
        (("data_paths=a",), {"data_paths": ["a"]}),
        (("--arch.L_cycles", "4"), {"arch.L_cycles": 4}),
        (("arch.hidden_size=256",), {"arch.hidden_size": 256, "arch.puzzle_emb_ndim": 256}),
        (("arch.hidden_size=256", "arch.puzzle_emb_ndim=64"), {"arch.hidden_size": 256, "arch.puzzle_emb_ndim": 64}),
        (("arch.puzzle_emb_ndim=0", "arch.puzzle_emb_len=0"), {"arch.puzzle_emb_ndim": 0, "arch.puzzle_emb_len": 0}),
        (("arch.loss.loss_type=softmax_cross_entropy",), {"arch.loss.loss_type": "softmax_cross_entropy"}),
        (("arch.no_ACT_continue=False",), {"arch.no_ACT_continue": False}),
        (("+run_name=2024",), {"run_name": "2024"}),
        (("run_name='a b'",), {"run_name": "a b"}),
        (("--load_checkpoint", "runs/lr=1/step_5"), {"load_checkpoint": "runs/lr=1/step_5"}),
        (("eval_interval=null",), {"eval_interval": None}),
        (("evaluators=[]",), {"evaluators": []}),
        (("eval_save_outputs=[preds,logits]",), {"eval_save_outputs": ["preds", "logits"]}),
        (("--track", "wandb", "trackio"), {"track": ["wandb", "trackio"]}),
    ],
    ids=" ".join,
)
def test_both_forms_of_a_command_line(arguments: tuple[str, ...], settings: dict[str, Any]) -> None:
    assert changed(*arguments) == settings


@pytest.mark.parametrize("value", ["[{name:arc@ARC,aggregated_voting:True}]", "[{name: arc@ARC, aggregated_voting: true}]"])
def test_aggregated_voting_is_off_unless_it_is_asked_for(value: str) -> None:
    assert TrainConfig().evaluators == (EvaluatorConfig(aggregated_voting=False),)
    assert read_config(None, [f"evaluators={value}"]).evaluators == (EvaluatorConfig(aggregated_voting=True),)
    flags = (
        ["--aggregated_voting", "true"],
        ["aggregated_voting=true"],
        [f"evaluators={value}"],
        [f"evaluators={value}", "aggregated_voting=false"],
        [],
    )
    assert [read_config(None, given).votes_aggregate for given in flags] == [True, True, True, False, False]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("L_cycles=4",), "there is no setting 'L_cycles'. Did you mean 'arch.L_cycles'?"),
        (("--epoch", "3"), "there is no setting 'epoch'. Did you mean 'epochs'?"),
        (("arch=trn",), "arch=trn: there is no such architecture. Known: "),
        (("lr=x",), "lr=x: input should be a valid number"),
        (("ema=3",), "ema=3: input should be a valid boolean"),
        (("lr=null",), "lr=null: "),
        (("--lr",), "--lr has no value."),
        (("--lr", "1", "2"), "--lr 1 2: lr takes one value."),
        (("lr",), "'lr' is no setting."),
        (("lr=-1",), "--lr is -1.0."),
        (("beta1=1",), "--beta1 is 1.0."),
        (("optimiser=adam",), "input should be 'adam_atan2', 'adam_atan2_pytorch' or 'adamw'"),
        (("hydra.run.dir=.",), "a setting of Hydra, which is not used here"),
        (("eval_interval=0",), "--eval_interval is 0. Use the number of epochs between evaluations, or null"),
        (("eval_interval=3000",), "--eval_interval 3000 does not divide --epochs 100000. Use 2500 or 3125, or null"),
        (("epochs=100",), "--eval_interval 10000 does not divide --epochs 100. Use 100, or null"),
        (("freeze_weights_epochs=5",), "--freeze_weights_epochs 5 does nothing without --freeze_weights."),
        (("freeze_weights=true", "freeze_weights_epochs=100000"), "is not below --epochs 100000."),
        (("freeze_weights=true", "arch.lora_rank=1"), "trains no LoRA."),
        (("freeze_weights=true", "arch.puzzle_emb_ndim=0", "arch.puzzle_emb_len=0"), "leaves nothing to train."),
        (("arch.puzzle_emb_ndim=0",), "arch.puzzle_emb_ndim is 0 (no puzzle table), and arch.puzzle_emb_len is 16."),
        (("arch.puzzle_emb_len=1", "arch.puzzle_emb_ndim=600"), "does not fit into 1 tokens of 512."),
        (("arch.H_cycles=0",), "arch.H_cycles is 0."),
        (("arch.num_heads=512",), "Rotary positions need heads of an even width"),
        (("grid_noise_prob=0.5",), "grid_noise_prob 0.5 with grid_noise_fraction 0 changes no cell."),
        (("gradient_accumulation=7",), "--gradient_accumulation 7 does not divide --global_batch_size 768."),
        (("data_paths=[]",), "--data_paths is ()."),
        (("evaluators=[{name: arc@ARC}, {name: arc@ARC}]",), "names one evaluator twice"),
        (("evaluators=[{name: maze@MAZE}]",), "'arc@ARC'"),
        (("evaluators=[{nam: arc@ARC}]",), "Its keys are name, submission_K"),
        (("eval_save_outputs=[pred]",), "eval_save_outputs=[pred]: input should be 'inputs', 'labels'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_setting_that_cannot_be_used_is_an_error_of_one_line(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_config(None, arguments)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_fault_of_a_file_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("lrr: 1\n")
    with pytest.raises(UsageError, match=r"--config .*mine\.yaml: there is no setting 'lrr'\. Did you mean 'lr'\?"):
        read_config(file)
    file.write_text("arch: {L_cycles: [1]}\n")
    with pytest.raises(UsageError, match=r"mine\.yaml: arch\.L_cycles: \[1\]"):
        read_config(file)
    file.write_text("defaults: [other_config]\n")
    with pytest.raises(UsageError, match="defaults has 'other_config'"):
        read_config(file)


def test_a_file_in_hydras_layout_with_a_preset_beside_it(tmp_path: Path) -> None:
    (tmp_path / "arch").mkdir()
    (tmp_path / "arch" / "mine.yaml").write_text("hidden_size: 128\nL_cycles: 2\npuzzle_emb_ndim: ${.hidden_size}\n")
    file = tmp_path / "cfg.yaml"
    file.write_text("defaults:\n  - arch: mine\n  - _self_\nhydra:\n  output_subdir: null\narch:\n  L_cycles: 3\nlr: 1e-3\n")
    config = read_config(file)
    assert (config.arch.hidden_size, config.arch.puzzle_emb_ndim, config.arch.L_cycles, config.lr) == (128, 128, 3, 1e-3)
    other = read_config(file, ["arch=trm-slim", "arch.halt_max_steps=4"])
    assert (other.arch.hidden_size, other.arch.L_cycles, other.arch.halt_max_steps) == (256, 3, 4)


def test_a_preset_replaces_the_whole_architecture_of_all_config() -> None:
    saved = as_mapping(read_config(None, ["arch.hidden_size=128", "arch.L_cycles=2"]))
    assert config_of(saved, ["arch=trm"]) == config_of({})


def test_a_configuration_of_the_fork_without_an_optimiser_runs_as_the_fork_does() -> None:
    assert config_of({"entity": "trelis"}).optimiser == "adam_atan2_pytorch"
    assert config_of({"entity": "trelis"}, ["optimiser=adamw"]).optimiser == "adamw"
    assert config_of({}).optimiser == "adam_atan2"


def test_top_level_keys_stand_for_keys_of_the_architecture() -> None:
    config = read_config(None, ["halt_max_steps_eval=64", "grid_noise_prob=0.1", "grid_noise_fraction=0.2"])
    arch = config.model_arch
    assert (arch.halt_max_steps_eval, arch.grid_noise_prob, arch.grid_noise_fraction) == (64, 0.1, 0.2)
    assert config.arch == read_config(None).arch


def test_the_number_of_steps_is_that_of_the_published_runs() -> None:
    """trm_sources.md A10: on the 120 groups of evaluation2 with 2.98 demonstrations each."""
    assert read_config(CONFIGS / "trelis_posttrain.yaml").total_steps(120, 2.9833333) == 13984
    assert read_config(CONFIGS / "trelis_posttrain_l4.yaml").total_steps(120, 2.9833333) == 11653


def test_the_trunk_is_frozen_for_the_share_of_steps_that_the_settings_say() -> None:
    config = read_config(CONFIGS / "trelis_posttrain.yaml")
    assert config.frozen_steps(13984) == -(-13984 * 3125 // 15000)
    assert TrainConfig().frozen_steps(10) == 0
    assert read_config(None, ["freeze_weights=true"]).frozen_steps(10) == 10


@pytest.mark.parametrize(
    ("arguments", "adaptation"),
    [
        ((), "full"),
        (("freeze_weights=true",), "embeddings"),
        (("freeze_weights=true", "freeze_weights_epochs=5"), "embeddings_then_full"),
        (("arch.lora_rank=1",), "lora"),
        (("arch.lora_rank=1", "freeze_weights=true", "freeze_weights_epochs=5"), "embeddings_then_lora"),
    ],
)
def test_the_settings_say_in_one_word_what_is_trained(arguments: tuple[str, ...], adaptation: str) -> None:
    assert read_config(None, arguments).adaptation == adaptation


def test_a_file_of_settings_is_found_by_path_or_by_name() -> None:
    assert take_config(["--config", "a.yaml", "lr=1"]) == ("a.yaml", ["lr=1"])
    assert take_config(["lr=1", "--config-name=cfg_posttrain"]) == ("cfg_posttrain", ["lr=1"])
    assert find_config("cfg_posttrain", CONFIGS) == CONFIGS / "trelis_posttrain.yaml"
    assert find_config("arc1", CONFIGS) == find_config("arc1.yaml", CONFIGS) == CONFIGS / "arc1.yaml"
    assert find_config(str(CONFIGS / "arc1.yaml"), CONFIGS) == CONFIGS / "arc1.yaml"
    with pytest.raises(UsageError, match=r"There is no file of settings nowhere\. Give a YAML file, or one of configs/trm: arc1, "):
        find_config("nowhere", CONFIGS)
    with pytest.raises(UsageError, match="--config has no value"):
        take_config(["--config"])


def test_help_has_every_setting_with_its_default_and_documentation() -> None:
    known = documentation()
    assert set(known) == set(fields()) | {f"evaluators[].{field.name}" for field in fields_of(EvaluatorConfig)}
    assert all(text.endswith(".") for text in known.values())
    text = help_text()
    assert (
        "  eval_interval (10000)\n      Epochs between evaluations" in text
        and "  arch.L_cycles (6)" in text
        and "  run_name (unset)" in text
    )


def test_a_run_is_called_by_what_it_computes() -> None:
    config = read_config(CONFIGS / "arc1.yaml")
    assert run_folder(config).parent == Path("outputs") and run_name(config).startswith("trm-arc1concept_aug_1000-full-")
    for same in ("track=wandb", "device=cpu", "dataloader_num_workers=0", "output_dir=elsewhere", "gradient_accumulation=2", "max_steps=5"):
        assert run_name(read_config(CONFIGS / "arc1.yaml", [same])) == run_name(config)
    for other in ("seed=1", "lr=1e-3", "arch.L_cycles=6"):
        assert run_name(read_config(CONFIGS / "arc1.yaml", [other])) != run_name(config)
    assert run_folder(read_config(None, ["checkpoint_path=checkpoints/x", "run_name=y"])) == Path("checkpoints/x")
    assert named(named(config)) == named(config) and run_folder(named(config)) == run_folder(config)


def test_names_of_settings_are_frozen() -> None:
    """What users can see. A key of the originals may not be renamed."""
    originals = {
        "data_paths", "data_paths_test", "evaluators", "global_batch_size", "eval_global_batch_size", "epochs", "eval_interval",
        "min_eval_interval", "checkpoint_every_eval", "checkpoint_every_n_steps", "eval_max_augmentations", "halt_max_steps_eval",
        "max_examples_per_puzzle", "max_eval_examples_per_puzzle", "lr", "lr_min_ratio", "lr_warmup_steps", "beta1", "beta2",
        "weight_decay", "puzzle_emb_lr", "puzzle_emb_weight_decay", "puzzle_emb_reinit_strategy", "ema", "ema_rate", "freeze_weights",
        "freeze_weights_epochs", "grid_noise_prob", "grid_noise_fraction", "seed", "load_checkpoint", "checkpoint_path", "project_name",
        "run_name", "entity", "eval_save_outputs", "dataloader_num_workers", "dataloader_prefetch_factor", "dataloader_pin_memory",
        "dataloader_persistent_workers",
    }  # fmt: skip
    ours = {
        "optimiser", "device", "dtype", "compile", "gradient_accumulation", "max_steps", "evaluate_before", "tasks",
        "state_every_n_steps", "output_dir", "track", "freeze_weights_steps", "aggregated_voting",
        "rollouts", "rollout_noise", "shuffle_identities", "leave_out_test_demos",
    }  # fmt: skip
    assert {name for name in fields() if "." not in name} == originals | ours
