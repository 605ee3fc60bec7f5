"""Colours as words (BARC; Li et al., arXiv:2411.02272)."""

from __future__ import annotations

from dataclasses import dataclass, field

from sttrl.arc.codecs.base import Unreadable, Written
from sttrl.arc.codecs.drafts import Draft
from sttrl.arc.codecs.layouts import Layout, Llama3, Message, write_turns
from sttrl.arc.codecs.rows import checked, until, with_query
from sttrl.arc.grids import Grid
from sttrl.arc.tasks import Puzzle

WORDS = ("Black", "Blue", "Red", "Green", "Yellow", "Gray", "Pink", "Orange", "Purple", "Brown")
DATES = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
SYSTEM = (
    "You are a world-class puzzle solver with exceptional pattern recognition skills. "
    "Your task is to analyze puzzles, spot patterns, and provide direct solutions."
)
OPENING = (
    "Given input-output grid pairs as reference examples, carefully observe the patterns to predict the output grid for new test input. "
    "Each pair follows the same transformation rule. Grids are 2D arrays represented as strings, with cells (colors) separated by spaces "
    "and rows by newlines.\nHere are the input and output grids for the reference examples:\n"
)
CLOSING = (
    "\n\n\nDirectly provide the output grids corresponding to the given test input grids, "
    "based on the patterns observed in the reference examples."
)
REPLY = "The output grid for the test input grid is:\n\n"
FENCE = "```"


def word_rows(grid: Grid) -> str:
    """A grid as rows of colour words."""
    return "\n".join(" ".join(WORDS[cell] for cell in row) for row in grid)


@dataclass(frozen=True, kw_only=True)
class ColourWords:
    """marc's ``--barc_format``. ``dated``: with Llama 3.1's lines about dates, as marc trains; its prompts have none."""

    layout: Layout = field(default_factory=Llama3)
    dated: bool = False

    def messages(self, puzzle: Puzzle) -> tuple[Message, ...]:
        """System and user message."""
        demos, query, _ = with_query(puzzle)
        draft = Draft(OPENING)
        for number, demo in enumerate(demos, start=1):
            draft.add(f"Example {number}:\nInput:\n")
            draft.add(word_rows(demo.input), "demo_input", number - 1)
            draft.add("\n\nOutput:\n")
            draft.add(f"{word_rows(demo.output)}\n", "demo_output", number - 1)
        draft.add("\n\nHere is the input grid for the test example:\nInput:\n")
        draft.add(word_rows(query), "query")
        draft.add(CLOSING)
        system = Written(text=(DATES if self.dated else "") + SYSTEM, spans=())
        return Message(role="system", written=system), Message(role="user", written=draft.written())

    def write(self, puzzle: Puzzle) -> Written:
        """The text of a puzzle. Without a query the last demonstration becomes query and answer."""
        _, _, answer = with_query(puzzle)
        return write_turns(self.layout, self.messages(puzzle), None if answer is None else self.answer(answer))

    def read(self, reply: str, query: Grid | None = None) -> Grid | Unreadable:
        """The rows of the first block between fences; the second fence may be missing."""
        _, fence, rest = until(reply, self.layout.end).partition(FENCE)
        if not fence:
            return Unreadable(reason=f"no {FENCE}")
        lines = [line.split() for line in rest.partition(FENCE)[0].strip().split("\n")]
        if strange := next((word for line in lines for word in line if word not in WORDS), None):
            return Unreadable(reason=f"{strange[:20]!r} is no colour")
        return checked([[WORDS.index(word) for word in line] for line in lines if line])

    def answer(self, grid: Grid, query: Grid | None = None) -> str:
        """A sentence, the grid between fences, and the end mark."""
        return self.answer_content(grid) + self.layout.end

    def answer_content(self, grid: Grid) -> str:
        """The assistant's message."""
        return f"{REPLY}{FENCE}\n{word_rows(grid)}\n{FENCE}"
