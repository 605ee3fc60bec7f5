"""The pictures of a sweep: every row's gain with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from sttrl.ledger.files import write_bytes
from sttrl.report.figures import COLOUR, PICTURE_FORMATS, drawn
from sttrl.sweep.rows import SweepRow

_LONGEST_LABEL: Final = 70


def write_pictures(folder: Path, name: str, rows: Sequence[SweepRow]) -> None:
    """sweep.png and sweep.svg, the same bytes for the same numbers. Raises `JournalError` where a file cannot be written."""
    figure = _figure(name, [row for row in rows if row.score.gain_mean is not None])
    for file_format in PICTURE_FORMATS:
        write_bytes(folder / f"sweep.{file_format}", drawn(figure, file_format, name))


def _figure(name: str, rows: Sequence[SweepRow]) -> Any:
    """If rows differ in one number, the gain over that number, else a line for each row. Rows without a gain are left out."""
    from matplotlib.figure import Figure

    values = [value for row in rows for value in row.settings.values() if len(row.settings) == 1]
    upright = len(values) > 1 and all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    figure = Figure(figsize=(8, 5 if upright else 1.6 + 0.36 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    seeds = "; faint: single seeds" if any(len(row.by_seed) > 1 for row in rows) else ""
    metric = rows[0].score.metric if rows else ""
    title = f"gain in {metric}, 95 % interval by question{seeds}" if rows else "no run has a gain"
    axes.set_title(f"{name}: {title}", fontsize=10, parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)
    if upright:
        _draw_line(axes, dict(sorted(zip(values, rows, strict=True), key=lambda pair: pair[0])))
    else:
        _draw_rows(axes, rows)
    return figure


def _draw_line(axes: Any, row_of: Mapping[float, SweepRow]) -> None:
    numbers = list(row_of)
    axes.axhline(0, color="0.4", linewidth=1)
    axes.plot(numbers, [row.score.gain_mean for row in row_of.values()], color=COLOUR)
    for number, row in row_of.items():
        gain, reach, singles = _drawn(row)
        axes.errorbar(number, gain, yerr=reach, fmt="o", color=COLOUR, capsize=3)
        axes.plot([number] * len(singles), singles, "o", color=COLOUR, alpha=0.3, markersize=4)
    axes.set_xscale("log" if numbers[0] > 0 and numbers[-1] / numbers[0] >= 10 else "linear")
    axes.set_xticks(numbers, labels=[f"{number:g}" for number in numbers])
    axes.set_xticks([], minor=True)
    first = row_of[numbers[0]]
    axes.set(xlabel=next(iter(first.settings)), ylabel=f"gain in {first.score.metric}")


def _draw_rows(axes: Any, rows: Sequence[SweepRow]) -> None:
    axes.axvline(0, color="0.4", linewidth=1)
    for place, row in enumerate(rows):
        gain, reach, singles = _drawn(row)
        axes.errorbar(gain, place, xerr=reach, fmt="o", color=COLOUR, capsize=3)
        axes.plot(singles, [place] * len(singles), "o", color=COLOUR, alpha=0.3, markersize=4)
    axes.set_yticks(range(len(rows)), labels=[row.label[:_LONGEST_LABEL] for row in rows], parse_math=False)
    axes.set(ylim=(max(1, len(rows)) - 0.5, -0.5), xlabel=f"gain in {rows[0].score.metric}" if rows else "gain")


def _drawn(row: SweepRow) -> tuple[float, list[list[float]], list[float]]:
    """A row's gain, the distances from it to both ends of its interval, and the gain of each seed if there are several."""
    gain, low, high = row.score.gain_mean, row.score.gain_low, row.score.gain_high
    assert gain is not None and low is not None and high is not None, "only rows with a gain are drawn"
    singles = [score.gain_mean for score in row.by_seed if score.gain_mean is not None]
    return gain, [[max(0.0, gain - low)], [max(0.0, high - gain)]], singles if len(row.by_seed) > 1 else []
