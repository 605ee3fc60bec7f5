"""The runs of a sweep, one after another, on one engine where their model is the same; then the table of all."""

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
    """Do what is left of every run of a sweep, and report on all. Raises `SttrlError` before anything starts where a run cannot be made."""
    shared = Shared()
    plans = [make_plan(config, screen.say, shared) for config in configs]
    with Workshop(screen.say, [plan.parts.settings for plan in plans if plan.parts is not None and plan.problems]) as workshop:
        for number, plan in enumerate(plans, 1):
            screen.say(f"run {number} of {len(plans)}: {plan.folder.name}")
            carry_out(plan, workshop, screen)
    return report_sweep(name, [plan.folder for plan in plans], file, {plan.folder: plan.chosen.table for plan in plans})
