"""Finds the columns of the question, the answer and the id: those that flags name, or those with a usual name."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from string import ascii_uppercase
from typing import Any

from sttrl.data.ids import are_unique_ids
from sttrl.data.layouts import LayoutError, options_of
from sttrl.data.table import Columns
from sttrl.errors import DataError, UsageError

QUESTION_COLUMNS = ("prompt", "problem", "question", "question_stem", "instruction", "query", "input")
BEFORE_THE_QUESTION = ("body", "context", "passage", "article")
"""Columns of text that belong before the question: SVAMP's Body, OlympiadBench's context."""
AFTER_THE_QUESTION = {"instruction": "input"}
"""Question column -> column of text that belongs after it, as in Alpaca's rows."""
OPTION_COLUMNS = ("options", "choices")
FEWEST_LETTERS = 3
"""Columns named A, B, C and so on are options if there are at least this many."""
ANSWER_COLUMNS = (
    "answer", "final_answer", "ground_truth", "target", "label", "answerkey", "correct", "reward_model", "output", "solution",
)  # fmt: skip
ID_COLUMNS = ("unique_id", "id", "question_id", "problem_id", "uid", "record id")
UNIQUE_ID = "unique_id"
"""A repeated id is an error in a column of this name, as it is in a column that --id_column names."""

Rows = Sequence[Mapping[str, object]]


def find_columns(
    rows: Sequence[object],
    *,
    file: str,
    question_column: tuple[str, ...] = (),
    answer_column: str | None = None,
    id_column: str | None = None,
) -> Columns:
    """Return the columns to use. Of several columns with a usual name, the one that most rows have is used.

    ``question_column`` is used as given. If it is empty, the question is a column with a usual name and the usual columns that belong
    before or after it. Raises UsageError for a named column that no row has, and DataError if no column can be the question.
    If no row has any column, `parse_rows` reports each row.
    """
    readable = [row for row in rows if isinstance(row, Mapping)]
    present = Counter(str(key) for row in readable for key in row)
    if not present:
        question_column = question_column or QUESTION_COLUMNS[:1]
        return Columns(question=question_column, needed=question_column[0], answer=answer_column, id=id_column)
    for flag, name in (*(("question", name) for name in question_column), ("answer", answer_column), ("id", id_column)):
        if name is not None and name not in present:
            raise UsageError(f"--{flag}_column {name!r}: no row of {file} has it.", f"Columns: {listed(present)}.")
    if answer_column in question_column:
        raise UsageError(f"--question_column {answer_column!r} is the answer's column too.", "Give each its own column.")
    question, needed = _question(readable, present, question_column)
    if not question:
        raise DataError(f"{file} has no column that can be the question.", f"Give --question_column. Columns: {listed(present)}.")
    options = _options(readable, [name for name in present if name not in (*question, answer_column)])
    answer = answer_column or _usual({name: present[name] for name in present if name not in (*question, *options)}, ANSWER_COLUMNS)
    found_id, note = (id_column, None) if id_column is not None else _usual_id(rows, present)
    unused = tuple(sorted(present.keys() - {*question, *options, answer, found_id}))
    return Columns(question=question, needed=needed, answer=answer, id=found_id, id_note=note, options=options, unused=unused)


def _question(rows: Rows, present: Mapping[str, int], named: tuple[str, ...]) -> tuple[tuple[str, ...], str | None]:
    """The parts of a question in order, and the part that every row must have."""
    if named:
        return named, named[0] if len(named) == 1 else None
    main = _usual(present, QUESTION_COLUMNS)
    if main is None:
        return (), None
    before = [_usual(present, (name,)) for name in BEFORE_THE_QUESTION]
    after = [_usual(present, (AFTER_THE_QUESTION[main.lower()],))] if main.lower() in AFTER_THE_QUESTION else []
    return (*_of_text(rows, before), main, *_of_text(rows, after)), main


def _of_text(rows: Rows, names: Sequence[str | None]) -> list[str]:
    """Those columns that hold text in at least one row, and nothing else in any row."""
    cells = {name: [row[name] for row in rows if row.get(name) is not None] for name in names if name is not None}
    return [name for name, found in cells.items() if found and all(isinstance(cell, str) for cell in found)]


def _options(rows: Rows, names: Sequence[str]) -> tuple[str, ...]:
    """The column of the options, if at least half of its cells can be read as options; or columns A, B, C and so on."""
    for name in (name for usual in OPTION_COLUMNS for name in names if name.lower() == usual):
        filled = [row for row in rows if row.get(name)]
        if filled and 2 * sum(_has_options(row, name) for row in filled) >= len(filled):
            return (name,)
    letters = tuple(itertools.takewhile(names.__contains__, ascii_uppercase))
    return letters if len(letters) >= FEWEST_LETTERS else ()


def _has_options(row: Mapping[str, object], name: str) -> bool:
    try:
        return options_of(row, (name,))[0] is not None
    except LayoutError:
        return False


def _usual(present: Mapping[str, int], names: Sequence[str]) -> str | None:
    found = [column for column in present if column.lower() in names]
    return min(found, key=lambda column: (-present[column], names.index(column.lower()), column), default=None)


def _usual_id(rows: Sequence[object], present: Mapping[str, int]) -> tuple[str | None, str | None]:
    name = _usual(present, ID_COLUMNS)
    if name is None or name.lower() == UNIQUE_ID:
        return name, None
    cells: list[Any] = [row.get(name) for row in rows if isinstance(row, Mapping)]
    return (name, None) if are_unique_ids(cells) else (None, f"column {name!r} is not a different id in every row")


def listed(columns: Iterable[str]) -> str:
    """The names of columns, for a message."""
    names = [repr(name[:40]) for name in sorted(columns)]
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
