"""The plan of a run, made before anything starts: its problems, those that are not finished, and the settings of the engine."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sttrl.config import ReinforcementSettings, RunConfig
from sttrl.config.arc import CODEC
from sttrl.config.extensions import installed, run_by
from sttrl.config.reinforcement import ESTIMATOR
from sttrl.data import BuiltProblems, SourceSpec, Table, read_table
from sttrl.engine.base import AdapterShape, EngineSettings
from sttrl.engine.cpu.parts import switched_off
from sttrl.engine.environment import check_bits, check_packages, choose_device, choose_dtype
from sttrl.errors import UsageError
from sttrl.ledger.folder import KIND, TRAINED_ON, begun_dtype, begun_revisions, check_owner, run_folder
from sttrl.ledger.journal import JOURNAL, read_finished
from sttrl.run.kind import KINDS, Chosen, check_kind, kind_name
from sttrl.types import Problem

QUIET = {
    "TRANSFORMERS_VERBOSITY": "error",
    "VERL_LOGGING_LEVEL": "WARN",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}
"""Environment variables that silence transformers, verl and the hub; a value that the user has set is kept."""
MAX_SEQUENCES = {"cpu": 128, "cuda": 512}
MOST_KV_CACHE_MIB = 256
KV_CACHE_SLACK = 64
"""Tokens that a sequence may take in the key-value cache beyond its length, because its last block is not full."""


class Shared:
    """Data sets and tokenizers that the plans of several runs use; each is read once."""

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
    """What the engine is built from. ``revision``: the commit of a model from the hub, else None."""

    settings: EngineSettings
    tokenizer: Any
    revision: str | None


@dataclass(frozen=True)
class Plan:
    """What is to be done. ``problems``: those that are not finished. ``done``: how many are. ``parts``: None if nothing is left."""

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
    def facts(self) -> dict[str, str | None]:
        """What config.json holds besides the settings: the commits of model and data set on the hub, and the kind of problem."""
        revision = self.parts.revision if self.parts else None
        chosen = self.chosen
        return {"model_revision": revision, "dataset_revision": chosen.revision, TRAINED_ON: chosen.training_revision, KIND: chosen.kind}

    def still_left(self) -> Plan:
        """The plan without problems that another process has finished in the meantime. The caller has the journal open."""
        finished = finished_ids(self.folder)
        left = tuple(problem for problem in self.problems if problem.id not in finished)
        return replace(self, problems=left, done=self.done + len(self.problems) - len(left))


def make_plan(config: RunConfig, say: Callable[[str], None], shared: Shared | None = None) -> Plan:
    """The plan of a run. Raises `SttrlError` if the run is impossible; writes nothing."""
    folder, shared = run_folder(config), shared or Shared()
    kind = KINDS[check_kind(config)]
    check_owner(folder, config)
    chosen, finished = kind.choose(config, shared.table), finished_ids(folder)
    if finished.issuperset(chosen.ids):
        return Plan(config, chosen, done=len(chosen.ids))
    built, parts = prepare(config, chosen, shared, say)
    for row in built.skipped:
        say(f"skipped: {row}")
    for remark in built.remarks:
        say(remark)
    left = tuple(problem for problem in built.problems if problem.id not in finished)
    return Plan(config, chosen, left, len(built.problems) - len(left), parts)


def finished_ids(folder: Path) -> set[str]:
    """The ids of the problems that a run has finished."""
    return {f.record.id for f in read_finished(folder)} if (folder / JOURNAL).exists() else set()


def prepare(config: RunConfig, chosen: Chosen, shared: Shared, say: Callable[[str], None]) -> tuple[BuiltProblems, EngineParts]:
    """The problems with their tokenised prompts, and what the engine is built from."""
    check_packages()
    fewer = {"base_dtype": (config.engine.base_dtype, "same"), "optimizer": (config.update.optimizer, "adamw")}
    check_bits({name: plain for name, (value, plain) in fewer.items() if value != plain})
    switched_off()
    device = choose_device(config.engine.device)
    check_names(config, device)
    be_quiet()
    # Imported late: transformers takes a second, which a finished run or one with a wrong data set does not need.
    from sttrl.engine.model_checks import check_fit
    from sttrl.engine.models import cached_numbers, commit_of, context_length, first_use, load_tokenizer, model_folder, stop_token_ids

    trust = config.engine.trust_remote_code
    if (remark := first_use(config.engine.model)) is not None:
        say(remark)
    model = model_folder(config.engine.model, trust, revision=begun_revisions(run_folder(config))["model_revision"])
    tokenizer = shared.tokenizer(model, lambda: load_tokenizer(model, trust))
    limit = context_length(model)
    with run_by(CODEC, config.arc_text.codec, "write the tasks"):
        built = chosen.build(tokenizer, limit)
    longest = max((p.longest_prompt for p in built.problems), default=1) + built.response_tokens
    check_length(config, built, limit)
    ends = tuple(dict.fromkeys((*stop_token_ids(model, tokenizer), *built.end_T)))
    settings = engine_settings(config, device, str(model), longest, ends, cached_numbers(model))
    check_fit(settings, [tokens for p in built.problems for tokens in p.every_prompt])
    return built, EngineParts(settings, tokenizer, commit_of(model))


def check_length(config: RunConfig, built: BuiltProblems, limit: int | None) -> None:
    """Raises `UsageError` if prompt and response together are longer than ``limit``, the model's context; None: not known."""
    prompt, longest = max(((p.longest_prompt, p) for p in built.problems), key=lambda pair: pair[0])
    if limit is None or prompt + built.response_tokens <= limit:
        return
    if prompt >= limit:
        raise UsageError(
            f"The prompt of question {longest.id!r} has {prompt} tokens; {config.engine.model} was made for {limit}, response included.",
            f"Use another model, or leave such questions out with --max_prompt_tokens {limit - 1} --on_bad_row skip.",
        )
    raise UsageError(
        f"Prompt and response need {prompt + built.response_tokens} tokens; {config.engine.model} was made for {limit}.",
        f"Use --max_response_tokens {limit - prompt} or less.",
    )


def be_quiet() -> None:
    """Silence the libraries, except where the user has set a variable."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


def tokenizer_of(model: str, trust_remote_code: bool) -> Any:
    """The tokenizer of a model; the weights are not downloaded. Raises what `model_folder` raises."""
    be_quiet()
    from sttrl.engine.models import TOKENIZER_FILES, load_tokenizer, model_folder

    return load_tokenizer(model_folder(model, trust_remote_code, TOKENIZER_FILES), trust_remote_code)


def engine_settings(
    config: RunConfig, device: str, model: str, longest: int, stop_ids: tuple[int, ...], cached: int | None
) -> EngineSettings:
    """The settings of the engine. ``longest``: tokens of the longest sequence. ``cached``: numbers that the cache holds for each token."""
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
        trains=config.method.adaptation_method != "none" or KINDS[kind_name(config)].needs_learner(config),
        critic=needs_critic(config),
        samples=KINDS[kind_name(config)].samples,
        optimizer=config.update.optimizer,
        separate_reference=config.engine.separate_ref_gpu,
        lanes=config.run.lanes,
        gpus_per_lane=config.run.gpus_per_lane or config.engine.learner_ranks,
    )


def needs_critic(config: RunConfig) -> bool:
    """Whether the advantage estimator reads a critic's values: gae, or one of one's own with an argument ``values``."""
    name = config.reinforcement.adv_estimator
    if ESTIMATOR.reference(name) is None:
        return name == "gae"
    from sttrl.objectives.registry import estimator_needs

    return "values" in estimator_needs(name)


def adapter_shape(config: RunConfig) -> AdapterShape | None:
    """The adapter that a run trains or loads; None with full weights."""
    if config.stored.adapters is not None:
        # Imported late: it imports torch.
        from sttrl.engine.learned import kept_shape

        kept = kept_shape(config.stored.adapters)
        return kept and replace(kept, base=config.engine.base_dtype)
    chosen = config.update
    if chosen.lora_rank == 0:
        return None
    return AdapterShape(
        rank=chosen.lora_rank,
        alpha=chosen.lora_alpha,
        rank_stabilised=chosen.lora_rank_stabilised,
        targets=tuple(sorted(chosen.lora_targets)),
        trainable_modules=tuple(sorted(chosen.lora_trainable_modules)),
        base=config.engine.base_dtype,
    )


def kv_cache_mib(sequences: int, longest: int, cached: int | None, size: int) -> int:
    """MiB that ``sequences`` sequences can fill, at most `MOST_KV_CACHE_MIB`. ``size``: bytes of a number."""
    if cached is None:
        return MOST_KV_CACHE_MIB
    return min(MOST_KV_CACHE_MIB, -(-(sequences + 1) * (longest + KV_CACHE_SLACK) * cached * size // (1 << 20)))


def check_names(config: RunConfig, device: str) -> None:
    """Raises `UsageError` for an advantage estimator or a policy loss that verl does not know, and for a name of verl's that a package
    gives to an estimator of its own."""
    chosen, default = config.reinforcement, ReinforcementSettings()
    if not installed(ESTIMATOR) and (chosen.adv_estimator, chosen.policy_loss) == (default.adv_estimator, default.policy_loss):
        return
    if device == "cpu":
        os.environ["VERL_PLATFORM"] = "cpu"  # verl reads it when it is first imported
    from sttrl.objectives.registry import check_estimator, check_policy_loss, estimator_names

    installed(ESTIMATOR, estimator_names())
    check_estimator(chosen.adv_estimator)
    check_policy_loss(chosen.policy_loss)
