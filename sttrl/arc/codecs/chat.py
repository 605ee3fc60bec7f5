"""Digits in the model's own chat template: an instruction, the demonstrations, the query. For models that were not trained on grids."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sttrl.arc.codecs.base import Unreadable, Written
from sttrl.arc.codecs.drafts import Draft
from sttrl.arc.codecs.layouts import Layout, Message, write_turns
from sttrl.arc.codecs.rows import checked, digit_rows, digits_of, until, with_query
from sttrl.arc.grids import Grid
from sttrl.arc.tasks import Puzzle

INSTRUCTION = (
    "One rule turns each input grid below into its output grid. Grids are rows of digits, and each digit is a colour. "
    "Find the rule and apply it to the last input. Reply with the output grid only, as rows of digits.\n\n"
)
ROW = re.compile(r"[0-9](?:[ \t,]*[0-9])*")


@dataclass(frozen=True, kw_only=True)
class Chat:
    """One user message; the answer is the grid alone."""

    layout: Layout

    def messages(self, puzzle: Puzzle) -> tuple[Message, ...]:
        """The user message."""
        demos, query, _ = with_query(puzzle)
        draft = Draft(INSTRUCTION)
        for number, demo in enumerate(demos, start=1):
            draft.add(f"Example {number}\nInput:\n")
            draft.add(digit_rows(demo.input), "demo_input", number - 1)
            draft.add("\nOutput:\n")
            draft.add(f"{digit_rows(demo.output)}\n", "demo_output", number - 1)
            draft.add("\n")
        draft.add("Test\nInput:\n")
        draft.add(digit_rows(query), "query")
        draft.add("\nOutput:")
        return (Message(role="user", written=draft.written()),)

    def write(self, puzzle: Puzzle) -> Written:
        """The text of a puzzle. Without a query the last demonstration becomes query and answer."""
        _, _, answer = with_query(puzzle)
        return write_turns(self.layout, self.messages(puzzle), None if answer is None else self.answer(answer))

    def read(self, reply: str, query: Grid | None = None) -> Grid | Unreadable:
        """The last block of lines of digits; cells may be separated by spaces or commas, and a row may stand in brackets."""
        blocks: list[list[str]] = [[]]
        for line in until(reply, self.layout.end).split("\n"):
            row = line.strip(" \t\r[],|")
            if ROW.fullmatch(row):
                blocks[-1].append(row)
            elif blocks[-1]:
                blocks.append([])
        found = [block for block in blocks if block]
        return checked(digits_of(found[-1])) if found else Unreadable(reason="no line of digits")

    def answer(self, grid: Grid, query: Grid | None = None) -> str:
        """Rows of digits and the end mark."""
        return digit_rows(grid) + self.layout.end
