"""Grids as numpy prints them, demonstrations in the system message (marc; Akyürek et al., arXiv:2411.07279)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from sttrl.arc.codecs.base import Unreadable, Written
from sttrl.arc.codecs.drafts import Draft
from sttrl.arc.codecs.layouts import Layout, Llama3, Message, write_turns
from sttrl.arc.codecs.rows import checked, until, with_query
from sttrl.arc.grids import Grid, shape
from sttrl.arc.tasks import Puzzle
from sttrl.errors import DataError

INSTRUCTION = (
    "Figure out the underlying transformation in the following examples and apply it to the test case. "
    "Here are some examples from this transformation, your answer must follow the format.\n"
)
CELL = re.compile(r"-?[0-9]+")


def numpy_text(rows: Sequence[Sequence[int]]) -> str:
    """Rows as ``str`` of a numpy array has them, but never wrapped or padded."""
    return "[" + "\n ".join(f"[{' '.join(map(str, row))}]" for row in rows) + "]"


@dataclass(frozen=True, kw_only=True)
class NumpyText:
    """marc's formats: ``--new_format``; without a footer the default format; with ``difference`` the diff format."""

    layout: Layout = field(default_factory=Llama3)
    footer: str = "#"
    """What ends a grid."""
    difference: bool = False
    """Outputs are written as output minus input. `write` raises `DataError` for a puzzle whose outputs have other shapes."""

    def messages(self, puzzle: Puzzle) -> tuple[Message, ...]:
        """System and user message."""
        demos, query, _ = with_query(puzzle)
        draft = Draft(f"{INSTRUCTION}The input-{'diff' if self.difference else 'output'} grids are provided as python arrays:\n")
        for number, demo in enumerate(demos):
            draft.add(numpy_text(demo.input), "demo_input", number)
            draft.add(" ->")
            draft.add(f" {self.answer_content(demo.output, demo.input)}\n", "demo_output", number)
        user = Draft()
        user.add(numpy_text(query), "query")
        user.add(" -> ")
        return Message(role="system", written=draft.written()), Message(role="user", written=user.written())

    def write(self, puzzle: Puzzle) -> Written:
        """The text of a puzzle. Without a query the last demonstration becomes query and answer."""
        _, query, answer = with_query(puzzle)
        return write_turns(self.layout, self.messages(puzzle), None if answer is None else self.answer(answer, query))

    def read(self, reply: str, query: Grid | None = None) -> Grid | Unreadable:
        """The rows of a reply that holds a grid and nothing else; brackets and the footer may be missing."""
        text = until(reply, self.layout.end).strip().removesuffix(self.footer).strip()
        rows = _signed_rows(text.removeprefix("+")) if self.difference else _rows(text)
        if isinstance(rows, Unreadable) or not self.difference:
            return rows if isinstance(rows, Unreadable) else checked(rows)
        if query is None:
            return Unreadable(reason="a difference, and no query to add it to")
        if [len(row) for row in rows] != [len(row) for row in query]:
            return Unreadable(reason="the difference has another shape than the query")
        return checked([[cell + base for cell, base in zip(*pair, strict=True)] for pair in zip(rows, query, strict=True)])

    def answer(self, grid: Grid, query: Grid | None = None) -> str:
        """The grid, the footer and the end mark. Raises `DataError` if a difference is wanted and there is none."""
        return self.answer_content(grid, query).strip() + self.layout.end

    def answer_content(self, grid: Grid, query: Grid | None = None) -> str:
        """The assistant's message. Raises `DataError` if a difference is wanted and there is none."""
        if not self.difference:
            return numpy_text(grid) + self.footer
        if query is None or shape(grid) != shape(query):
            raise DataError("The codec numpy_diff needs outputs of their inputs' shapes.", "Leave such tasks out, or use --codec numpy.")
        pairs = (zip(*pair, strict=True) for pair in zip(grid, query, strict=True))
        return f" + {numpy_text([[cell - base for cell, base in pair] for pair in pairs])}{self.footer}"


def _rows(text: str) -> list[list[int]] | Unreadable:
    """A line is a row."""
    lines = text.replace("[", "").replace("]", "").split("\n")
    return _cells([line for line in lines if text])


def _signed_rows(text: str) -> list[list[int]] | Unreadable:
    """A bracket ends a row, because numpy wraps long rows with minus signs."""
    lines = re.sub(r"[\[\s]+", " ", text).split("]")
    return _cells([line for line in lines if line.strip()])


def _cells(lines: Sequence[str]) -> list[list[int]] | Unreadable:
    for line in lines:
        if strange := next((word for word in line.split() if not CELL.fullmatch(word)), None):
            return Unreadable(reason=f"{strange[:20]!r} is no cell")
    return [[int(word) for word in line.split()] for line in lines]
