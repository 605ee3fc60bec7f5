"""Does the runs of a sweep one after another, on the same engine if possible, and makes the table of all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sttrl.config import RunConfig
from sttrl.ledger.folder import run_folder
from sttrl.report.view.details import FindPieces, no_pieces
from sttrl.run.attempt import carry_out
from sttrl.run.plan import Shared, make_plan
from sttrl.run.screen import Screen
from sttrl.run.workshop import Workshop
from sttrl.sweep.table import SweepReport, report_sweep


def run_sweep(
    name: str,
    configs: Sequence[RunConfig],
    file: Path | None,
    screen: Screen,
    baseline: str | None = None,
    find_pieces: FindPieces = no_pieces,
) -> SweepReport:
    """Do the unfinished questions of every run, and report on all runs. If a run is impossible, raises `SttrlError` before any starts;
    but a run that takes the adapters of another run of the sweep is planned when that one is done."""
    shared, folders = Shared(), [run_folder(config) for config in configs]
    plans = {config: make_plan(config, screen.say, shared) for config in configs if config.stored.adapters not in folders}
    with Workshop(screen.say, [plan.parts.settings for plan in plans.values() if plan.parts and plan.problems]) as workshop:
        for number, (config, folder) in enumerate(zip(configs, folders, strict=True), 1):
            screen.say(f"run {number} of {len(configs)}: {folder.name}")
            plans[config] = plan = plans.get(config) or make_plan(config, screen.say, shared)
            carry_out(plan, workshop, screen)
    return report_sweep(name, folders, file, {plan.folder: plan.chosen.data for plan in plans.values()}, baseline, find_pieces)
