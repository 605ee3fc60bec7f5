"""One attempt at a run: claim the folder, start the engine, do the problems, journal the seconds."""

from __future__ import annotations

import asyncio
import json
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from sttrl.engine.environment import describe_environment
from sttrl.errors import EngineError, JournalError, StepError
from sttrl.ledger.files import unwritable, write_json, write_text
from sttrl.ledger.folder import CONFIG, ENVIRONMENT, attempts, claim, withdraw
from sttrl.ledger.journal import Journal
from sttrl.ledger.step_metrics import step_metrics
from sttrl.run.plan import EngineParts, Plan
from sttrl.run.screen import Screen
from sttrl.run.workshop import Workshop
from sttrl.track import Tracker

if TYPE_CHECKING:
    from sttrl.run.runner import Runner


def carry_out(plan: Plan, workshop: Workshop, screen: Screen, started: float | None = None) -> None:
    """Do the problems of a run that are not finished. If the run cannot start, nothing is left on disk; if the engine cannot start, the
    folder is left with its logs.

    ``started``: when the run started, in seconds of `time.perf_counter`; None: now.
    """
    started, folder = time.perf_counter() if started is None else started, plan.folder
    parts = plan.parts
    if parts is None or not plan.problems:
        return
    with Journal(folder) as journal:
        try:
            claim(folder, plan.config, plan.facts)
            plan = plan.still_left()
            if not plan.problems:
                return
            engine = {"device": parts.settings.device, "dtype": parts.settings.dtype}
            write_json(folder / ENVIRONMENT, describe_environment() | engine)
            screen.say(f"{folder}: {len(plan.problems)} of {len(plan.problems) + plan.done} {plan.chosen.unit} to do")
            workshop.do(attempt_run(plan, parts, journal, workshop, screen, started))
        except BaseException:
            withdraw(folder)
            raise


async def attempt_run(plan: Plan, parts: EngineParts, journal: Journal, workshop: Workshop, screen: Screen, started: float) -> None:
    """Start the engine and the kind of problem, do the problems, and journal the seconds."""
    folder = plan.folder
    attempt = attempts(folder)[0] + 1
    logs = folder / "logs" / f"attempt_{attempt}"
    tracker = Tracker(plan.config.run.track, folder, json.loads((folder / CONFIG).read_text(encoding="utf-8")))
    try:
        async with plan.chosen.opened(parts.settings.stop_token_ids) as kind:
            try:
                imported = asyncio.create_task(asyncio.to_thread(import_runner))
                lanes = await workshop.ready(parts, logs)
                make_runner = await imported
                start_up = time.perf_counter() - started
                screen.say(f"engine ready after {start_up:.1f} s")
                runner = make_runner(
                    plan.config,
                    kind=kind,
                    engines=lanes,
                    journal=journal,
                    folder=folder,
                    attempt=attempt,
                    progress=screen.say,
                    track=lambda record: tracker.log(step_metrics(record)),
                    show=screen.show,
                )
                await runner.run(plan.problems, plan.done)
            except BaseException as error:
                await workshop.close()
                if isinstance(error, EngineError | StepError):
                    raise traced(error, logs) from error.__cause__
                raise
        journal.append("attempt", attempt=attempt, seconds={"start_up": start_up, "total": time.perf_counter() - started})
    finally:
        screen.clear()
        try:
            tracker.close()
        except OSError as error:
            raise unwritable(folder, error) from error


def import_runner() -> type[Runner]:
    """The runner. Importing it takes two seconds, so it is done while the engine starts."""
    from sttrl.run.runner import Runner

    return Runner


def traced(error: EngineError | StepError, folder: Path) -> EngineError | StepError:
    """Write the traceback of an error from another process to a file, and name the file in the error; see `sttrl.engine.lanes`."""
    if error.__cause__ is None:
        return error
    file = folder / "engine.traceback"
    try:
        write_text(file, "".join(traceback.format_exception(error)))
    except JournalError:  # the traceback cannot be written; the error itself is more important
        return error
    return error if "logs/" in error.hint else type(error)(error.message, f"{error.hint} The traceback is in {file}.".strip())
