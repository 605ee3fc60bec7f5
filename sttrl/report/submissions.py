"""Two submissions compared, test output by test output and task by task."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from statistics import fmean

from sttrl.arc.scores import Solutions, hits_of
from sttrl.arc.submission import Submission
from sttrl.report.layout import aligned, p_value_or_nothing, with_interval
from sttrl.report.statistics import interval_of_gain, p_value_of_gain


def comparison_text(first: Path, given: Submission, second: Path, other: Submission, truths: Solutions) -> str:
    """Outputs that one submission has right and the other has not, and the differences of the scores of tasks, paired."""
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
    counts = {"both right": (True, True), "only A": (True, False), "only B": (False, True), "neither": (False, False)}
    outputs = ", ".join(f"{name} {pairs[pair]}" for name, pair in counts.items())
    return "\n".join((f"A  {first}", f"B  {second}", f"test outputs: {outputs}", *aligned(rows)))
