"""The configuration: defaults, values that cannot be used, and what is derived from the rest."""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path
from typing import Any, get_args

import pytest

from sttrl.config import (
    AdaptationMethod,
    ConfidenceKind,
    EnergyKind,
    RewardKind,
    RunConfig,
    Tracker,
    TrainSamples,
    VotingFunction,
    field_names,
    fields_of,
    has_effect,
    to_plain,
)
from sttrl.config.defaults import METHOD_DEFAULTS
from sttrl.errors import JournalError, UsageError
from sttrl.ledger.folder import check_owner, claim, default_name, identity, read_config, run_folder, source_of

BAD: dict[str, dict[str, Any]] = {
    "steps": {"steps": -1},
    "n_votes": {"n_votes": 0},
    "n_train": {"n_train": 1},
    "val_samples": {"val_samples": 0},
    "max_response_tokens": {"max_response_tokens": 0},
    "lora_rank": {"lora_rank": -1},
    "lora_alpha": {"lora_alpha": 0},
    "lora_rank_stabilised": {"lora_rank": 0, "lora_rank_stabilised": True},
    "lora_targets": {"lora_rank": 0, "lora_targets": ("q_proj",)},
    "lora_targets ": {"lora_targets": ("q_proj", "lm_head"), "lora_trainable_modules": ("lm_head",)},
    "lora_trainable_modules": {"lora_rank": 0, "lora_trainable_modules": ("lm_head",)},
    "embedding_lr": {"embedding_lr": 0.1},
    "embedding_lr ": {"lora_trainable_modules": ("embed_tokens",), "embedding_lr": -0.1},
    "parallel_problems": {"parallel_problems": 0},
    "learner_ranks": {"learner_ranks": 0},
    "kv_cache_mib": {"kv_cache_mib": 1},
    "limit": {"limit": 0},
    "max_prompt_tokens": {"max_prompt_tokens": 0},
    "micro_batch_tokens": {"micro_batch_tokens": -5},
    "top_p": {"top_p": 0.0},
    "val_top_p": {"val_top_p": 1.5},
    "stop_agreement": {"stop_agreement": float("nan")},
    "gpu_memory_utilization": {"gpu_memory_utilization": 2.0},
    "lr": {"lr": float("nan")},
    "kl_coef": {"kl_coef": -1.0},
    "weight_decay": {"weight_decay": float("inf")},
    "val_temp": {"val_temp": -0.1},
    "warmup_ratio": {"warmup_ratio": -0.5},
    "kl_budget": {"kl_budget": float("inf")},
    "temp": {"temp": 0.0},
    "n_train ": {"n_votes": 8, "n_train": 9},
    "learner_ranks ": {"learner_ranks": 33},
    "separate_ref_gpu": {"separate_ref_gpu": True},
    "prompt_format": {"prompt_format": "no place for it"},
    "system_prompt": {"prompt_format": "{question}", "system_prompt": "Be brief."},
    "chat_template_kwargs": {"prompt_format": "{question}", "chat_template_kwargs": '{"a": 1}'},
    "chat_template_kwargs ": {"chat_template_kwargs": "enable_thinking=false"},
    "chat_template_kwargs  ": {"chat_template_kwargs": "[1]"},
    "chat_template_kwargs   ": {"chat_template_kwargs": '{"messages": []}'},
    "max_logprob_gap": {"max_logprob_gap": float("nan")},
    "max_logprob_gap ": {"max_logprob_gap": -0.5},
    "mini_batches": {"n_train": 4, "mini_batches": 5},
    "ppo_epochs": {"ppo_epochs": 0},
    "tis_cap": {"tis_cap": 0.5},
    "tis_cap ": {"tis_cap": 2.0, "policy_loss": "bypass_mode"},
    "tis_cap  ": {"tis_cap": 2.0, "adaptation_method": "ttft"},
    "forking_tokens": {"loss_aggregation": "seq-mean-token-mean", "forking_tokens": "otsu"},
    "forking_tokens ": {"policy_loss": "gspo", "forking_tokens": "otsu"},
    "forking_tokens  ": {"adaptation_method": "ttft", "forking_tokens": "otsu"},
    "forking_share": {"forking_tokens": "top", "forking_share": 0.0},
    "forking_share ": {"forking_tokens": "otsu", "forking_share": 0.5},
    "entropy_band": {"entropy_band": "mad"},
    "entropy_low_coef": {"forking_tokens": "otsu", "entropy_low_coef": 0.5},
    "entropy_high_coef": {"forking_tokens": "otsu", "entropy_band": "mad", "entropy_high_coef": -1.0},
    "votes_until": {"votes_until": 0.5},
    "votes_until ": {"rollouts": "tree", "n_votes": 60, "votes_until": 0.6},
    "n_votes  ": {"rollouts": "tree", "n_votes": 63},
    "n_votes   ": {"rollouts": "tree", "fork_points": 3, "n_votes": 5},
    "fork_points": {"rollouts": "tree", "fork_points": 0},
    "fork_branches": {"fork_branches": 3},
    "rollouts": {"adaptation_method": "memo", "rollouts": "tree"},
    "advantage_clip": {"advantage_shaping": "clip", "advantage_clip": 0.0},
    "advantage_clip ": {"advantage_shaping": "relative_entropy", "advantage_clip": 3.0},
    "min_margin": {"min_margin": 1.5},
    "max_flip_rate": {"max_flip_rate": -0.5},
    "scrl_margin": {"reward": "scrl", "scrl_margin": 1.5},
    "scrl_positive_share": {"reward": "scrl", "scrl_positive_share": 0.0},
    "scope_votes": {"reward": "scope", "scope_votes": 0},
    "scope_quality": {"reward": "scope", "scope_quality": 1.5},
    "scope_quality ": {"scope_quality": 0.5},
    "reward": {"reward": "scope", "voting_function": "my_votes:Mine"},
    "voting_function": {"reward": "scope", "question_views": 2, "voting_function": "harmony"},
    "adv_estimator": {"reward": "frequency", "adv_estimator": "dae"},
    "gamma": {"gamma": float("nan")},
    "energy_tau": {"voting_function": "energy", "energy_tau": 0.0},
    "confidence_window": {"voting_function": "confidence", "confidence_window": 0},
    "question_views": {"question_views": 0},
    "question_views ": {"rollouts": "tree", "n_votes": 60, "question_views": 2},
    "epochs": {"adaptation_method": "ttrl", "epochs": 0},
    "lanes": {"lanes": 0},
    "lanes ": {"continuous": True, "lanes": 2},
    "lanes  ": {"adaptation_method": "ttrl", "lanes": 2},
    "gpus_per_lane": {"gpus_per_lane": 3},
}


@pytest.mark.parametrize("flag", BAD)
def test_a_bad_value_is_one_line_with_flag_value_and_remedy(flag: str) -> None:
    with pytest.raises(UsageError) as caught:
        RunConfig.of(**BAD[flag])
    error = caught.value
    assert error.exit_code == 2 and "\n" not in str(error) and error.hint
    assert f"--{flag.strip()}" in error.message
    value = next(iter(reversed(BAD[flag].values())))
    assert str(value) in error.message or value is True


def test_the_edges_of_what_is_allowed() -> None:
    RunConfig.of(steps=0, n_votes=2, n_train=2, val_samples=1, max_response_tokens=1, lora_rank=0, limit=1, top_p=1.0, val_temp=0.0, lr=0.0)
    RunConfig.of(separate_ref_gpu=True, lora_rank=0)
    RunConfig.of(learner_ranks=32, prompt_format="{question}", system_prompt="", chat_template_kwargs="{}")


def test_it_is_frozen_and_keyword_only() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        RunConfig().method.steps = 3  # type: ignore[misc]
    assert all(field.kw_only for _, field in fields_of(RunConfig)) and all(field.kw_only for field in dataclasses.fields(RunConfig))


def test_every_field_has_a_sentence() -> None:
    """The string under a field is its documentation and its --help."""
    source = "".join(inspect.getsource(kind) for kind in (RunConfig, *map(type, RunConfig().groups.values())))
    for name in field_names():
        below = source.split(f"\n    {name}: ", 1)[1].split("\n")[1].strip()
        assert below.startswith('"""') and len(below) > 15, name


def test_defaults_are_the_paper_s() -> None:
    config = RunConfig()
    assert (config.sampling.n_votes, config.sampling.n_train, config.evaluation.val_samples) == (64, 32, 16)
    assert (config.sampling.temp, config.sampling.top_p, config.evaluation.val_temp, config.evaluation.val_top_p) == (1.0, 1.0, 0.6, 0.95)
    assert (config.update.kl_coef, config.optimiser["weight_decay"], config.sampling.max_response_tokens) == (0.001, 0.01, 3072)
    assert (config.reinforcement.clip_low, config.reinforcement.clip_high, config.reinforcement.ppo_epochs, config.steps_of_a_pass) == (
        0.2,
        0.2,
        1,
        1,
    )
    assert (config.reinforcement.adv_estimator, config.reinforcement.policy_loss, config.reinforcement.loss_aggregation) == (
        "grpo",
        "vanilla",
        "token-mean",
    )
    steps: dict[AdaptationMethod, int] = {"sttrl": 5, "ttrl": 1, "ttft": 5, "slot": 5, "memo": 1, "none": 0}
    assert {name: RunConfig.of(adaptation_method=name).method_steps for name in steps} == steps
    assert RunConfig.of(adaptation_method="slot").optimiser["weight_decay"] == 1e-8
    by_data = {name: RunConfig.of(adaptation_method="ttrl", dataset=name) for name in ("AIME-TTT", "AMC-TTT", "MATH-TTT", "GPQA-TTT")}
    assert {n: (c.ttrl_batch_size, c.ttrl_epochs) for n, c in by_data.items()} == {
        "AIME-TTT": (8, 80), "AMC-TTT": (8, 30), "MATH-TTT": (32, 10), "GPQA-TTT": (32, 10),
    }  # fmt: skip
    assert config.method.adaptation_method == "sttrl" and config.vote.voting_function == "majority"


def test_learning_rate_follows_the_kind_of_delta() -> None:
    assert RunConfig().learning_rate == RunConfig.of(adaptation_method="ttrl").learning_rate == 1e-3
    assert RunConfig.of(lora_rank=0).learning_rate == RunConfig.of(lora_rank=0, adaptation_method="ttrl").learning_rate == 5e-7
    assert RunConfig.of(adaptation_method="ttft").learning_rate == 1e-4
    assert RunConfig.of(adaptation_method="ttft", continuous=True).learning_rate == 5e-5
    assert RunConfig.of(adaptation_method="slot").learning_rate == 0.1 and RunConfig.of(adaptation_method="memo").learning_rate == 1e-5
    assert RunConfig.of(lr=0.0).learning_rate == 0.0, "0 is a learning rate, not an absent one"


def test_questions_in_flight() -> None:
    assert RunConfig.of(parallel_problems=8).in_flight == 8
    assert RunConfig.of(parallel_problems=8, deterministic=True).in_flight == 1
    assert RunConfig.of(parallel_problems=8, continuous=True).in_flight == 1


def test_choices_agree_with_the_registries() -> None:
    from sttrl.arc.codecs.registry import CODECS
    from sttrl.arc.search import SEARCHES
    from sttrl.arc.selections import SELECTIONS
    from sttrl.config.arc import CodecName, SearchName, SelectionName
    from sttrl.methods import METHODS
    from sttrl.objectives.rewards import REWARDS
    from sttrl.objectives.train_samples import TRAIN_SAMPLES
    from sttrl.voting import VOTES
    from sttrl.voting.confidence import STATISTICS
    from sttrl.voting.energy import ENERGIES

    assert get_args(VotingFunction) == tuple(VOTES)
    assert get_args(AdaptationMethod) == tuple(METHODS) == tuple(METHOD_DEFAULTS)
    assert get_args(RewardKind) == tuple(REWARDS) and get_args(TrainSamples) == tuple(TRAIN_SAMPLES)
    assert set(get_args(CodecName)) == {"auto", *CODECS}
    assert get_args(SearchName) == tuple(SEARCHES) and get_args(SelectionName) == tuple(SELECTIONS)
    assert get_args(EnergyKind) == tuple(ENERGIES) and get_args(ConfidenceKind) == tuple(STATISTICS)
    assert set(get_args(Tracker)) == {"tensorboard", "wandb", "trackio"}


def test_every_setting_that_takes_code_of_others_is_in_the_table() -> None:
    from sttrl.config import CHOICES
    from sttrl.config.extensions import Choice
    from sttrl.config.rules import rules_of

    annotated = {name: rule for group in RunConfig().groups.values() for name, rule in rules_of(type(group)) if isinstance(rule, Choice)}
    assert set(annotated) == {choice.setting for choice in CHOICES} and set(annotated.values()) == set(CHOICES)
    assert {choice.setting: choice.group for choice in CHOICES} == {
        "dataset": "sttrl.data_sets", "adaptation_method": "sttrl.methods", "voting_function": "sttrl.votes", "reward": "sttrl.rewards",
        "adv_estimator": "sttrl.adv_estimators", "codec": "sttrl.codecs", "selection": "sttrl.selections",
    }, "packages of others depend on these names"  # fmt: skip


def test_plain_values_are_json_and_complete() -> None:
    config = RunConfig.of(data_dir=Path("/data"), ids=("a", "b"), track=("wandb",))
    plain = json.loads(json.dumps(to_plain(config)))
    assert tuple(plain) == field_names()
    assert (plain["data_dir"], plain["ids"], plain["track"], plain["output_dir"], plain["lr"]) == (
        "/data",
        ["a", "b"],
        ["wandb"],
        "outputs",
        None,
    )


SILENT: list[dict[str, Any]] = [
    {"adaptation_method": "slot", "voting_function": "energy"},
    {"adaptation_method": "none", "reward": "random"},
    {"adaptation_method": "ttft", "adv_estimator": "rloo"},
    {"adaptation_method": "memo", "policy_loss": "gspo"},
    {"adaptation_method": "sttrl", "epochs": 3},
    {"adaptation_method": "ttrl", "memo_form": "token"},
    {"adaptation_method": "ttft", "kl_budget": 0.1},
    {"voting_function": "majority", "energy_tau": 1.0},
    {"voting_function": "energy", "confidence": "self_certainty"},
    {"voting_function": "confidence", "confidence_window": 7},
    {"voting_function": "confidence", "confidence": "step_mean", "confidence_window": 7},
    {"voting_function": "confidence", "confidence": "step_surprisal", "confidence_top_k": 5},
    {"adaptation_method": "ttrl", "continuous": True},
]


@pytest.mark.parametrize("settings", SILENT, ids=lambda settings: "-".join(map(str, settings.values())))
def test_a_setting_that_would_do_nothing_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="does nothing with --") as caught:
        RunConfig.of(**settings)
    assert caught.value.hint


def test_what_a_group_belongs_to_is_a_method_or_a_vote() -> None:
    groups = RunConfig().groups.values()
    assert all(group.methods is None or group.methods < set(get_args(AdaptationMethod)) for group in groups)
    assert all(group.votes is None or group.votes < set(get_args(VotingFunction)) for group in groups)


def test_whether_a_setting_has_an_effect() -> None:
    ttft = to_plain(RunConfig.of(adaptation_method="ttft", voting_function="energy"))
    assert [has_effect(name, ttft) for name in ("seed", "ties", "energy_tau", "confidence", "reward", "memo_form")] == [
        True, True, True, False, False, False,
    ]  # fmt: skip


OTHER: dict[str, Any] = {
    "dataset": "AIME-TTT", "model": "other/model", "adaptation_method": "none", "continuous": True, "steps": 6, "n_votes": 65,
    "n_train": 31, "temp": 0.9, "seed": 1, "ids": ("x",), "limit": 3, "deterministic": True,
    "lr": 0.1, "val_temp": 0.5, "prompt_format": "{question}!",
    "question_column": ("a", "b"), "system_prompt": "Be brief.", "chat_template_kwargs": '{"enable_thinking": false}',
}  # fmt: skip
SAME: dict[str, Any] = {
    "output_dir": Path("elsewhere"), "data_dir": Path("/data"), "parallel_problems": 4, "track": ("wandb",), "config": Path("a.yaml"),
    "kv_cache_mib": 512, "gpu_memory_utilization": 0.5, "lanes": 2, "gpus_per_lane": 2,
    "time_limit": 3600.0, "task_time_limit": 60.0, "search_time_limit": 60.0, "retry_unsure": 0.5,
}  # fmt: skip


def test_the_folder_s_name_follows_what_the_run_does() -> None:
    name = default_name(RunConfig())
    assert name.startswith("arithmetic_demo-SmolLM2_135M_Instruct-sttrl-")
    assert default_name(RunConfig()) == name, "the same command finds the same folder"
    names = {default_name(RunConfig.of(**{flag: value})) for flag, value in OTHER.items()}
    assert len(names | {name}) == len(OTHER) + 1
    assert {default_name(RunConfig.of(**{flag: value})) for flag, value in SAME.items()} == {name}
    ttrl = RunConfig.of(adaptation_method="ttrl")
    assert default_name(ttrl) == default_name(ttrl.changed(checkpoint_every=3))
    assert run_folder(RunConfig.of(run_name="mine", output_dir=Path("o"))) == Path("o/mine")
    assert set(identity(to_plain(RunConfig()))) == set(field_names()) - set(SAME) - {"run_name", "checkpoint_every", "preset"}


@pytest.mark.parametrize("hostile", ["../../etc/passwd", "hf:a/b:c:d", "a b<script>", "x/../../y.jsonl", "/"])
def test_a_folder_s_name_is_one_plain_name(hostile: str) -> None:
    for config in (RunConfig.of(dataset=hostile), RunConfig.of(model=hostile)):
        assert "/" not in default_name(config) and "<" not in default_name(config) and not default_name(config).startswith(".")


def test_the_fingerprint_of_a_training_set_is_compared_once_it_is_known(tmp_path: Path) -> None:
    """It is not known yet when the plan of a resumed run is made."""
    config = RunConfig.of(output_dir=tmp_path, run_name="run", dataset="arc-demo", adaptation_method="ttt", train_dataset=("arc-demo",))
    claim(run_folder(config), config, {"training_revision": "a", "kind": "arc"})
    (run_folder(config) / "journal.jsonl").write_text("{}\n")
    check_owner(run_folder(config), config)
    check_owner(run_folder(config), config, {"training_revision": "a", "kind": "arc"})
    with pytest.raises(JournalError, match="training revision 'a' then, 'b' now"):
        check_owner(run_folder(config), config, {"training_revision": "b", "kind": "arc"})


def test_a_folder_that_names_its_question_column_in_the_older_way_is_the_same_run(tmp_path: Path) -> None:
    for older, now in ((None, ()), ("body", ("body",))):
        config = RunConfig.of(question_column=now, output_dir=tmp_path, run_name=str(older))
        run_folder(config).mkdir()
        plain = {**to_plain(config), "question_column": older}
        (run_folder(config) / "config.json").write_text(json.dumps(plain))
        (run_folder(config) / "journal.jsonl").write_text("{}\n")
        claim(run_folder(config), config)
        assert source_of(read_config(run_folder(config))).question_column == now
