"""The configuration of a run: one frozen dataclass; a YAML file gives values and flags win over it.

The string under a field is its documentation and its ``--help``. Defaults are TTRL's scripts' (arXiv 2504.16084,
PRIME-RL/TTRL) where the field is theirs; "derived" marks a choice of this project.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from sttrl.defaults import METHOD_DEFAULTS, TTRL_OTHERWISE, TTRL_PRESETS
from sttrl.errors import UsageError
from sttrl.template import template_settings

VotingFunction = Literal["majority", "energy", "confidence"]
AdaptationMethod = Literal["sttrl", "ttrl", "ttft", "slot", "memo", "none"]
EnergyKind = Literal["free_energy", "semantic"]
ConfidenceKind = Literal["mean_logprob", "deepconf_mean", "deepconf_tail", "deepconf_bottom", "deepconf_lowest", "self_certainty"]
RewardKind = Literal["agreement", "frequency", "neg_entropy", "self_certainty", "logprob", "random", "format"]
MemoForm = Literal["answer", "token"]
Tracker = Literal["tensorboard", "wandb", "trackio"]


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Adapt a model to each question of a data set, without labels, and say what it gained."""

    dataset: str = "arithmetic-demo"
    """A named data set (AIME-TTT, AMC-TTT, MATH-TTT, MATH-L1-TTT to MATH-L5-TTT, GSM8K-TTT, GPQA-TTT, arithmetic-demo), a
    .json, .jsonl, .ndjson, .csv, .tsv or .parquet file, or hf:org/name[@revision][:config][:split]."""
    model: str = "builtin/SmolLM2-135M-Instruct"
    """A hub id (org/name, org/name@revision), a local Hugging Face folder, or builtin/<name>."""
    voting_function: VotingFunction = "majority"
    """How samples elect the pseudo-label: majority of equivalent answers; or each weighed by its energy or its confidence."""
    adaptation_method: AdaptationMethod = "sttrl"
    """sttrl: vote, reward agreement, update by policy gradient, per question. ttrl: the same over batches of all questions.
    ttft: fine-tune on the samples that agree. slot: tune a vector on the prompt. memo: lower the entropy of the answers.
    none: the base model alone."""
    continuous: bool = False
    """Keep one policy for the whole run instead of a fresh fork for every question."""

    steps: int | None = None
    """Steps per question at most; unset: sttrl 5 and ttft 5 (derived), slot 5 and memo 1 (their READMEs)."""
    n_votes: int = 64
    """Samples that vote in each step (TTRL: 64)."""
    n_train: int = 32
    """The first of those samples that are trained on (TTRL: 32)."""
    temp: float = 1.0
    """Sampling temperature while adapting (TTRL: 1.0 for Qwen2.5-Math, 0.6 for other models)."""
    top_p: float = 1.0
    """Nucleus of the samples while adapting (TTRL: 1.0)."""
    ties: Literal["abstain", "first", "confidence"] = "abstain"
    """A tied vote: elect nobody and stop; or the class seen first in seed order; or that of higher mean confidence."""
    energy: EnergyKind = "free_energy"
    """The energy vote's energy: free_energy -T logsumexp(z / T) (Liu 2020), or semantic, minus the token's logit (arXiv 2508.14496)."""
    energy_temp: float = 1.0
    """T of the free energy."""
    energy_tau: float | None = None
    """Temperature of the energy vote's weights exp(-(E - E_min) / tau); unset: the group's standard deviation."""
    confidence: ConfidenceKind = "mean_logprob"
    """The confidence vote's statistic: exp of the mean log-prob; DeepConf's (arXiv 2508.15260) mean, tail, lowest 10 % or lowest
    window; or self-certainty (arXiv 2502.18581)."""
    confidence_window: int = 2048
    """Tokens of DeepConf's windows (arXiv 2508.15260: 2048)."""
    confidence_top_k: int = 20
    """Tokens whose log-probs make DeepConf's token confidence (arXiv 2508.15260: 20)."""

    reward: RewardKind = "agreement"
    """Pseudo-reward: agreement with the vote (TTRL), frequency of the answer (EMPO), neg_entropy (RENT), self_certainty (Intuitor),
    logprob (RLSC); random and format are negative controls."""
    min_margin: float = 0.0
    """Gate: no update after a vote whose winner leads by less than this share."""
    min_agreement: float = 0.0
    """Gate: no update after a vote whose winner has less than this share of the samples."""
    max_flip_rate: float = 1.0
    """Gate: stop adapting once the elected answer changed in more than this share of the steps."""
    adv_estimator: str = "grpo"
    """Advantage estimator, any outcome estimator of verl's, or gae: PPO with a critic (TTRL: grpo)."""
    policy_loss: str = "vanilla"
    """Policy loss, any of verl's: vanilla is PPO's clipped loss (TTRL), gspo, clip_cov, kl_cov, ..."""
    loss_aggregation: Literal["token-mean", "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm"] = "token-mean"
    """How token losses become one (TTRL: token-mean)."""
    ppo_epochs: int = 1
    """Passes over the samples of a step (TTRL: 1)."""
    mini_batches: int | None = None
    """Optimiser steps of a pass; unset: 1, ttrl: one a question of the batch (TTRL's scripts)."""
    clip_low: float = 0.2
    """PPO's clip below 1 (TTRL: 0.2)."""
    clip_high: float = 0.2
    """PPO's clip above 1 (TTRL: 0.2)."""
    gamma: float = 1.0
    """Discount of later tokens (verl: 1.0)."""
    gae_lambda: float = 1.0
    """Lambda of generalised advantage estimation (verl: 1.0)."""
    critic_lr: float = 1e-5
    """Learning rate of the critic of --adv_estimator gae (verl: 1e-5)."""
    memo_form: MemoForm = "answer"
    """memo's marginal: of the sampled answers, or of the next token over views of the prompt."""
    memo_views: int = 8
    """Views of the prompt of --memo_form token (derived)."""
    train_batch_size: int | None = None
    """ttrl: questions of a batch; unset: TTRL's of the data set (AIME and AMC 8, others 32)."""
    epochs: int | None = None
    """ttrl: passes over the questions; unset: TTRL's of the data set (AIME 80, AMC 30, others 10)."""
    eval_every: int = 10
    """ttrl: evaluate all questions after so many steps; 0: before and after only (derived)."""
    checkpoint_every: int = 10
    """ttrl: write the policy's state after so many steps, to go on from after an interruption (derived)."""

    lr: float | None = None
    """Learning rate; unset: sttrl and ttrl 1e-3 with LoRA (derived) and 5e-7 with full weights (TTRL); ttft 1e-4, 5e-5 with
    --continuous; slot 0.1; memo 1e-5."""
    lr_schedule: Literal["constant", "cosine"] = "constant"
    """Schedule over the steps of a fork, of the whole run with --continuous (TTRL: cosine; constant is derived)."""
    warmup_ratio: float = 0.0
    """Share of the steps over which the learning rate rises (TTRL: 0.03 of a whole training; derived here)."""
    weight_decay: float | None = None
    """AdamW weight decay; unset: 0.01 (TTRL, MEMO), slot 1e-8 (its README)."""
    kl_coef: float = 0.001
    """Weight of the KL divergence to the base in the loss (TTRL: 0.001, low_var_kl)."""
    lora_rank: int = 16
    """Rank of the LoRA adapter; 0 trains full weights (derived; TTRL trains full weights)."""
    lora_alpha: int = 32
    """LoRA's scale is alpha / rank."""
    max_logprob_gap: float = 0.5
    """Gate: refuse an update when learner and sampler differ by more nats a token than this, on average."""

    stop_agreement: float = 1.0
    """Stop adapting once this share of the samples agrees; 1.0 stops at unanimity only."""
    kl_budget: float | None = None
    """Stop adapting once the KL divergence to the base, in nats a token, exceeds this."""

    val_samples: int = 16
    """Samples per evaluation, before and after (TTRL: mean@16)."""
    val_temp: float = 0.6
    """Evaluation temperature (TTRL: 0.6)."""
    val_top_p: float = 0.95
    """Evaluation nucleus (TTRL: 0.95)."""
    vote_same_tokens: bool = True
    """After adapting, let the base vote with as many tokens as that took: the fair baseline."""
    max_prompt_tokens: int | None = None
    """Longest prompt; a longer one is an error, never cut. Unset: the data set's own (TTRL: 512 AIME, 1024 others)."""
    max_response_tokens: int = 3072
    """Longest response; a response cut here does not vote (TTRL: 3072)."""

    limit: int | None = None
    """Only the first so many questions."""
    ids: tuple[str, ...] = ()
    """Only the questions with these ids."""
    data_dir: Path | None = None
    """Where named data sets are looked for first; then the environment variable STTRL_DATA, then the hub."""
    question_column: tuple[str, ...] = ()
    """Column of the question, when its name is unusual; several are joined in this order."""
    answer_column: str | None = None
    """Column of the label, when its name is unusual."""
    id_column: str | None = None
    """Column of the question's id, when its name is unusual."""
    answer_kind: Literal["math", "number", "choice"] | None = None
    """How answers are read, for data sets without a name: a mathematical object, a number, or a choice letter."""
    on_bad_row: Literal["stop", "skip"] = "stop"
    """A row that cannot be used: stop with its place, or skip and count it."""
    prompt_format: str | None = None
    """A template holding {question}, for models without a chat template."""
    system_prompt: str | None = None
    """System message of every prompt, in the place of one that a row has; an empty one leaves a row's out."""
    chat_template_kwargs: str | None = None
    """Settings of the model's chat template, as a JSON object: '{"enable_thinking": false}'."""

    seed: int = 0
    """Every sample's seed is a hash of this, the question's id, the step and the sample's number."""
    deterministic: bool = False
    """One question at a time, so that batches repeat: on one machine results.jsonl is the same byte for byte."""
    parallel_problems: int = 1
    """Questions in flight at once, on each lane."""
    lanes: int = 1
    """Samplers, each with a learner of its own, that share the questions."""
    gpus_per_lane: int | None = None
    """GPUs of a lane; unset: as many as learner ranks, the sampler on the first. One more is the sampler's own."""
    output_dir: Path = Path("outputs")
    """Where run folders go."""
    run_name: str | None = None
    """The run's folder; unset: made from data set, model, method and a hash of the settings."""
    save_adapters: bool = True
    """Keep each question's adapter in the run folder."""
    track: tuple[Tracker, ...] = ()
    """Also log to these, through verl's tracking."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where sampler and learner run; auto: cuda where there is one."""
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """Dtype of sampling and of the learner's products; auto: bfloat16 where the processor has instructions for it, or float32."""
    learner_ranks: int = 1
    """Learner processes; weights and responses are sharded over them (FSDP2)."""
    separate_ref_gpu: bool = False
    """Hold the reference policy for the KL term in a worker (and resource pool) of its own; full weights only."""
    micro_batch_tokens: int | None = None
    """Response tokens of one forward and backward pass of the learner; unset: 1024 on CPU, 16384 on GPU."""
    kv_cache_mib: int | None = None
    """The sampler's key-value cache on CPU; unset: what the samples in flight can need, at most 256."""
    gpu_memory_utilization: float = 0.4
    """The sampler's share of a GPU."""
    trust_remote_code: bool = False
    """Let a model's repository bring its own code."""

    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE.yaml")] = None
    """A YAML file of these settings."""

    def __post_init__(self) -> None:
        _check_counts(self)
        _check_numbers(self)
        _check_together(self)
        _check_used(self)

    @property
    def method_steps(self) -> int:
        """``steps``, or the method's default."""
        return self.steps if self.steps is not None else METHOD_DEFAULTS[self.adaptation_method].steps

    @property
    def learning_rate(self) -> float:
        """``lr``, or the default of the method and the kind of delta."""
        default = METHOD_DEFAULTS[self.adaptation_method]
        if self.lr is not None:
            return self.lr
        if self.continuous and default.continuous_lr is not None:
            return default.continuous_lr
        return default.lora_lr if self.lora_rank else default.full_lr

    @property
    def decay(self) -> float:
        """``weight_decay``, or the method's default."""
        return self.weight_decay if self.weight_decay is not None else METHOD_DEFAULTS[self.adaptation_method].weight_decay

    @property
    def ttrl_batch_size(self) -> int:
        """Questions of a batch of ttrl."""
        return self.train_batch_size or TTRL_PRESETS.get(self.dataset, TTRL_OTHERWISE)[0]

    @property
    def ttrl_epochs(self) -> int:
        """Passes of ttrl over the questions."""
        return self.epochs or TTRL_PRESETS.get(self.dataset, TTRL_OTHERWISE)[1]

    @property
    def steps_of_a_pass(self) -> int:
        """``mini_batches``, or the method's default."""
        return self.mini_batches or (self.ttrl_batch_size if self.adaptation_method == "ttrl" else 1)

    @property
    def in_flight(self) -> int:
        """Questions in flight on a lane: one when the order must be fixed."""
        return 1 if self.deterministic or self.continuous else self.parallel_problems


def field_names() -> tuple[str, ...]:
    """Every setting, in the order of the command line."""
    return tuple(f.name for f in dataclasses.fields(RunConfig))


def to_plain(config: RunConfig) -> dict[str, Any]:
    """The configuration as JSON values."""
    plain = dataclasses.asdict(config)
    return {
        name: str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value for name, value in plain.items()
    }


SHARES = {
    "top_p": False, "val_top_p": False, "stop_agreement": False, "gpu_memory_utilization": False,
    "min_margin": True, "min_agreement": True, "max_flip_rate": True, "gamma": True, "gae_lambda": True,
}  # fmt: skip
"""Settings that are a share, and whether 0 is one of their values."""
LOWEST = {
    "n_votes": 1, "n_train": 2, "val_samples": 1, "max_response_tokens": 1, "lora_rank": 0, "parallel_problems": 1, "learner_ranks": 1,
    "kv_cache_mib": 16, "lora_alpha": 1, "confidence_window": 1, "confidence_top_k": 1, "ppo_epochs": 1,
    "memo_views": 2, "eval_every": 0, "checkpoint_every": 1, "lanes": 1,
}  # fmt: skip
"""The least value of each count."""
NOT_NEGATIVE = ("lr", "kl_coef", "weight_decay", "val_temp", "warmup_ratio", "kl_budget", "critic_lr", "clip_low", "clip_high")

ELECTING = frozenset({"sttrl", "ttrl", "ttft"})
REINFORCING = frozenset({"sttrl", "ttrl"})
USED_BY: dict[str, frozenset[str]] = {
    **dict.fromkeys(("voting_function", "ties", "min_margin", "min_agreement"), ELECTING),
    **dict.fromkeys(("reward", "adv_estimator", "policy_loss", "ppo_epochs", "mini_batches", "loss_aggregation"), REINFORCING),
    **dict.fromkeys(("clip_low", "clip_high", "gamma", "gae_lambda", "critic_lr"), REINFORCING),
    **dict.fromkeys(("max_flip_rate", "kl_budget"), frozenset({"sttrl"})),
    **dict.fromkeys(("memo_form", "memo_views"), frozenset({"memo"})),
    **dict.fromkeys(("train_batch_size", "epochs", "eval_every", "checkpoint_every"), frozenset({"ttrl"})),
}
"""The methods that a setting has an effect on; with any other method it must be left at its default."""


def _check_counts(config: RunConfig) -> None:
    for name, lowest in LOWEST.items():
        value = getattr(config, name)
        if value is not None and value < lowest:
            raise UsageError(f"--{name} is {value}.", f"Use {lowest} or more.")
    if config.steps is not None and config.steps < 0:
        raise UsageError(f"--steps is {config.steps}.", "Use 0 or more.")
    for name in ("limit", "max_prompt_tokens", "micro_batch_tokens", "train_batch_size", "epochs", "mini_batches"):
        if getattr(config, name) is not None and getattr(config, name) < 1:
            raise UsageError(f"--{name} is {getattr(config, name)}.", "Use 1 or more, or leave it out.")


def _check_numbers(config: RunConfig) -> None:
    for name, zero in SHARES.items():
        if not (0 <= getattr(config, name) <= 1 and (zero or getattr(config, name))):
            raise UsageError(f"--{name} is {getattr(config, name)}.", f"It is a share: {'from' if zero else 'above'} 0, at most 1.")
    for name in NOT_NEGATIVE:
        value = getattr(config, name)
        if value is not None and not 0 <= value < float("inf"):
            raise UsageError(f"--{name} is {value}.", "Use a finite number, 0 or more.")
    for name in ("energy_temp", "energy_tau"):
        value = getattr(config, name)
        if value is not None and not 0 < value < float("inf"):
            raise UsageError(f"--{name} is {value}.", "Use a finite number above 0.")
    if not 0 < config.temp < float("inf"):
        raise UsageError(f"--temp is {config.temp}.", "Votes need samples that differ: use a finite temperature above 0.")
    if not config.max_logprob_gap > 0:
        raise UsageError(f"--max_logprob_gap is {config.max_logprob_gap}.", "Use nats a token, above 0; inf opens the gate.")
    if config.warmup_ratio > 1:
        raise UsageError(f"--warmup_ratio is {config.warmup_ratio}.", "It is a share of the steps: at most 1.")


def _check_together(config: RunConfig) -> None:
    if config.kl_budget is not None and not config.kl_coef:
        raise UsageError("--kl_budget with --kl_coef 0: the KL divergence is not measured then.", "Use a small --kl_coef, such as 1e-6.")
    if config.n_train > config.n_votes:
        raise UsageError(f"--n_train {config.n_train} is more than --n_votes {config.n_votes}.", "Train on at most the samples that vote.")
    if config.learner_ranks > config.n_train:
        raise UsageError(f"--learner_ranks {config.learner_ranks} is more than --n_train {config.n_train}.", "Every rank needs a sample.")
    if config.adaptation_method != "ttrl" and config.steps_of_a_pass * config.learner_ranks > config.n_train:
        raise UsageError(
            f"--mini_batches {config.mini_batches} is more than --n_train {config.n_train} samples make on {config.learner_ranks} ranks.",
            "Every mini-batch needs a sample on every rank.",
        )
    if config.separate_ref_gpu and config.lora_rank:
        raise UsageError(
            "--separate_ref_gpu with LoRA: the reference is the same model without its adapter.",
            "Leave the flag out, or train full weights with --lora_rank 0.",
        )
    if config.lanes > 1 and (config.continuous or config.adaptation_method == "ttrl"):
        raise UsageError(f"--lanes {config.lanes} with one policy for all questions: it lives on one lane.", "Leave out --lanes.")
    if config.gpus_per_lane is not None and config.gpus_per_lane - config.learner_ranks not in (0, 1):
        raise UsageError(
            f"--gpus_per_lane {config.gpus_per_lane} with --learner_ranks {config.learner_ranks}.",
            "A lane has a GPU for each learner rank, and at most one more, for its sampler.",
        )
    if config.prompt_format is not None and "{question}" not in config.prompt_format:
        raise UsageError(f"--prompt_format {config.prompt_format!r} has no {{question}}.", "Write {question} where the question goes.")
    _check_template(config)


def _check_template(config: RunConfig) -> None:
    """What goes into a chat template has no place beside ``prompt_format``."""
    given = {"system_prompt": config.system_prompt, "chat_template_kwargs": template_settings(config.chat_template_kwargs)}
    for name, value in given.items():
        if value and config.prompt_format is not None:
            text = getattr(config, name)
            raise UsageError(f"--{name} {text!r} with --prompt_format: it needs the chat template.", "Leave one of them out.")


def _check_used(config: RunConfig) -> None:
    """A setting that would do nothing is an error, not silence."""
    method = config.adaptation_method
    for field in dataclasses.fields(config):
        methods = USED_BY.get(field.name)
        if methods is not None and method not in methods and getattr(config, field.name) != field.default:
            raise UsageError(
                f"--{field.name} {getattr(config, field.name)} does nothing with --adaptation_method {method}.",
                f"It belongs to {', '.join(sorted(methods))}: leave it out, or choose one of them.",
            )
        vote = field.name.split("_")[0]
        if vote in ("energy", "confidence") and config.voting_function != vote and getattr(config, field.name) != field.default:
            raise UsageError(
                f"--{field.name} {getattr(config, field.name)} does nothing with --voting_function {config.voting_function}.",
                f"Leave it out, or use --voting_function {vote}.",
            )
    if method == "ttrl" and config.continuous:
        raise UsageError("--continuous does nothing with --adaptation_method ttrl, whose one policy sees all questions.", "Leave it out.")
