"""A dialogue of 16 tokens: each input is a user's turn and each output an assistant's (NVARC, 2025)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sttrl.arc.codecs.base import Alphabet, Unreadable, Written
from sttrl.arc.codecs.drafts import Draft
from sttrl.arc.codecs.rows import DIGITS, checked, digit_rows, digits_of
from sttrl.arc.grids import LONGEST_SIDE, Grid
from sttrl.arc.tasks import Puzzle

TOKEN = re.compile(r"<\|[^|<>]*\|>|user|assistant|[\s\S]")
"""A token of the dialogue."""


@dataclass(frozen=True, kw_only=True)
class Dialogue:
    """Rows of digits in turns of Qwen's chat format, with nothing between the turns."""

    begin: str = "<|im_start|>"
    end: str = "<|im_end|>"
    pad: str = "<|endoftext|>"
    """Fills batches, and stands for any other text in a shrunk vocabulary."""

    def write(self, puzzle: Puzzle) -> Written:
        """The text of a puzzle. Without a query: the demonstrations alone."""
        draft = Draft()
        for number, demo in enumerate(puzzle.demos):
            draft.add(f"{self.begin}user\n")
            draft.add(digit_rows(demo.input), "demo_input", number)
            draft.add(f"{self.end}{self.begin}assistant\n")
            draft.add(self.answer(demo.output), "demo_output", number)
        if puzzle.query is not None:
            draft.add(f"{self.begin}user\n")
            draft.add(digit_rows(puzzle.query), "query")
            draft.add(f"{self.end}{self.begin}assistant\n")
            if puzzle.answer is not None:
                draft.add(self.answer(puzzle.answer), "answer")
        return draft.written()

    def read(self, reply: str, query: Grid | None = None) -> Grid | Unreadable:
        """The digits of each line, without the reply's last token, whatever that is. Rows after the 30th are cut off, as published."""
        tokens = TOKEN.findall(reply)
        if len(tokens) < 2:
            return Unreadable(reason="fewer than two tokens")
        kept = "".join(token for token in tokens[:-1] if len(token) == 1)
        return checked(digits_of(kept.split("\n"))[:LONGEST_SIDE])

    def answer(self, grid: Grid, query: Grid | None = None) -> str:
        """Rows of digits and the end mark."""
        return digit_rows(grid) + self.end

    def alphabet(self) -> Alphabet:
        """The 16 tokens, in the order of the published vocabulary."""
        special = (self.pad, self.begin, self.end)
        return Alphabet(plain=(*DIGITS, "\n", "user", "assistant"), special=special, end=self.end, pad=self.pad)
