"""What a codec does: it writes a puzzle as text with labelled spans, and reads a grid from a reply."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from sttrl.arc.grids import Grid
from sttrl.arc.tasks import Puzzle

SpanKind = Literal["demo_input", "demo_output", "query", "answer"]
"""What a span of the text is. ``demo_output`` and ``answer`` include the closing text that a model must write to end the grid."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """A part of a text: characters ``[start, end)``. ``demo``: the number of the demonstration, from 0, in the order of the text."""

    kind: SpanKind
    start: int
    end: int
    demo: int | None = None


@dataclass(frozen=True, kw_only=True)
class Written:
    """A puzzle as text. Without an answer the text ends where the answer begins."""

    text: str
    spans: tuple[Span, ...]


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """A reply without a grid, and the reason in a few words."""

    reason: str


class Codec(Protocol):
    """A way to write puzzles and to read replies."""

    def write(self, puzzle: Puzzle) -> Written:
        """The text of a puzzle, special tokens included as text."""
        ...

    def read(self, reply: str) -> Grid | Unreadable:
        """The grid of a reply. A reply that was cut at the token limit has no end mark."""
        ...

    def answer(self, grid: Grid) -> str:
        """The reply that stands for a grid, end mark included."""
        ...
