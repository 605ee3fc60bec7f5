"""Does the runs of a sweep one after another, on the same engine if possible, and makes the table of all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sttrl.config import RunConfig
from sttrl.run.attempt import carry_out
from sttrl.run.plan import Shared, make_plan
from sttrl.run.screen import Screen
from sttrl.run.workshop import Workshop
from sttrl.sweep.table import SweepReport, report_sweep


def run_sweep(name: str, configs: Sequence[RunConfig], file: Path | None, screen: Screen) -> SweepReport:
    """Do the unfinished questions of every run, and report on all runs. If a run is impossible, raises `SttrlError` before any starts."""
    shared = Shared()
    plans = [make_plan(config, screen.say, shared) for config in configs]
    with Workshop(screen.say, [plan.parts.settings for plan in plans if plan.parts is not None and plan.problems]) as workshop:
        for number, plan in enumerate(plans, 1):
            screen.say(f"run {number} of {len(plans)}: {plan.folder.name}")
            carry_out(plan, workshop, screen)
    return report_sweep(name, [plan.folder for plan in plans], file, {plan.folder: plan.chosen.data for plan in plans})
