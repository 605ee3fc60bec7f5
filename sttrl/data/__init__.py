"""Data sets: where they come from, and their rows.

Importing this package is quick: pyarrow and datasets are imported when they are needed. Labels are not read here but in
``sttrl.questions.labels``, for the report.
"""

from __future__ import annotations

from sttrl.data.ids import folder_name
from sttrl.data.registry import DATASETS, HubSource, NamedDataset
from sttrl.data.sources import SourceSpec, read_table
from sttrl.data.table import BuiltProblems, OnBadRow, SkippedRow, Table, questions
from sttrl.data.tokens import Tokenizer

__all__ = [
    "DATASETS",
    "BuiltProblems",
    "HubSource",
    "NamedDataset",
    "OnBadRow",
    "SkippedRow",
    "SourceSpec",
    "Table",
    "Tokenizer",
    "folder_name",
    "questions",
    "read_table",
]
