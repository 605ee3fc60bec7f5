"""What a codec does: it writes a puzzle as text with labelled spans, and reads a grid from a reply."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from sttrl.arc.grids import Grid
from sttrl.arc.tasks import Puzzle

SpanKind = Literal["demo_input", "demo_output", "query", "header", "answer"]
"""What a span of the text is. ``demo_output`` and ``answer`` include the closing text that a model must write to end the grid.

``header``: what opens the model's turn in a chat. It is part of the prompt, and the answer follows it at once.
"""


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


@dataclass(frozen=True, kw_only=True)
class Alphabet:
    """The tokens of a codec whose texts need only a few: ordinary ones and special ones, in the order of their ids.

    ``end``: the special token that ends an answer. ``pad``: the one that fills batches; None leaves it to the model.
    """

    plain: tuple[str, ...]
    special: tuple[str, ...]
    end: str
    pad: str | None = None


class Codec(Protocol):
    """A way to write puzzles and to read replies."""

    def write(self, puzzle: Puzzle) -> Written:
        """The text of a puzzle, special tokens included as text."""
        ...

    def read(self, reply: str, query: Grid | None = None) -> Grid | Unreadable:
        """The grid of a reply. A reply that was cut at the token limit has no end mark.

        ``query``: the puzzle's query; a codec that writes differences from it needs it, the others do not look at it.
        """
        ...

    def answer(self, grid: Grid, query: Grid | None = None) -> str:
        """The reply that stands for a grid, end mark included. ``query``: as in `read`."""
        ...


@runtime_checkable
class SmallCodec(Codec, Protocol):
    """A codec whose texts need only a few tokens, so that a model can be cut to them."""

    def alphabet(self) -> Alphabet:
        """The tokens, one for each piece of text."""
        ...
