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

from sttrl.errors import UsageError

VotingFunction = Literal["majority"]
AdaptationMethod = Literal["sttrl", "none"]
Tracker = Literal["tensorboard", "wandb", "trackio"]

LORA_LR = 1e-3
FULL_LR = 5e-7


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Adapt a model to each question of a data set, without labels, and say what it gained."""

    dataset: str = "arithmetic-demo"
    """A named data set (AIME-TTT, AMC-TTT, MATH-TTT, MATH-L1-TTT to MATH-L5-TTT, GSM8K-TTT, GPQA-TTT, arithmetic-demo), a
    .json/.jsonl/.parquet file, or hf:org/name[:config][:split]."""
    model: str = "builtin/SmolLM2-135M-Instruct"
    """A hub id, a local Hugging Face folder, or builtin/<name>."""
    voting_function: VotingFunction = "majority"
    """How samples elect the pseudo-label: majority of equivalent answers."""
    adaptation_method: AdaptationMethod = "sttrl"
    """sttrl: vote, reward agreement, update by policy gradient, per question. none: the base model alone."""
    continuous: bool = False
    """Keep one policy for the whole run instead of a fresh fork for every question."""

    steps: int = 5
    """Updates per question at most (derived)."""
    n_votes: int = 64
    """Samples that vote in each step (TTRL: 64)."""
    n_train: int = 32
    """The first of those samples that are trained on (TTRL: 32)."""
    temp: float = 1.0
    """Sampling temperature while adapting (TTRL: 1.0 for Qwen2.5-Math, 0.6 for other models)."""
    top_p: float = 1.0
    """Nucleus of the samples while adapting (TTRL: 1.0)."""
    ties: Literal["abstain", "first"] = "abstain"
    """What a tied vote does: elect nobody and stop, or elect the class seen first in seed order."""

    lr: float | None = None
    """Learning rate; unset: 1e-3 with LoRA (derived), 5e-7 with full weights (TTRL)."""
    lr_schedule: Literal["constant", "cosine"] = "constant"
    """Schedule over the steps of a fork, of the whole run with --continuous (TTRL: cosine; constant is derived)."""
    warmup_ratio: float = 0.0
    """Share of the steps over which the learning rate rises (TTRL: 0.03 of a whole training; derived here)."""
    weight_decay: float = 0.01
    """AdamW weight decay (TTRL: 0.01)."""
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
    question_column: str | None = None
    """Column of the question, when its name is unusual."""
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

    seed: int = 0
    """Every sample's seed is a hash of this, the question's id, the step and the sample's number."""
    deterministic: bool = False
    """One question at a time, so that batches repeat: on one machine results.jsonl is the same byte for byte."""
    parallel_problems: int = 1
    """Questions in flight at once."""
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
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Dtype of sampling and of the learner's matrix products."""
    learner_ranks: int = 1
    """Learner processes; weights and responses are sharded over them (FSDP2)."""
    separate_ref_gpu: bool = False
    """Hold the reference policy for the KL term in a worker (and resource pool) of its own; full weights only."""
    micro_batch_tokens: int | None = None
    """Tokens of one forward and backward pass of the learner; unset: 512 on CPU, 16384 on GPU. Never changes the update."""
    kv_cache_mib: int = 256
    """The sampler's key-value cache on CPU."""
    gpu_memory_utilization: float = 0.4
    """The sampler's share of a GPU."""
    trust_remote_code: bool = False
    """Let a model's repository bring its own code."""

    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE.yaml")] = None
    """A YAML file of these settings."""

    def __post_init__(self) -> None:
        for name, lowest in (
            ("steps", 0),
            ("n_votes", 1),
            ("n_train", 2),
            ("val_samples", 1),
            ("max_response_tokens", 1),
            ("lora_rank", 0),
            ("parallel_problems", 1),
            ("learner_ranks", 1),
            ("kv_cache_mib", 16),
            ("lora_alpha", 1),
        ):
            if getattr(self, name) < lowest:
                raise UsageError(f"--{name} is {getattr(self, name)}.", f"Use {lowest} or more.")
        for name in ("limit", "max_prompt_tokens", "micro_batch_tokens"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UsageError(f"--{name} is {getattr(self, name)}.", "Use 1 or more, or leave it out.")
        for name in ("top_p", "val_top_p", "stop_agreement", "gpu_memory_utilization"):
            if not 0 < getattr(self, name) <= 1:
                raise UsageError(f"--{name} is {getattr(self, name)}.", "It is a share: above 0, at most 1.")
        for name in ("lr", "kl_coef", "weight_decay", "val_temp", "warmup_ratio", "kl_budget"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise UsageError(f"--{name} is {value}.", "Use a finite number, 0 or more.")
        if not 0 < self.temp < float("inf"):
            raise UsageError(f"--temp is {self.temp}.", "Votes need samples that differ: use a finite temperature above 0.")
        if not self.max_logprob_gap > 0:
            raise UsageError(f"--max_logprob_gap is {self.max_logprob_gap}.", "Use nats a token, above 0; inf opens the gate.")
        if self.warmup_ratio > 1:
            raise UsageError(f"--warmup_ratio is {self.warmup_ratio}.", "It is a share of the steps: at most 1.")
        if self.kl_budget is not None and not self.kl_coef:
            raise UsageError(
                "--kl_budget with --kl_coef 0: the KL divergence is not measured then.", "Use a small --kl_coef, such as 1e-6."
            )
        if self.n_train > self.n_votes:
            raise UsageError(f"--n_train {self.n_train} is more than --n_votes {self.n_votes}.", "Train on at most the samples that vote.")
        if self.learner_ranks > self.n_train:
            raise UsageError(f"--learner_ranks {self.learner_ranks} is more than --n_train {self.n_train}.", "Every rank needs a sample.")
        if self.separate_ref_gpu and self.lora_rank:
            raise UsageError(
                "--separate_ref_gpu with LoRA: the reference is the same model without its adapter.",
                "Leave the flag out, or train full weights with --lora_rank 0.",
            )
        if self.prompt_format is not None and "{question}" not in self.prompt_format:
            raise UsageError(f"--prompt_format {self.prompt_format!r} has no {{question}}.", "Write {question} where the question goes.")

    @property
    def learning_rate(self) -> float:
        """``lr``, or the default of the kind of delta."""
        return self.lr if self.lr is not None else (LORA_LR if self.lora_rank else FULL_LR)

    @property
    def in_flight(self) -> int:
        """Questions in flight: one when the order must be fixed."""
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
