"""A run from configuration to table: data, model, engine, runner, report. `sttrl.cli` calls it; nothing else does."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sttrl.config import ReinforcementSettings, RunConfig, to_plain
from sttrl.config.template import template_settings
from sttrl.data import Table, questions, read_table
from sttrl.engine.base import EngineSettings
from sttrl.engine.environment import check_packages, choose_device, choose_dtype, describe_environment
from sttrl.errors import EngineError, JournalError, QuestionsFailedError, StepError, UsageError
from sttrl.ledger.files import unwritable, write_json, write_text
from sttrl.ledger.folder import ENVIRONMENT, attempts, begun_dtype, begun_revisions, check_owner, claim, run_folder, source_of, withdraw
from sttrl.ledger.journal import JOURNAL, Journal, read_finished
from sttrl.questions import build_problems
from sttrl.questions.answers import Judge
from sttrl.types import Problem, Question

if TYPE_CHECKING:
    from sttrl.ledger.records import StepRecord
    from sttrl.run.runner import Runner

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


def say(line: str) -> None:
    """Progress, for people; kept off standard output, which carries the table."""
    print(line, file=sys.stderr, flush=True)


def run(config: RunConfig) -> None:
    """Do what is left of a run, then print its table. Raises `QuestionsFailedError` at the very end when questions failed."""
    with Workshop() as workshop:
        carry_out(config, workshop)
    finish(run_folder(config))


def run_sweep(name: str, configs: Sequence[RunConfig], file: Path | None = None) -> None:
    """Do what is left of every run of a sweep on one engine where their model is the same, then print the table of all.

    Raises `QuestionsFailedError` at the very end when questions failed.
    """
    from sttrl.sweep.table import report_sweep

    # Of the plans only this is kept: each has a tokenizer of its own.
    needs = [plan.parts.settings for config in configs if (plan := plan_of(config, *selection(config))) is not None and plan.problems]
    with Workshop(needs) as workshop:
        for number, config in enumerate(configs, 1):
            say(f"run {number} of {len(configs)}: {run_folder(config).name}")
            carry_out(config, workshop)
    report = report_sweep(name, [run_folder(config) for config in configs], file)
    print(f"{report.table}\n\nsweep folder: {report.folder}", flush=True)
    complain(report.bad, report.total, str(report.folder))


@dataclass(frozen=True)
class EngineParts:
    """What the engine is built from: its settings, the tokenizer, and the commit of a model from the hub."""

    settings: EngineSettings
    tokenizer: Any
    revision: str | None


@dataclass(frozen=True)
class Plan:
    """What is left of a run: its questions, how many are done, the engine it needs, and the hub's commits it is made of."""

    problems: list[Problem]
    done: int
    parts: EngineParts
    revisions: dict[str, str | None]


def selection(config: RunConfig) -> tuple[Table, list[Question]]:
    """The data set of a run, and the questions that were chosen of it. Raises `DataError` before anything is written."""
    table = read_table(source_of(to_plain(config) | begun_revisions(run_folder(config))))
    return table, list(questions(table, config.data.ids or None, config.data.limit))


def plan_of(config: RunConfig, table: Table, chosen: Sequence[Question]) -> Plan | None:
    """What is left of a run; None where nothing is."""
    folder = run_folder(config)
    finished = {f.record.id for f in read_finished(folder)} if (folder / JOURNAL).exists() else set()
    if all(question.id in finished for question in chosen):
        return None
    problems, skipped, parts = prepare(config, table, chosen, finished)
    revisions = {"model_revision": parts.revision, "dataset_revision": table.revision}
    return Plan(problems, len(chosen) - len(problems) - skipped, parts, revisions)


def carry_out(config: RunConfig, workshop: Workshop) -> None:
    """Do what is left of one run. A start that is refused writes nothing; after one whose engine fails the folder stays, with its logs."""
    started, folder = time.perf_counter(), run_folder(config)
    check_owner(folder, config)
    table, chosen = selection(config)
    plan = plan_of(config, table, chosen)
    if plan is None or not plan.problems:
        return
    with Journal(folder) as journal:
        try:
            claim(folder, config, plan.revisions)
            plan = still_left(plan, folder)
            if not plan.problems:
                return
            engine = {"device": plan.parts.settings.device, "dtype": plan.parts.settings.dtype}
            write_json(folder / ENVIRONMENT, describe_environment() | engine)
            say(f"{folder}: {len(plan.problems)} of {len(plan.problems) + plan.done} questions to do")
            workshop.do(attempt_run(config, folder, journal, plan, workshop, started))
        except BaseException:
            withdraw(folder)
            raise


def still_left(plan: Plan, folder: Path) -> Plan:
    """The plan without what another process finished while this one prepared; the caller holds the journal."""
    finished = {f.record.id for f in read_finished(folder)}
    left = [problem for problem in plan.problems if problem.id not in finished]
    return replace(plan, problems=left, done=plan.done + len(plan.problems) - len(left))


class Workshop:
    """The engine's lanes and the event loop they live on, for one run or for one after another that can use the same."""

    def __init__(self, needs: Sequence[EngineSettings] = ()) -> None:
        self.needs, self.loop = list(needs), asyncio.Runner()
        self.lanes: list[Any] = []
        self.work: asyncio.Task[Any] | None = None
        self.terminated = False

    def __enter__(self) -> Workshop:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.do(self.close())
        finally:
            self.loop.close()

    def do(self, work: Coroutine[Any, Any, None]) -> None:
        """Until it is done. Raises KeyboardInterrupt for a SIGTERM too: it is how batch systems interrupt."""
        try:
            self.loop.run(work)
        except asyncio.CancelledError:
            if self.terminated:
                raise KeyboardInterrupt from None
            raise

    async def ready(self, parts: EngineParts, log_folder: Path) -> list[Any]:
        """Lanes that can do what ``parts`` asks for: running ones if they suffice; else new ones for the largest planned need."""
        from sttrl.engine.lanes import RayEngine

        if self.lanes and self.lanes[0].settings.covers(parts.settings):
            for lane in self.lanes:
                lane.log_to(log_folder)
        else:
            await self.close()
            alike = [need for need in self.needs if need.is_like(parts.settings)]
            settings = functools.reduce(EngineSettings.together, alike, parts.settings)
            self.lanes = [RayEngine(settings, parts.tokenizer, log_folder, say) for _ in range(settings.lanes)]
            await all_started(lane.start() for lane in self.lanes)
        self._heed_sigterm()
        return self.lanes

    def _heed_sigterm(self) -> None:
        """End the work that asks, as Ctrl-C does. Set once Ray runs, whose own handler prints a stack and lets the program die."""
        self.work = asyncio.current_task()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._terminate)
        if self.terminated:  # between two runs
            self._terminate()

    def _terminate(self) -> None:
        assert self.work is not None, "only work can ask for lanes"
        self.terminated = True
        self.work.cancel()

    async def close(self) -> None:
        """End the engine's processes."""
        lanes, self.lanes = self.lanes, []
        for lane in lanes:
            await lane.close()


async def all_started(starts: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Until all are done. The first error ends the others, and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            for start in starts:
                group.create_task(start)
    except BaseExceptionGroup as several:
        raise (first := several.exceptions[0]) from first.__cause__


def prepare(config: RunConfig, table: Table, chosen: Sequence[Question], finished: set[str]) -> tuple[list[Problem], int, EngineParts]:
    """Model, prompts and engine settings. Prompts are tokenised here, once; returns the problems left, and how many were skipped."""
    check_packages()
    device = choose_device(config.engine.device)
    check_names(config, device)
    be_quiet()
    from sttrl.engine.model_checks import check_fit
    from sttrl.engine.models import cached_numbers, commit_of, context_length, load_tokenizer, model_folder, stop_token_ids

    model = model_folder(
        config.engine.model, config.engine.trust_remote_code, revision=begun_revisions(run_folder(config))["model_revision"]
    )
    tokenizer = load_tokenizer(model, config.engine.trust_remote_code)
    built = build_problems(
        chosen,
        tokenizer,
        instruction=table.dataset.instruction,
        prompt_format=config.data.prompt_format,
        system=config.data.system_prompt,
        template_settings=template_settings(config.data.chat_template_kwargs),
        max_prompt_tokens=config.data.max_prompt_tokens or table.dataset.max_prompt_tokens,
        on_bad_row=config.data.on_bad_row,
        file=table.source,
        views=config.memo.memo_views if config.memo.memo_form == "token" else 0,
    )
    for row in (*table.skipped, *built.skipped):
        say(f"skipped: {row.file}, row {row.row}, field {row.field!r}: {row.reason}")
    longest = max((len(p.prompt_T) for p in built.problems), default=1) + config.sampling.max_response_tokens
    check_length(config, built.problems, context_length(model))
    settings = engine_settings(config, device, str(model), longest, stop_token_ids(model, tokenizer), cached_numbers(model))
    check_fit(settings, [tokens for p in built.problems for tokens in (p.prompt_T, *p.view_V)])
    return [p for p in built.problems if p.id not in finished], len(built.skipped), EngineParts(settings, tokenizer, commit_of(model))


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
        lora_rank=config.update.lora_rank,
        lora_alpha=config.update.lora_alpha,
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


async def attempt_run(config: RunConfig, folder: Path, journal: Journal, plan: Plan, workshop: Workshop, started: float) -> None:
    """One attempt: an engine and a judge, the questions, and the seconds."""
    from sttrl.track import Tracker

    attempt = attempts(folder)[0] + 1
    tracker = Tracker(config.run.track, folder, json.loads((folder / "config.json").read_text(encoding="utf-8")))
    try:
        async with Judge() as judge:
            try:
                imported = asyncio.create_task(asyncio.to_thread(runner_and_metrics))
                lanes = await workshop.ready(plan.parts, folder / "logs" / f"attempt_{attempt}")
                runner_class, step_metrics = await imported
                start_up = time.perf_counter() - started
                say(f"engine ready after {start_up:.1f} s")
                runner = runner_class(
                    config,
                    engines=lanes,
                    judge=judge,
                    journal=journal,
                    folder=folder,
                    attempt=attempt,
                    progress=say,
                    track=lambda record: tracker.log(step_metrics(record)),
                )
                await runner.run(plan.problems, plan.done)
            except BaseException as error:
                await workshop.close()
                if isinstance(error, EngineError | StepError):
                    raise traced(error, folder / "logs" / f"attempt_{attempt}") from error.__cause__
                raise
        journal.append("attempt", attempt=attempt, seconds={"start_up": start_up, "total": time.perf_counter() - started})
    finally:
        try:
            tracker.close()
        except OSError as error:
            raise unwritable(folder, error) from error


def traced(error: EngineError | StepError, folder: Path) -> EngineError | StepError:
    """The error with the name of the file that holds its traceback, where it comes from another process; see `sttrl.engine.lanes`."""
    if error.__cause__ is None:
        return error
    file = folder / "engine.traceback"
    try:
        write_text(file, "".join(traceback.format_exception(error)))
    except JournalError:  # no room for it: the error itself is what counts
        return error
    return error if "logs/" in error.hint else type(error)(error.message, f"{error.hint} The whole story is in {file}.".strip())


def runner_and_metrics() -> tuple[type[Runner], Callable[[StepRecord], dict[str, float | int | None]]]:
    """What an attempt needs once its engine is ready: two seconds of imports, taken while it starts."""
    from sttrl.report.lines import step_metrics
    from sttrl.run.runner import Runner

    return Runner, step_metrics


def finish(folder: Path) -> None:
    """Join the labels, write the report, print the table; complain when questions failed."""
    from sttrl.report.runs import report_run

    report = report_run(folder)
    print(f"{report.table}\n\nrun folder: {folder}", flush=True)
    counts = report.summary["questions"]
    complain(counts["total"] - counts["done"], counts["total"], f"{folder}/results.jsonl and {folder}/logs")


def complain(bad: int, total: int, where: str) -> None:
    """Raises `QuestionsFailedError` when questions failed."""
    if bad:
        raise QuestionsFailedError(f"{bad} of {total} questions failed or diverged; their base answers stand.", f"{where} say why.")
