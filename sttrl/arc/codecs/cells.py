"""One token a cell: a line of letters, then ``I<input>\\n+/-=O<output>\\n<end>`` for each pair (ARChitects 2024, Product of Experts).

Franzen et al., "The LLM ARChitect", 2024; Franzen et al., "Product of Experts with LLMs" (arXiv:2505.07859).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sttrl.arc.codecs.base import Alphabet, Unreadable, Written
from sttrl.arc.codecs.drafts import Draft
from sttrl.arc.codecs.rows import DIGITS, checked, digit_rows, digits_of
from sttrl.arc.grids import LONGEST_SIDE, Grid
from sttrl.arc.tasks import Pair, Puzzle


@dataclass(frozen=True, kw_only=True)
class Cells:
    """The format of ARChitects and Product of Experts; with ``</s>`` and ``too_many_rows="cut"`` that of their Kaggle notebook of 2024."""

    begin: str = ""
    """The special token that begins a text; none by default."""
    preprompt: str = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghjklmnpqrstuvwxyz"
    """Letters that stand before the first demonstration; a shrunk vocabulary has them for it."""
    query_begin: str = "I"
    reply_begin: str = "\n+/-=O"
    grid_end: str = "\n"
    end: str = "<|end_of_text|>"
    """The special token that ends an output, usually the model's end of text."""
    row_separator: str = "\n"
    too_many_rows: Literal["reject", "cut"] = "reject"
    """What `read` does with a reply of more than 30 rows."""

    def write(self, puzzle: Puzzle) -> Written:
        """The text of a puzzle. Without a query: the demonstrations alone."""
        draft = Draft(self.begin + self.preprompt)
        for number, demo in enumerate(puzzle.demos):
            self._add_demo(draft, demo, number)
        if puzzle.query is not None:
            draft.add(self.query_begin)
            draft.add(digit_rows(puzzle.query, self.row_separator), "query")
            draft.add(self.reply_begin)
            if puzzle.answer is not None:
                draft.add(self.answer(puzzle.answer), "answer")
        return draft.written()

    def read(self, reply: str, query: Grid | None = None) -> Grid | Unreadable:
        """The digits of each line, whatever else is on it. Digits after the end mark count, as in the published reader."""
        rows = digits_of(reply.replace(self.end, "").split(self.row_separator))
        return checked(rows[:LONGEST_SIDE] if self.too_many_rows == "cut" else rows)

    def answer(self, grid: Grid, query: Grid | None = None) -> str:
        """Rows of digits, a line feed and the end mark."""
        return digit_rows(grid, self.row_separator) + self.grid_end + self.end

    def alphabet(self) -> Alphabet:
        """Every character of the format, digits first, and the marks of begin and end. Padding is the model's affair."""
        used = DIGITS + self.preprompt + self.query_begin + self.reply_begin + self.grid_end + self.row_separator
        special = (self.begin, self.end) if self.begin else (self.end,)
        return Alphabet(plain=tuple(dict.fromkeys(used)), special=special, end=self.end)

    def _add_demo(self, draft: Draft, demo: Pair, number: int) -> None:
        draft.add(self.query_begin)
        draft.add(digit_rows(demo.input, self.row_separator), "demo_input", number)
        draft.add(self.reply_begin)
        draft.add(self.answer(demo.output), "demo_output", number)
