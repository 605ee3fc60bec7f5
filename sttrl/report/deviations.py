"""The settings in which a run differs from a published one, and what each difference changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sttrl.config import RunConfig, field_names, has_effect, to_plain
from sttrl.config.presets import METHOD_SETTINGS
from sttrl.config.run_config import GROUP_OF
from sttrl.config.yaml_settings import typed
from sttrl.data.registry import DATASETS
from sttrl.ledger.folder import FREE

NO_CHANGE: Final = FREE | {
    "seed", "deterministic", "save_adapters", "device", "dtype", "micro_batch_tokens", "learner_ranks", "separate_ref_gpu",
    "trust_remote_code", "vote_same_tokens", "max_logprob_gap", "question_column", "answer_column", "id_column", "method_settings",
}  # fmt: skip
"""Settings that are not compared: where and how fast a run runs, chance, and how its data set is read. dtype is compared as it was used."""
EFFECTS: Final[Mapping[str, str]] = {
    "model": "taken for the same weights, because its last name is the same",
    "limit": "the mean is over other questions",
    "ids": "the mean is over other questions",
    "on_bad_row": "the mean may be over other questions",
    "max_prompt_tokens": "questions with longer prompts are not asked",
    "max_response_tokens": "longer responses are cut, and what is cut is wrong and does not vote: base and adapted both change",
    "dtype": "sampler and learner round differently: single samples differ, the mean hardly",
    "n_votes": "with fewer votes a wrong answer is elected more often, with more votes less often",
    "n_train": "each update is over another number of samples",
    "temp": "the samples that vote and train are more alike, or less",
    "top_p": "the samples that vote and train are more alike, or less",
    "votes_until": "votes end early, with fewer samples",
    "ties": "a tied vote elects another answer, or none",
    "min_margin": "unsure votes train nothing",
    "min_agreement": "unsure votes train nothing",
    "val_samples": "the mean is over another number of samples: its noise changes, its expectation does not",
    "val_temp": "base and adapted are sampled otherwise, so both means change",
    "val_top_p": "base and adapted are sampled otherwise, so both means change",
    "prompt_format": "the model is asked otherwise, so base and adapted both change",
    "instruction": "the model is asked otherwise, so base and adapted both change",
    "system_prompt": "the model is asked otherwise, so base and adapted both change",
    "chat_template_kwargs": "the model is asked otherwise, so base and adapted both change",
    "continuous": "one policy for all questions, or one for each",
    "epochs": "another number of optimiser steps",
    "steps": "another number of optimiser steps",
    "train_batch_size": "another number of optimiser steps, and more or fewer questions in each",
    "mini_batches": "another number of optimiser steps, and more or fewer samples in each",
    "ppo_epochs": "another number of optimiser steps",
    "lr": "larger or smaller optimiser steps",
    "lr_schedule": "larger or smaller optimiser steps in parts of the training",
    "warmup_ratio": "larger or smaller optimiser steps at first",
    "lora_rank": "an adapter is trained in place of all weights, or one of another size",
    "kl_coef": "the policy is held closer to the base, or less close",
    "stop_agreement": "the training of a question may end earlier or later",
    "max_flip_rate": "the training of a question may end earlier or later",
    "kl_budget": "the training of a question may end earlier or later",
    "memo_form": "another objective is trained on",
    "eval_every": "other evaluations during the training; the last one is the same",
}
"""What a difference changes, by setting."""
BY_GROUP: Final[Mapping[str, str]] = {
    "data": "other questions may be asked",
    "questions": "the questions may be read or asked otherwise",
    "sampling": "other samples vote and train",
    "vote": "other answers may be elected",
    "reinforcement": "another objective is trained on",
    "scrl": "other samples are rewarded or punished",
    "scope_reward": "other samples are rewarded",
    "restrain": "other samples are rewarded or punished",
    "energy_vote": "other answers may be elected",
    "confidence_vote": "other answers may be elected",
    "asking": "the questions are asked in other words or orders, so base and adapted both change",
    "ttrl_guard": "other questions are trained on, or with other weights",
    "forking": "other tokens are trained on",
    "tree": "the samples that vote and train are more alike, or less",
    "update": "the optimiser's steps differ",
    "engine": "sampler and learner compute otherwise",
}
"""The same for settings without an entry of their own, by group."""


@dataclass(frozen=True, kw_only=True)
class Deviation:
    """A setting in which a run differs from a published one. ``effect``: what the difference changes."""

    name: str
    ours: object
    published: object
    effect: str


def run_settings(config: Mapping[str, Any]) -> RunConfig:
    """The settings of a run from its config.json. Raises `UsageError` for a value that is not allowed any more."""
    known = {name: config[name] for name in field_names() if config.get(name) is not None and name not in ("config", "preset")}
    return RunConfig.of(**typed(known, "config.json"))


def deviations(ours: RunConfig, published: RunConfig) -> list[Deviation]:
    """The settings that differ, in the order of the command line. Settings that neither run reads are left out."""
    own, theirs = resolved(ours), resolved(published)
    left_out = NO_CHANGE | ({"lora_alpha"} if None in (own["lora_alpha"], theirs["lora_alpha"]) else set())
    names = [name for name in field_names() if name not in left_out and own[name] != theirs[name]]
    return [Deviation(name=name, ours=own[name], published=theirs[name], effect=effect_of(name)) for name in names]


def effect_of(name: str) -> str:
    """What a difference in a setting changes."""
    return EFFECTS.get(name) or BY_GROUP.get(GROUP_OF.get(name) or "", "the run differs")


def resolved(config: RunConfig) -> dict[str, Any]:
    """The flat settings, unset ones with the value that they stand for; None for a setting that the run does not read."""
    plain = to_plain(config)
    data_set, optimiser = DATASETS.get(config.data.dataset), config.optimiser
    meant = {
        "lr": config.learning_rate,
        "lr_schedule": optimiser["schedule"],
        "warmup_ratio": optimiser["warmup_ratio"],
        "weight_decay": optimiser["weight_decay"],
        "lowest_lr": optimiser["lowest_lr"] if optimiser["schedule"] == "cosine" else None,
        "adam_betas": list(optimiser["adam_betas"]),
        "steps": None if config.trains_together else config.method_steps,
        "train_batch_size": config.ttrl_batch_size,
        "epochs": config.ttrl_epochs,
        "mini_batches": config.steps_of_a_pass,
        "eval_every": config.evaluate_every,
        "max_prompt_tokens": config.data.max_prompt_tokens or (data_set and data_set.max_prompt_tokens),
        "lora_alpha": config.update.lora_alpha if config.update.lora_rank else None,
    }
    every = {**plain, **meant}
    return {name: value if has_effect(name, plain) else None for name, value in every.items()}


def method_differences(config: Mapping[str, Any], published: RunConfig) -> list[Deviation]:
    """The settings of `METHOD_SETTINGS` that differ: none if a run with this config.json is of the published method."""
    own, theirs = {**to_plain(RunConfig()), **config}, to_plain(published)
    pairs = {name: (own[name], theirs[name]) for name in METHOD_SETTINGS if has_effect(name, theirs) or name == "adaptation_method"}
    return [Deviation(name=name, ours=a, published=b, effect="another method") for name, (a, b) in pairs.items() if a != b]
