"""Which columns hold the question, the answer and the id: those named by flags, or those with a usual name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sttrl.data.ids import are_unique_ids
from sttrl.data.table import Columns
from sttrl.errors import DataError, UsageError

QUESTION_COLUMNS = ("prompt", "problem", "question", "query", "input")
ANSWER_COLUMNS = ("answer", "final_answer", "ground_truth", "target", "label", "reward_model", "solution")
ID_COLUMNS = ("unique_id", "id", "question_id", "problem_id", "uid", "record id")
UNIQUE_ID = "unique_id"
"""A column of this name, like one named by --id_column, promises that no id is there twice."""


def find_columns(
    rows: Sequence[object],
    *,
    file: str,
    question_column: str | None = None,
    answer_column: str | None = None,
    id_column: str | None = None,
) -> Columns:
    """Return the columns to use; a usual name that more rows have goes before one that fewer have.

    Raises UsageError for a named column that no row has, DataError where no column can be the question.
    Where no row has any column, the reader of rows says what is wrong with each.
    """
    present = Counter(str(key) for row in rows if isinstance(row, Mapping) for key in row)
    if not present:
        return Columns(question=question_column or QUESTION_COLUMNS[0], answer=answer_column, id=id_column)
    for flag, name in (("question", question_column), ("answer", answer_column), ("id", id_column)):
        if name is not None and name not in present:
            raise UsageError(f"--{flag}_column {name!r}: no row of {file} has it.", f"Columns: {_listed(present)}.")
    question = question_column or _usual(present, QUESTION_COLUMNS)
    if question is None:
        raise DataError(f"{file} has no column that can be the question.", f"Give --question_column. Columns: {_listed(present)}.")
    found_id, note = (id_column, None) if id_column is not None else _usual_id(rows, present)
    return Columns(question=question, answer=answer_column or _usual(present, ANSWER_COLUMNS), id=found_id, id_note=note)


def _usual(present: Mapping[str, int], names: Sequence[str]) -> str | None:
    found = [column for column in present if column.lower() in names]
    return min(found, key=lambda column: (-present[column], names.index(column.lower()), column), default=None)


def _usual_id(rows: Sequence[object], present: Mapping[str, int]) -> tuple[str | None, str | None]:
    name = _usual(present, ID_COLUMNS)
    if name is None or name.lower() == UNIQUE_ID:
        return name, None
    cells: list[Any] = [row.get(name) for row in rows if isinstance(row, Mapping)]
    return (name, None) if are_unique_ids(cells) else (None, f"column {name!r} is not a different id in every row")


def _listed(present: Mapping[str, int]) -> str:
    names = [repr(name[:40]) for name in sorted(present)]
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
