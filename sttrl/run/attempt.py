"""One attempt at a run: claim the folder, start the engine, do the problems, journal the seconds."""

from __future__ import annotations

import asyncio
import json
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sttrl.engine.environment import describe_environment
from sttrl.errors import EngineError, JournalError, StepError
from sttrl.ledger.files import unwritable, write_json, write_text
from sttrl.ledger.folder import CONFIG, ENVIRONMENT, attempts, claim, withdraw
from sttrl.ledger.journal import Journal
from sttrl.ledger.records import StepRecord
from sttrl.ledger.step_metrics import step_metrics
from sttrl.run.kind import MakeKind
from sttrl.run.plan import EngineParts, Plan
from sttrl.run.screen import Screen, State
from sttrl.run.seats import Seats
from sttrl.run.workshop import Workshop
from sttrl.track import Tracker

if TYPE_CHECKING:
    from sttrl.run.runner import Runner


class Lanes(Protocol):
    """Where the lanes of an attempt come from."""

    async def seats(self, parts: EngineParts, each: int, logs: Path) -> Seats:
        """The seats on lanes that serve ``parts``, ``each`` on every lane. What their processes write goes to the folder ``logs``."""
        ...

    async def failed(self) -> None:
        """The attempt ends with an error. The logs are complete when this returns."""
        ...


@dataclass(frozen=True, kw_only=True)
class Watcher:
    """Who watches an attempt. ``say``: gets each line of progress. ``show``: gets the state of the run. ``track``: gets each step."""

    say: Callable[[str], None]
    show: Callable[[State], None] = lambda state: None
    track: Callable[[StepRecord], None] = lambda record: None


def carry_out(plan: Plan, workshop: Workshop, screen: Screen, started: float | None = None) -> None:
    """Do the problems of a run that are not finished, and journal the seconds.

    ``started``: when the run started, in seconds of `time.perf_counter`; None: now.
    """
    started = time.perf_counter() if started is None else started
    try:
        workshop.do(attempt_run(plan, workshop, Watcher(say=screen.say, show=screen.show), started))
    finally:
        screen.clear()


async def attempt_run(
    plan: Plan,
    lanes: Lanes,
    watcher: Watcher,
    started: float,
    *,
    forks: str = "",
    kind_of: Callable[[MakeKind], MakeKind] = lambda kind: kind,
) -> None:
    """One attempt at a run. If it cannot start, nothing is left on disk; if the engine cannot start, the folder is left with its logs.

    ``forks``: begins the names of the attempt's forks, so that other attempts can use the same lanes at the same time. ``kind_of``: the
    kind of the problems, given the one of the plan.
    """
    folder, parts = plan.folder, plan.parts
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
            watcher.say(f"{folder}: {len(plan.problems)} of {len(plan.problems) + plan.done} {plan.chosen.unit} to do")
            await _do_problems(plan, parts, journal, lanes, watcher, started, forks, kind_of)
        except BaseException:
            withdraw(folder)
            raise


async def _do_problems(
    plan: Plan,
    parts: EngineParts,
    journal: Journal,
    lanes: Lanes,
    watcher: Watcher,
    started: float,
    forks: str,
    kind_of: Callable[[MakeKind], MakeKind],
) -> None:
    """Get lanes and open the kind of problem, do the problems, and journal the seconds."""
    folder = plan.folder
    attempt = attempts(folder)[0] + 1
    logs = folder / "logs" / f"attempt_{attempt}"
    tracker = Tracker(plan.config.run.track, folder, json.loads((folder / CONFIG).read_text(encoding="utf-8")))

    def track(record: StepRecord) -> None:
        tracker.log(step_metrics(record))
        watcher.track(record)

    try:
        async with plan.chosen.opened(parts.settings.stop_token_ids) as kind:
            try:
                imported = asyncio.create_task(asyncio.to_thread(import_runner))
                seats = await lanes.seats(parts, plan.config.in_flight, logs)
                make_runner = await imported
                start_up = time.perf_counter() - started
                watcher.say(f"engine ready after {start_up:.1f} s")
                runner = make_runner(
                    plan.config,
                    kind=kind_of(kind),
                    seats=seats,
                    journal=journal,
                    folder=folder,
                    attempt=attempt,
                    progress=watcher.say,
                    track=track,
                    show=watcher.show,
                    forks=forks,
                )
                await runner.run(plan.problems, plan.done)
            except BaseException as error:
                await lanes.failed()
                if isinstance(error, EngineError | StepError):
                    raise traced(error, logs) from error.__cause__
                raise
        journal.append("attempt", attempt=attempt, seconds={"start_up": start_up, "total": time.perf_counter() - started})
    finally:
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
