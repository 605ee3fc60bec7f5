"""The report of a run. Labels are read only here; all numbers, tables and pages are computed from the journal and the labels."""

from __future__ import annotations

from sttrl.report.comparison import ComparedRun, compare_table
from sttrl.report.labels import NO_GRADES, Grades, Labels, grade, load_labels, read_grades
from sttrl.report.lines import metrics_lines, results_lines
from sttrl.report.summary import summarise
from sttrl.report.tables import before_after_table
from sttrl.report.write import write_report

__all__ = [
    "NO_GRADES",
    "ComparedRun",
    "Grades",
    "Labels",
    "before_after_table",
    "compare_table",
    "grade",
    "load_labels",
    "metrics_lines",
    "read_grades",
    "results_lines",
    "summarise",
    "write_report",
]
