"""A run from configuration to table: data, model, engine, runner, report. `sttrl.cli` calls it; nothing else does."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sttrl.answers import Judge
from sttrl.config import RunConfig, to_plain
from sttrl.data import Table, build_problems, questions, read_table
from sttrl.engine.base import EngineSettings
from sttrl.engine.environment import check_packages, choose_device, describe_environment
from sttrl.errors import QuestionsFailedError, UsageError
from sttrl.run.files import write_json
from sttrl.run.folder import attempts, claim, run_folder, source_of
from sttrl.run.journal import Journal, read_finished
from sttrl.types import Problem

QUIET = {
    "TRANSFORMERS_VERBOSITY": "error",
    "VERL_LOGGING_LEVEL": "WARN",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}
"""What transformers, verl and the hub say to the screen, unless the user has asked for more."""
MAX_SEQUENCES = {"cpu": 128, "cuda": 512}
MICRO_BATCH_TOKENS = {"cpu": 512, "cuda": 16384}


def say(line: str) -> None:
    """Progress, for people; kept off standard output, which carries the table."""
    print(line, file=sys.stderr, flush=True)


def run(config: RunConfig) -> None:
    """Do what is left of a run, then print its table. Raises `QuestionsFailedError` at the very end when questions failed."""
    started = time.perf_counter()
    table = read_table(source_of(to_plain(config)))
    chosen = questions(table, config.ids or None, config.limit)
    folder = run_folder(config)
    with Journal(folder) as journal:
        claim(folder, config)
        finished = {f.record.id for f in read_finished(folder)}
        left = [q for q in chosen if q.id not in finished]
        if left:
            write_json(folder / "environment.json", describe_environment())
            say(f"{folder}: {len(left)} of {len(chosen)} questions to do")
            problems, skipped, engine_parts = prepare(config, table, chosen, finished)
            done, attempt = len(chosen) - len(problems) - skipped, attempts(folder)[0] + 1
            if problems:
                asyncio.run(attempt_run(config, folder, journal, problems, done, attempt, engine_parts, started))
    finish(folder)


@dataclass(frozen=True)
class EngineParts:
    """What the engine is built from: its settings and the tokenizer."""

    settings: EngineSettings
    tokenizer: Any


def prepare(config: RunConfig, table: Table, chosen: Sequence[Any], finished: set[str]) -> tuple[list[Problem], int, EngineParts]:
    """Model, prompts and engine settings. Prompts are tokenised here, once; returns the problems left, and how many were skipped."""
    check_packages()
    device = choose_device(config.device)
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    from sttrl.engine.models import context_length, load_tokenizer, model_folder, stop_token_ids

    model = model_folder(config.model, config.trust_remote_code)
    tokenizer = load_tokenizer(model, config.trust_remote_code)
    built = build_problems(
        chosen,
        tokenizer,
        instruction=table.dataset.instruction,
        prompt_format=config.prompt_format,
        max_prompt_tokens=config.max_prompt_tokens or table.dataset.max_prompt_tokens,
        on_bad_row=config.on_bad_row,
        file=table.source,
    )
    for row in (*table.skipped, *built.skipped):
        say(f"skipped: {row.file}, row {row.row}, field {row.field!r}: {row.reason}")
    longest = max((len(p.prompt_T) for p in built.problems), default=1) + config.max_response_tokens
    limit = context_length(model)
    if limit is not None and longest > limit:
        raise UsageError(
            f"Prompt and response need {longest} tokens; {config.model} was made for {limit}.",
            f"Use --max_response_tokens {max(1, limit - longest + config.max_response_tokens)} or less.",
        )
    settings = engine_settings(config, device, str(model), longest, stop_token_ids(model, tokenizer))
    return [p for p in built.problems if p.id not in finished], len(built.skipped), EngineParts(settings, tokenizer)


def engine_settings(config: RunConfig, device: str, model: str, longest: int, stop_ids: tuple[int, ...]) -> EngineSettings:
    """The engine's part of the configuration."""
    wanted = max(config.n_votes, config.val_samples + 1) * config.in_flight
    return EngineSettings(
        model_folder=model,
        device="cuda" if device == "cuda" else "cpu",
        dtype=config.dtype,
        lora_rank=config.lora_rank,
        lora_alpha=config.lora_alpha,
        learner_ranks=config.learner_ranks,
        max_model_len=longest,
        max_num_seqs=min(MAX_SEQUENCES[device], wanted),
        kv_cache_mib=config.kv_cache_mib,
        gpu_memory_utilization=config.gpu_memory_utilization,
        micro_batch_tokens=config.micro_batch_tokens or MICRO_BATCH_TOKENS[device],
        max_forks=config.in_flight,
        trust_remote_code=config.trust_remote_code,
        stop_token_ids=stop_ids,
        trains=config.adaptation_method != "none",
        separate_reference=config.separate_ref_gpu,
    )


async def attempt_run(
    config: RunConfig, folder: Path, journal: Journal, problems: list[Problem], done: int, attempt: int, parts: EngineParts, started: float
) -> None:
    """One attempt: start the engine and the judge, run the questions, end every process."""
    from sttrl.engine.lanes import RayEngine
    from sttrl.report.lines import step_metrics
    from sttrl.run.runner import Runner
    from sttrl.track import Tracker

    engine = RayEngine(parts.settings, parts.tokenizer, folder / "logs" / f"attempt_{attempt}")
    tracker = Tracker(config.track, folder, json.loads((folder / "config.json").read_text(encoding="utf-8")))
    try:
        async with Judge() as judge:
            await engine.start()
            start_up = time.perf_counter() - started
            say(f"engine ready after {start_up:.1f} s")
            runner = Runner(
                config,
                engine=engine,
                judge=judge,
                journal=journal,
                folder=folder,
                attempt=attempt,
                progress=say,
                track=lambda record: tracker.log(step_metrics(record)),
            )
            await runner.run(problems, done)
        journal.append("attempt", attempt=attempt, seconds={"start_up": start_up, "total": time.perf_counter() - started})
    finally:
        await engine.close()
        tracker.close()


def finish(folder: Path) -> None:
    """Join the labels, write the report, print the table; complain when questions failed."""
    from sttrl.report.runs import report_run

    report = report_run(folder)
    print(f"{report.table}\n\nrun folder: {folder}")
    counts = report.summary["questions"]
    bad = counts["total"] - counts["done"]
    if bad:
        raise QuestionsFailedError(
            f"{bad} of {counts['total']} questions failed or diverged; their base answers stand.",
            f"{folder}/results.jsonl and {folder}/logs say why.",
        )
