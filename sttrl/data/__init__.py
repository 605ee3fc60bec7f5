"""Data sets: where they come from, and their rows.

Light to import: pyarrow and datasets are reached when needed. The labels of text questions have a door of their own,
``sttrl.questions.labels``, which sttrl.report alone goes through.
"""

from __future__ import annotations

from sttrl.data.ids import folder_name
from sttrl.data.registry import DATASETS, NamedDataset
from sttrl.data.sources import SourceSpec, read_table
from sttrl.data.table import OnBadRow, SkippedRow, Table, questions
from sttrl.data.tokens import Tokenizer

__all__ = [
    "DATASETS",
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
