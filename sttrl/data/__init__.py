"""Data sets: where they come from, their rows, and the prompts made of them.

Light to import: pyarrow, datasets and a tokenizer are reached when needed. The labels have a door of their own,
``sttrl.data.labels``, which sttrl.report alone goes through.
"""

from __future__ import annotations

from sttrl.data.check import describe
from sttrl.data.ids import folder_name
from sttrl.data.prompts import BuiltProblems, build_problem, build_problems
from sttrl.data.registry import DATASETS, NamedDataset
from sttrl.data.sources import SourceSpec, read_table
from sttrl.data.table import OnBadRow, SkippedRow, Table, questions
from sttrl.data.tokens import Tokenizer

__all__ = [
    "DATASETS",
    "BuiltProblems",
    "NamedDataset",
    "OnBadRow",
    "SkippedRow",
    "SourceSpec",
    "Table",
    "Tokenizer",
    "build_problem",
    "build_problems",
    "describe",
    "folder_name",
    "questions",
    "read_table",
]
