"""A data set that was read, and the questions in it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Literal

from sttrl.data.registry import NamedDataset
from sttrl.errors import DataRowError, UsageError
from sttrl.types import AnswerKind, Problem

Turn = tuple[Literal["user", "assistant"], str]
"""An earlier message of a conversation: who wrote it, and its text."""
OnBadRow = Literal["stop", "skip"]
"""What a bad row does: ``stop`` raises it, ``skip`` leaves it out and reports it."""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns that are used. ``answer`` None: there are no labels. ``id`` None: rows are numbered; ``id_note`` may say why.

    ``question``: the columns of the question, joined in this order; one that a row lacks is left out.
    ``needed``: the one that every row must have; None: a row needs any one of them. ``options``: one column of lists, or a column
    for each option. ``unused``: the other columns of the file.
    """

    question: tuple[str, ...]
    needed: str | None
    answer: str | None
    id: str | None
    id_note: str | None = None
    options: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of a choice question in the order of the file. ``names``: what the file calls each of them, such as A or 1.

    Both are empty if the file has the options as one text.
    """

    texts: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Row:
    """A valid row. ``row``: its 1-based number in the file. ``text``: the whole question, including its options. ``system``: its own
    system message. ``earlier``: the conversation before the question. ``answer``: the cell as it was read. The repr contains none of
    these texts."""

    id: str
    index: int
    row: int
    text: str = field(repr=False)
    answer: object = field(repr=False)
    options: Options | None = field(default=None, repr=False)
    system: str | None = field(default=None, repr=False)
    earlier: tuple[Turn, ...] = field(default=(), repr=False)

    @property
    def option_count(self) -> int | None:
        """How many options the row has; None if that is not known."""
        return len(self.options.texts) or None if self.options is not None else None


@dataclass(frozen=True, kw_only=True)
class Question:
    """One row of a data set without its label."""

    id: str
    index: int
    text: str
    kind: AnswerKind
    row: int
    """1-based row in the file it came from."""
    option_count: int | None = None
    """How many options a choice question has, lettered from A; None: not known."""
    system: str | None = None
    """The row's own system message, if it has one."""
    earlier: tuple[Turn, ...] = ()
    """The conversation before the question."""


@dataclass(frozen=True, kw_only=True)
class SkippedRow:
    """A bad row that was left out, and why. Its content is not quoted. ``row`` None: ``field`` says which it is."""

    file: str
    row: int | None
    field: str
    reason: str

    def __str__(self) -> str:
        place = self.field if self.row is None else f"row {self.row}, field {self.field!r}"
        return f"{self.file}, {place}: {self.reason}"

    @classmethod
    def of(cls, error: DataRowError) -> SkippedRow:
        """The record of an error."""
        return cls(file=error.file, row=error.line, field=error.field, reason=error.problem)


@dataclass(frozen=True, kw_only=True)
class Table:
    """A data set that was read. ``source``: the file, the hub id with its revision, or ``generated``; ``revision``: the hub's commit."""

    dataset: NamedDataset
    source: str
    columns: Columns
    rows: tuple[Row, ...]
    skipped: tuple[SkippedRow, ...] = ()
    revision: str | None = None


@dataclass(frozen=True, kw_only=True)
class BuiltProblems:
    """The problems of a run, and the rows that were left out. ``response_tokens``: the most tokens of a response that is asked for.

    ``remarks``: what the user should know of the problems, a line each. ``end_T``: tokens that end a response besides the model's own.
    """

    problems: tuple[Problem, ...]
    skipped: tuple[SkippedRow, ...]
    response_tokens: int
    remarks: tuple[str, ...] = ()
    end_T: tuple[int, ...] = ()


def questions(table: Table, ids: Iterable[str] | None = None, limit: int | None = None) -> tuple[Question, ...]:
    """Return the questions without their labels, in the order of the table; ``index`` is the place in the table.

    ``ids``: only these. ``limit``: then only the first ones, this many. Raises UsageError for an unknown id.
    """
    rows = table.rows if ids is None else _chosen(table, tuple(ids))
    if limit is not None:
        if limit < 1:
            raise UsageError(f"--limit {limit} leaves no question.", "Give 1 or more.")
        rows = rows[:limit]
    return tuple(_question(row, table.dataset.kind) for row in rows)


def _question(row: Row, kind: AnswerKind) -> Question:
    return Question(
        id=row.id,
        index=row.index,
        text=row.text,
        kind=kind,
        row=row.row,
        option_count=row.option_count,
        system=row.system,
        earlier=row.earlier,
    )


def _chosen(table: Table, ids: tuple[str, ...]) -> tuple[Row, ...]:
    known = {row.id: row for row in table.rows}
    unknown = [wanted for wanted in ids if wanted not in known]
    if unknown or not ids:
        close = get_close_matches(unknown[0], known, n=3) if unknown else []
        examples = ", ".join((close or list(known))[:5])
        what = f"--ids: no question has the id {', '.join(map(repr, unknown[:5]))}." if unknown else "--ids names no question."
        raise UsageError(what, f"{table.dataset.name} has {len(known)}, such as {examples}.")
    wanted_ids = frozenset(ids)
    return tuple(row for row in table.rows if row.id in wanted_ids)
