"""The plan of a run, made in one pass before anything starts: its problems, what is left of them, and the engine that they need."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sttrl.config import ReinforcementSettings, RunConfig
from sttrl.data import SourceSpec, Table, read_table
from sttrl.engine.base import AdapterShape, EngineSettings
from sttrl.engine.cpu.parts import switched_off
from sttrl.engine.environment import check_packages, choose_device, choose_dtype
from sttrl.errors import UsageError
from sttrl.ledger.folder import begun_dtype, begun_revisions, check_owner, run_folder
from sttrl.ledger.journal import JOURNAL, read_finished
from sttrl.questions import BuiltProblems
from sttrl.run.kind import Chosen, kind_of
from sttrl.types import Problem

QUIET = {
    "TRANSFORMERS_VERBOSITY": "error",
    "VERL_LOGGING_LEVEL": "WARN",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}
"""What transformers, verl and the hub say to the screen, unless the user has asked for more."""
MAX_SEQUENCES = {"cpu": 128, "cuda": 512}
MOST_KV_CACHE_MIB = 256
KV_CACHE_SLACK = 64
"""Tokens a sequence may take in the key-value cache beyond its own: blocks are not filled."""


class Shared:
    """What the plans of several runs have in common: data sets and tokenizers, each read once."""

    def __init__(self) -> None:
        self.tables: dict[SourceSpec, Table] = {}
        self.tokenizers: dict[Path, Any] = {}

    def table(self, source: SourceSpec) -> Table:
        """A data set. Raises `DataError`."""
        if source not in self.tables:
            self.tables[source] = read_table(source)
        return self.tables[source]

    def tokenizer(self, model: Path, read: Callable[[], Any]) -> Any:
        """The tokenizer of a model's folder; ``read`` reads it."""
        if model not in self.tokenizers:
            self.tokenizers[model] = read()
        return self.tokenizers[model]


@dataclass(frozen=True)
class EngineParts:
    """What the engine is built from: its settings, the tokenizer, and the commit of a model from the hub."""

    settings: EngineSettings
    tokenizer: Any
    revision: str | None


@dataclass(frozen=True)
class Plan:
    """What is to be done: the problems left, how many are done, the engine they need (None where nothing is left), and what was chosen."""

    config: RunConfig
    chosen: Chosen
    problems: tuple[Problem, ...] = ()
    done: int = 0
    parts: EngineParts | None = None

    @property
    def folder(self) -> Path:
        """The run folder."""
        return run_folder(self.config)

    @property
    def revisions(self) -> dict[str, str | None]:
        """The hub's commits that the run is made of."""
        return {"model_revision": self.parts.revision if self.parts else None, "dataset_revision": self.chosen.revision}

    def still_left(self) -> Plan:
        """The plan without what another process finished while this one prepared; the caller holds the journal."""
        finished = finished_ids(self.folder)
        left = tuple(problem for problem in self.problems if problem.id not in finished)
        return replace(self, problems=left, done=self.done + len(self.problems) - len(left))


def make_plan(config: RunConfig, say: Callable[[str], None], shared: Shared | None = None) -> Plan:
    """What is left of a run. Raises `SttrlError` for a run that cannot be made; nothing is written."""
    folder, shared = run_folder(config), shared or Shared()
    check_owner(folder, config)
    chosen, finished = kind_of(config).choose(config, shared.table), finished_ids(folder)
    if finished.issuperset(chosen.ids):
        return Plan(config, chosen, done=len(chosen.ids))
    built, parts = prepare(config, chosen, shared, say)
    for row in built.skipped:
        say(f"skipped: {row.file}, row {row.row}, field {row.field!r}: {row.reason}")
    left = tuple(problem for problem in built.problems if problem.id not in finished)
    return Plan(config, chosen, left, len(built.problems) - len(left), parts)


def finished_ids(folder: Path) -> set[str]:
    """The problems that a run has finished."""
    return {f.record.id for f in read_finished(folder)} if (folder / JOURNAL).exists() else set()


def prepare(config: RunConfig, chosen: Chosen, shared: Shared, say: Callable[[str], None]) -> tuple[BuiltProblems, EngineParts]:
    """The problems with their prompts, tokenised here, once, and what the engine is built from."""
    check_packages()
    switched_off()
    device = choose_device(config.engine.device)
    check_names(config, device)
    be_quiet()
    # Imported here: transformers takes a second, which a wrong data set or a finished run need not wait for.
    from sttrl.engine.model_checks import check_fit
    from sttrl.engine.models import cached_numbers, commit_of, context_length, first_use, load_tokenizer, model_folder, stop_token_ids

    trust = config.engine.trust_remote_code
    if (remark := first_use(config.engine.model)) is not None:
        say(remark)
    model = model_folder(config.engine.model, trust, revision=begun_revisions(run_folder(config))["model_revision"])
    tokenizer = shared.tokenizer(model, lambda: load_tokenizer(model, trust))
    built = chosen.build(tokenizer)
    longest = max((len(p.prompt_T) for p in built.problems), default=1) + config.sampling.max_response_tokens
    check_length(config, built.problems, context_length(model))
    settings = engine_settings(config, device, str(model), longest, stop_token_ids(model, tokenizer), cached_numbers(model))
    check_fit(settings, [tokens for p in built.problems for tokens in (p.prompt_T, *p.view_V)])
    return built, EngineParts(settings, tokenizer, commit_of(model))


def check_length(config: RunConfig, problems: Sequence[Problem], limit: int | None) -> None:
    """Raises `UsageError` where prompt and response are longer together than the model's context; None: it does not say."""
    longest = max(problems, key=lambda problem: len(problem.prompt_T))
    prompt = len(longest.prompt_T)
    if limit is None or prompt + config.sampling.max_response_tokens <= limit:
        return
    if prompt >= limit:
        raise UsageError(
            f"The prompt of question {longest.id!r} has {prompt} tokens; {config.engine.model} was made for {limit}, response included.",
            f"Use another model, or leave such questions out with --max_prompt_tokens {limit - 1} --on_bad_row skip.",
        )
    raise UsageError(
        f"Prompt and response need {prompt + config.sampling.max_response_tokens} tokens; {config.engine.model} was made for {limit}.",
        f"Use --max_response_tokens {limit - prompt} or less.",
    )


def be_quiet() -> None:
    """Let the libraries say to the screen what the user has asked for, and no more."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


def tokenizer_of(model: str, trust_remote_code: bool) -> Any:
    """The tokenizer of a model, whose weights do not come from the hub for it. Raises what `model_folder` raises."""
    be_quiet()
    from sttrl.engine.models import TOKENIZER_FILES, load_tokenizer, model_folder

    return load_tokenizer(model_folder(model, trust_remote_code, TOKENIZER_FILES), trust_remote_code)


def engine_settings(
    config: RunConfig, device: str, model: str, longest: int, stop_ids: tuple[int, ...], cached: int | None
) -> EngineSettings:
    """The engine's part of the configuration. ``longest``: tokens of a sequence; ``cached``: numbers that a token leaves in the cache."""
    dtype = choose_dtype(begun_dtype(run_folder(config)) or config.engine.dtype, device)
    sequences = min(MAX_SEQUENCES[device], max(config.sampling.n_votes, config.evaluation.val_samples + 1) * config.in_flight)
    return EngineSettings(
        model_folder=model,
        device="cuda" if device == "cuda" else "cpu",
        dtype=dtype,
        adapter=adapter_shape(config),
        learner_ranks=config.engine.learner_ranks,
        max_model_len=longest,
        max_num_seqs=sequences,
        kv_cache_mib=config.engine.kv_cache_mib or kv_cache_mib(sequences, longest, cached, 2 if dtype == "bfloat16" else 4),
        gpu_memory_utilization=config.engine.gpu_memory_utilization,
        micro_batch_tokens=config.engine.micro_batch_tokens,
        max_forks=config.in_flight,
        trust_remote_code=config.engine.trust_remote_code,
        stop_token_ids=stop_ids,
        trains=config.method.adaptation_method != "none",
        critic=config.reinforcement.adv_estimator == "gae",
        separate_reference=config.engine.separate_ref_gpu,
        lanes=config.run.lanes,
        gpus_per_lane=config.run.gpus_per_lane or config.engine.learner_ranks,
    )


def adapter_shape(config: RunConfig) -> AdapterShape | None:
    """The adapter that a run trains; None with full weights."""
    chosen = config.update
    if chosen.lora_rank == 0:
        return None
    return AdapterShape(
        rank=chosen.lora_rank,
        alpha=chosen.lora_alpha,
        rank_stabilised=chosen.lora_rank_stabilised,
        targets=chosen.lora_targets,
        trainable_modules=chosen.lora_trainable_modules,
    )


def kv_cache_mib(sequences: int, longest: int, cached: int | None, size: int) -> int:
    """MiB that so many sequences can fill, or the most that is taken without being asked; ``size``: bytes of a number."""
    if cached is None:
        return MOST_KV_CACHE_MIB
    return min(MOST_KV_CACHE_MIB, -(-(sequences + 1) * (longest + KV_CACHE_SLACK) * cached * size // (1 << 20)))


def check_names(config: RunConfig, device: str) -> None:
    """Raises `UsageError` for an advantage estimator or a policy loss that verl does not know."""
    chosen, default = config.reinforcement, ReinforcementSettings()
    if (chosen.adv_estimator, chosen.policy_loss) == (default.adv_estimator, default.policy_loss):
        return
    if device == "cpu":
        os.environ["VERL_PLATFORM"] = "cpu"  # verl reads it when it is first imported
    from sttrl.objectives.registry import check_estimator, check_policy_loss

    check_estimator(chosen.adv_estimator)
    check_policy_loss(chosen.policy_loss)
