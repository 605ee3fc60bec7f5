"""From raw rows to typed rows. A bad row raises a DataRowError that names it, or is skipped and counted."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from sttrl.data.cells import type_name
from sttrl.data.ids import MAX_ID_CHARS, id_text
from sttrl.data.layouts import LayoutError, options_of, question_of, with_options
from sttrl.data.table import Columns, OnBadRow, Row, SkippedRow
from sttrl.errors import DataRowError

_SURROGATE = re.compile("[\ud800-\udfff]")

MAX_QUESTION_CHARS = 1_000_000
"""A longer question is an error in the file."""


@dataclass(frozen=True, kw_only=True)
class RawRow:
    """A row as it was read. ``row``: its 1-based number in the file. ``value``: of any type."""

    row: int
    value: object


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """The value of a row that could not be parsed, with the reason."""

    field: str
    reason: str


def parse_rows(
    raw_rows: Sequence[RawRow], columns: Columns, *, file: str, name: str, on_bad_row: OnBadRow = "stop"
) -> tuple[tuple[Row, ...], tuple[SkippedRow, ...]]:
    """Return the good rows and the skipped ones. Raises DataRowError for the first bad row unless told to skip."""
    rows: list[Row] = []
    skipped: list[SkippedRow] = []
    seen: set[str] = set()
    for raw in raw_rows:
        try:
            row = _parse_row(raw, columns, file=file, name=name, index=len(rows), seen=seen)
        except DataRowError as error:
            if on_bad_row == "stop":
                raise
            skipped.append(SkippedRow.of(error))
        else:
            seen.add(row.id)
            rows.append(row)
    return tuple(rows), tuple(skipped)


def text_problem(text: str) -> str | None:
    """Why a text cannot be used in a prompt or written to a file; None if it can."""
    if not text.strip():
        return "is empty"
    if len(text) > MAX_QUESTION_CHARS:
        return f"has {len(text)} characters, more than {MAX_QUESTION_CHARS}"
    if "\0" in text:
        return "holds a NUL character"
    if _SURROGATE.search(text):
        return "holds half a surrogate pair, which is no character"
    return None


def _parse_row(raw: RawRow, columns: Columns, *, file: str, name: str, index: int, seen: Set[str]) -> Row:
    value = raw.value
    if isinstance(value, Unreadable):
        raise _bad(file, raw, value.field, value.reason)
    if not isinstance(value, Mapping):
        raise _bad(file, raw, "row", f"is {type_name(value)}, not an object")
    try:
        asked = question_of(value, columns)
        options, lines = options_of(value, columns.options)
    except LayoutError as error:
        raise _bad(file, raw, error.field, error.problem) from error
    text = with_options(asked.text, lines, options)
    others = (asked.system, *(content for _, content in asked.earlier))
    problem = text_problem(text) or next((found for other in others if other and (found := text_problem(other))), None)
    if problem is not None:
        raise _bad(file, raw, columns.needed or columns.question[0], problem)
    row_id = _row_id(raw, value, columns, file=file, name=name, seen=seen)
    answer = None if columns.answer is None else value.get(columns.answer)
    return Row(id=row_id, index=index, row=raw.row, text=text, answer=answer, options=options, system=asked.system, earlier=asked.earlier)


def _row_id(raw: RawRow, value: Mapping[str, object], columns: Columns, *, file: str, name: str, seen: Set[str]) -> str:
    if columns.id is None:
        return f"{name}-{raw.row - 1}"
    row_id = id_text(value.get(columns.id))
    if row_id is None:
        raise _bad(file, raw, columns.id, f"is no id (a whole number, or printable text of at most {MAX_ID_CHARS} characters)")
    if row_id in seen:
        raise _bad(file, raw, columns.id, "is the id of an earlier row too")
    return row_id


def _bad(file: str, raw: RawRow, field: str, problem: str) -> DataRowError:
    return DataRowError(file, raw.row, field, problem, "Correct the row, or give --on_bad_row skip to leave such rows out.")
