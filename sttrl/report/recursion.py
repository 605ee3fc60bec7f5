"""The report of a training of a recursive model: a table of its evaluations, and a page with curves and some puzzles."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from markupsafe import Markup

from sttrl.ledger.files import whole_lines, write_text
from sttrl.ledger.folder import CONFIG
from sttrl.ledger.journal import read_lines
from sttrl.report.figures import curves, inline
from sttrl.report.html import templates
from sttrl.report.layout import NOTHING, aligned, number_or_nothing, page, with_interval
from sttrl.report.statistics import interval_of_mean
from sttrl.report.tables import thinned

MOST_POINTS: Final = 200
"""How many steps a curve shows."""
CURVES: Final = {
    "exact": "train/exact_accuracy",
    "cells": "train/accuracy",
    "halting head right": "train/q_halt_accuracy",
}
"""The curves of the page, by label."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One row of an evaluation, as the journal holds it.

    ``metrics``: by the original's names. ``values``: for each of some metrics the value of each puzzle or task, for the interval.
    ``missing``: test outputs without a prediction; None where nothing is submitted.
    """

    step: int
    row: str
    metrics: dict[str, float]
    values: dict[str, list[float]]
    missing: int | None

    @property
    def cells(self) -> dict[str, str]:
        """The numbers of the table by column."""
        shown = {}
        for name, value in self.metrics.items():
            interval = interval_of_mean(self.values[name]) if self.values.get(name) else None
            if name.startswith("ARC/") or name.split(".")[-1] in ("exact_accuracy", "accuracy", "q_halt_accuracy"):
                shown[name] = number_or_nothing(value) if interval is None else with_interval(value, interval.low, interval.high)
            else:
                shown[name] = f"{value:.3f}"
        if self.missing is not None:
            shown["missing"] = str(self.missing)
        return shown


def read_evaluations(folder: Path) -> list[Evaluation]:
    """The evaluations of a run, in order; of one that was repeated after an interruption the last counts."""
    found: dict[tuple[int, str], Evaluation] = {}
    for record in read_lines(folder):
        if record.pop("kind") == "evaluation":
            found[record["step"], record["row"]] = Evaluation(**record)
    return [found[place] for place in sorted(found, key=lambda place: place[0])]


def report_training(folder: Path) -> str:
    """Write report.html, and return the table. Raises `JournalError` for a folder that holds no run."""
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    evaluations = read_evaluations(folder)
    columns = columns_of(evaluations)
    rows = [[str(each.step), each.row, *(each.cells.get(name, NOTHING) for name in columns)] for each in evaluations]
    header = ["step", "evaluated", *columns]
    points = read_points(folder)
    write_text(
        folder / "report.html",
        templates().get_template("recursion.html").render(
            name=folder.name,
            settings=settings_of(config),
            data=", ".join(config["data_paths"]),
            header=header,
            rows=rows,
            curves=Markup(inline(curves(points), "trm")) if any(points.values()) else "",
            puzzles=[{name: Markup(text) for name, text in puzzle.items()} for puzzle in read_puzzles(folder)],
        ),
    )  # fmt: skip
    if not rows:
        return "no evaluation yet"
    return page(aligned([header, *rows]))


def columns_of(evaluations: Sequence[Evaluation]) -> list[str]:
    """The columns of the table: what the last evaluation measured, the most telling first."""
    names = list(dict.fromkeys(name for each in evaluations for name in each.cells))
    order = ("ARC/pass@1", "ARC/pass@2", "exact_accuracy", "accuracy", "q_halt_accuracy", "lm_loss", "missing")
    return sorted((name for name in names if name.split(".")[-1] in order), key=lambda name: order.index(name.split(".")[-1]))


def read_points(folder: Path) -> dict[str, list[tuple[float, float]]]:
    """The points of the page's curves: of `MOST_POINTS` steps, those in which a sequence ended."""
    path = folder / "metrics.jsonl"
    lines = [json.loads(line) for line in whole_lines(path.read_bytes())] if path.is_file() else []
    ended = thinned([line for line in lines if line.get("train/count")], MOST_POINTS)
    return {label: [(line["step"], line[name]) for line in ended if line.get(name) is not None] for label, name in CURVES.items()}


def read_puzzles(folder: Path) -> list[Mapping[str, str]]:
    """Some puzzles of the last evaluation as pictures: what was asked, what the model wrote, what is right."""
    from sttrl.arc.pictures import grid_svg

    path = folder / "puzzles.json"
    puzzles = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    return [
        {"title": puzzle["title"]} | {side: grid_svg(tuple(map(tuple, puzzle[side]))) if puzzle[side] else "" for side in SIDES}
        for puzzle in puzzles
    ]


SIDES: Final = ("input", "prediction", "answer")
"""The pictures of a puzzle."""



def settings_of(config: Mapping[str, Any]) -> dict[str, str]:
    """The settings of a run as the page lists them, those of the architecture after the others."""
    arch = config.get("arch", {})
    plain = {name: value for name, value in config.items() if name != "arch" and value not in (None, [])}
    return {name: json.dumps(value) for name, value in {**plain, **{f"arch.{name}": value for name, value in arch.items()}}.items()}
