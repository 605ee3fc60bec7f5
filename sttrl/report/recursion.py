"""The report of a training of a recursive model: a table of its evaluations, and a page with curves and some puzzles."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from markupsafe import Markup

from sttrl.ledger.files import whole_lines, write_text
from sttrl.ledger.folder import CONFIG, KIND
from sttrl.ledger.journal import read_lines
from sttrl.report.figures import curves, inline
from sttrl.report.html import templates
from sttrl.report.layout import NOTHING, aligned, number_or_nothing, with_interval
from sttrl.report.statistics import interval_of_mean, interval_of_share
from sttrl.report.tables import thinned

PLAIN, SHUFFLED = "plain", "shuffled identities"
"""Two rows of an evaluation."""
SIDES: Final = ("input", "prediction", "answer")
"""The pictures of a puzzle."""
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

    ``metrics``: by the original's names; None for a number that is not finite. ``right``: for each set how many sequences are right in
    every cell, of how many. ``shares``: for each metric of a vote the share of each task's outputs. ``scores``: each scoring rule as a
    numerator and a denominator; None without solutions. ``missing``: test outputs without a prediction; None where nothing is submitted.
    ``seconds``: of all rows together.
    """

    step: int
    row: str
    metrics: dict[str, float | None]
    right: dict[str, tuple[int, int]]
    shares: dict[str, list[float]]
    scores: dict[str, tuple[float, float]] | None
    missing: int | None
    seconds: float

    @property
    def cells(self) -> dict[str, str]:
        """The numbers of the table by column."""
        shown = {name: self._shown(name, value) for name, value in self.metrics.items()}
        if self.scores is not None:
            shown |= {rule: f"{hits:g}/{of:g}" for rule, (hits, of) in self.scores.items()}
        return shown | ({} if self.missing is None else {"missing": str(self.missing)})

    def _shown(self, name: str, value: float | None) -> str:
        if value is None:
            return "not finite"
        set_name, _, metric = name.rpartition(".")
        if self.shares.get(name):
            interval = interval_of_mean(self.shares[name])
        else:
            # Variants of one task are not independent of each other, so sequences that vote have no interval.
            interval = interval_of_share(*self.right[set_name]) if metric == "exact_accuracy" and not self.shares else None
        if interval is not None:
            return with_interval(value, interval.low, interval.high)
        return f"{value:.3f}" if metric.endswith(("loss", "steps")) else number_or_nothing(value)


def is_training(folder: Path) -> bool:
    """Whether a run folder is that of a recursive model."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get(KIND) == "trm"


def read_evaluations(folder: Path) -> list[Evaluation]:
    """The evaluations of a run, in order; of one that was repeated after an interruption the last counts."""
    found: dict[tuple[int, str], Evaluation] = {}
    for record in read_lines(folder):
        if record.pop("kind") == "evaluation":
            found[record["step"], record["row"]] = Evaluation(**record)
    return [found[place] for place in sorted(found, key=lambda place: place[0])]


def report_training(folder: Path) -> str:
    """Write report.html, and return the table. `is_training` holds for the folder. Raises `JournalError` if its journal cannot be read."""
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    evaluations = read_evaluations(folder)
    columns = columns_of(evaluations)
    rows = [[str(each.step), each.row, *(each.cells.get(name, NOTHING) for name in columns)] for each in evaluations]
    header = ["step", "evaluated", *columns]
    points, remarks = read_points(folder), remarks_of(config, evaluations, columns)
    write_text(
        folder / "report.html",
        templates().get_template("recursion.html").render(
            name=folder.name,
            settings=settings_of(config),
            data=", ".join(config["data_paths"]),
            header=header,
            rows=rows,
            remarks=remarks,
            curves=Markup(inline(curves(points), "trm")) if any(points.values()) else "",
            puzzles=read_puzzles(folder),
        ),
    )  # fmt: skip
    if not rows:
        return "no evaluation yet"
    return "\n".join([*aligned([header, *rows]), *remarks])


def remarks_of(config: Mapping[str, Any], evaluations: Sequence[Evaluation], columns: Sequence[str]) -> list[str]:
    """What the last evaluation says about memorising, where its controls were switched on."""
    last = {each.row: each for each in evaluations if each.step == evaluations[-1].step}
    remarks = []
    if len(last) > 1 and SHUFFLED in last and columns:
        own, other = (last[row].cells.get(columns[0], NOTHING) for row in (PLAIN, SHUFFLED))
        remarks.append(f"Memorising: {columns[0]} is {own} with each puzzle's own identity, and {other} with that of another puzzle.")
    if config.get("leave_out_test_demos"):
        remarks.append("The demonstrations of the tasks that are evaluated were not trained on.")
    return remarks


def columns_of(evaluations: Sequence[Evaluation]) -> list[str]:
    """The columns of the table: those of a fixed list that any of the evaluations has, in the order of this list."""
    names = list(dict.fromkeys(name for each in evaluations for name in each.cells))
    order = ("ARC/pass@1", "ARC/pass@2", "exact_accuracy", "accuracy", "q_halt_accuracy", "lm_loss", "kaggle", "missing")
    return sorted((name for name in names if name.split(".")[-1] in order), key=lambda name: order.index(name.split(".")[-1]))


def read_points(folder: Path) -> dict[str, list[tuple[float, float]]]:
    """The points of the page's curves: of `MOST_POINTS` steps, those in which a sequence ended."""
    path = folder / "metrics.jsonl"
    lines = [json.loads(line) for line in whole_lines(path.read_bytes())] if path.is_file() else []
    ended = thinned([line for line in lines if line.get("train/count")], MOST_POINTS)
    return {label: [(line["step"], line[name]) for line in ended if line.get(name) is not None] for label, name in CURVES.items()}


def read_puzzles(folder: Path) -> list[dict[str, str | Markup]]:
    """Some puzzles of the last evaluation as pictures: what was asked, what the model wrote, what is right."""
    path = folder / "puzzles.json"
    puzzles = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    return [{"title": puzzle["title"], **{side: drawn(puzzle[side], digits=puzzle["digits"]) for side in SIDES}} for puzzle in puzzles]


def drawn(grid: Sequence[Sequence[int]], *, digits: bool) -> Markup:
    """A grid as a picture: colours, or a table of digits in which 0 is an empty cell."""
    from sttrl.arc.pictures import grid_svg

    if not grid:
        return Markup("none")
    if not digits:
        return Markup(grid_svg(tuple(map(tuple, grid))))
    rows = "".join("<tr>" + "".join(f"<td>{cell or '&nbsp;'}</td>" for cell in row) + "</tr>" for row in grid)
    return Markup(f'<table class="digits">{rows}</table>')


def settings_of(config: Mapping[str, Any]) -> dict[str, str]:
    """The settings of a run as the page lists them, those of the architecture after the others."""
    arch = config.get("arch", {})
    plain = {name: value for name, value in config.items() if name != "arch" and value not in (None, [])}
    return {name: json.dumps(value) for name, value in {**plain, **{f"arch.{name}": value for name, value in arch.items()}}.items()}


def report_adaptation(folders: Sequence[Path]) -> str:
    """Write the page of each run, and return the table of them all: every metric before and after the adaptation."""
    rows, columns = [], list[str]()
    for folder in folders:
        report_training(folder)
        evaluations = [each for each in read_evaluations(folder) if each.row == PLAIN]
        columns = columns or columns_of(evaluations)
        ends = {"before": evaluations[0], "after": evaluations[-1]} if evaluations else {}
        rows += [[folder.name, when, *(each.cells.get(name, NOTHING) for name in columns)] for when, each in ends.items()]
    return "\n".join(aligned([["adapted", "", *columns], *rows]))


def report_demo(runs: Mapping[str, Path], adapted: Mapping[str, Path]) -> str:
    """The table of the demonstration, and some puzzles. ``runs``: the trainings by what they show; ``adapted``: the adaptations by mode."""
    rows = [["", "steps", "right before", "right after"]]
    for words, folder in {**runs, **{f"4 rules never seen: {mode}": folder for mode, folder in adapted.items()}}.items():
        report_training(folder)
        evaluations = [each for each in read_evaluations(folder) if each.row == PLAIN]
        first, last = evaluations[0], evaluations[-1]
        before = first.cells["all.exact_accuracy"] if first.step == 0 else NOTHING
        rows.append([words, str(last.step), before, last.cells["all.exact_accuracy"]])
    pictures = [puzzle_text(folder, words) for words, folder in {**runs, "adapted by full": adapted["full"]}.items()]
    pages = ", ".join(str(folder / "report.html") for folder in (*runs.values(), *adapted.values()))
    return "\n".join([*aligned(rows), "", *pictures, f"pages: {pages}"])


def puzzle_text(folder: Path, words: str) -> str:
    """Two puzzles of a run's last evaluation, as digits: what was asked, what the model wrote, what is right."""
    path = folder / "puzzles.json"
    puzzles = json.loads(path.read_text(encoding="utf-8"))[:2] if path.is_file() else []
    blocks = [f"{words}: asked, written, right"]
    for puzzle in puzzles:
        lines = zip(*(puzzle[side] for side in SIDES), strict=True)
        blocks += ["  " + "   ".join(" ".join(str(cell) if cell else "." for cell in row) for row in line) for line in lines] + [""]
    return "\n".join(blocks)
