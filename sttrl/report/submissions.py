"""Submissions in detail: what marc's evaluation prints, by level, and two submissions compared test output by test output."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Final

from sttrl.arc.grids import Grid
from sttrl.arc.score_files import read_answers, read_both, read_levels, score_text
from sttrl.arc.scores import Ratio, Solutions, hits_of, marc_evaluate
from sttrl.arc.submission import Submission
from sttrl.errors import DataError
from sttrl.report.layout import aligned, broken, decimal, p_value_or_nothing, page, with_interval
from sttrl.report.statistics import interval_of_gain, p_value_of_gain

NO_LEVEL: Final = "no level"
PER_PREDICTION: Final = (
    "marc's numbers for each prediction divide by the {given} of {asked} outputs that were submitted: leaving hard ones out raises them. "
    "Competition Accuracy divides by all tasks."
)


def submission_text(
    submission: Path, solutions: Path, *, detail: bool = False, levels: Path | None = None, other: Path | None = None
) -> str:
    """The scores of a submission. ``detail``: marc's numbers too. ``levels``: these by level. ``other``: a submission to compare with.

    Raises `DataError` for the first thing that is wrong with a file.
    """
    given, truths = read_both(submission, solutions)
    parts = [score_text(given, truths)]
    level_of = None if levels is None else read_levels(levels)
    if levels is not None and level_of is not None and level_of.keys().isdisjoint(truths):
        raise DataError(f"{levels} has none of the tasks of {solutions}.", "Give the levels of the same data set.")
    if detail or level_of is not None:
        parts.append(marc_text(given, truths, level_of))
    if other is not None:
        parts.append(comparison_text(submission, given, other, read_answers(other, truths), truths))
    return "\n\n".join(parts)


def marc_text(given: Submission, truths: Solutions, level_of: Mapping[str, str] | None) -> str:
    """marc's numbers of all tasks, and of the tasks of each level in the order of the levels' file."""
    groups = {"all": truths, **({} if level_of is None else by_level(truths, level_of))}
    found = {name: marc_evaluate(given, group) for name, group in groups.items()}
    header = ("", "tasks", *found["all"])
    rows = [(name, str(len(groups[name])), *map(ratio_cell, ratios.values())) for name, ratios in found.items()]
    counts = {"given": sum(len(given.get(id, ())) for id in truths), "asked": sum(map(len, truths.values()))}
    return page([*aligned([header, *rows]), *broken(PER_PREDICTION.format(**counts))])


def by_level(truths: Solutions, level_of: Mapping[str, str]) -> dict[str, Solutions]:
    """The solutions of the tasks of each level, and of those without one; levels without tasks are left out."""
    names = (*(f"level {level}" for level in level_of.values()), NO_LEVEL)
    groups: dict[str, dict[str, tuple[Grid, ...]]] = {name: {} for name in names}
    for id, grids in truths.items():
        groups[f"level {level_of[id]}" if id in level_of else NO_LEVEL][id] = grids
    return {name: group for name, group in groups.items() if group}


def ratio_cell(ratio: Ratio) -> str:
    """A score with its fraction: ``.571 4/7``."""
    return f"{decimal(ratio.value, 3)} {ratio.numerator:.4g}/{ratio.denominator:g}"


def comparison_text(first: Path, given: Submission, second: Path, other: Submission, truths: Solutions) -> str:
    """Two submissions, paired: outputs that one has right and the other has not, and the differences of the scores of tasks."""
    hit_1, hit_2 = hits_of(given, truths), hits_of(other, truths)
    pairs = Counter(pair for id in truths for pair in zip(hit_1[id], hit_2[id], strict=True))
    share_1, share_2 = ([fmean(hits[id]) for id in truths] for hits in (hit_1, hit_2))
    whole_1, whole_2 = ([float(all(hits[id])) for id in truths] for hits in (hit_1, hit_2))
    rows = [("A less B, paired by task", "difference", "p")]
    for name, a_P, b_P in (("per_task_mean", share_1, share_2), ("all_or_nothing", whole_1, whole_2)):
        interval = interval_of_gain(b_P, a_P)
        assert interval is not None, "solutions have tasks"
        difference = with_interval(fmean(a_P) - fmean(b_P), interval.low, interval.high, signed=True)
        rows.append((name, difference, p_value_or_nothing(p_value_of_gain(b_P, a_P))))
    return page(
        [
            f"A  {first}",
            f"B  {second}",
            f"test outputs: both right {pairs[True, True]}, only A {pairs[True, False]}, only B {pairs[False, True]}, "
            f"neither {pairs[False, False]}",
            *aligned(rows),
        ]
    )
