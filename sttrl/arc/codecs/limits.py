"""Token limits: which demonstrations fit into a prompt, and the most tokens that a reply can need."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from sttrl.arc.codecs.base import Codec, Written
from sttrl.arc.grids import COLOURS, LONGEST_SIDE, Grid
from sttrl.arc.tasks import Puzzle

SPECIAL = re.compile("<[^<]*>")


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A puzzle that fits. ``kept`` and ``dropped``: numbers of the demonstrations, from 0, in the order of the puzzle that was given."""

    puzzle: Puzzle
    length: int
    kept: tuple[int, ...]
    dropped: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class TooLong:
    """A puzzle that does not fit with the fewest demonstrations allowed. ``length``: what it has then."""

    length: int
    limit: int
    demos: int

    @property
    def reason(self) -> str:
        """What is wrong, in a few words."""
        return f"{self.length} tokens with {self.demos} demonstration{'s' * (self.demos != 1)}, and {self.limit} are allowed"


def fit(
    codec: Codec, puzzle: Puzzle, length: Callable[[Written], int], limit: int, drop: Literal["last", "first"] = "last", least: int = 1
) -> Fitted | TooLong:
    """The puzzle with as many demonstrations as fit into ``limit``.

    ``drop``: which go first (ARChitects: the last; Kaggle 2024 and NVARC: the first). ``least``: how many must stay (ARChitects 1, the
    others 0).
    """
    total = len(puzzle.demos)
    fewest = min(max(least, int(puzzle.query is None)), total)
    for count in range(total, fewest - 1, -1):
        kept = range(count) if drop == "last" else range(total - count, total)
        candidate = replace(puzzle, demos=tuple(puzzle.demos[number] for number in kept))
        if (found := length(codec.write(candidate))) <= limit:
            dropped = tuple(number for number in range(total) if number not in kept)
            return Fitted(puzzle=candidate, length=found, kept=tuple(kept), dropped=dropped)
    return TooLong(length=found, limit=limit, demos=count)


def max_new_tokens(codec: Codec, length: Callable[[str], int], side: int = LONGEST_SIDE, spare: int = 1) -> int:
    """The most tokens of a reply, and one to spare, as the published systems have it: 932 for one token a cell.

    ``length``: tokens of a text, without a begin-of-text token; ``side``: the most rows and columns. Exact where every cell has as many
    tokens as any other; else the longest of grids of one colour and of grids of changing colours.
    """
    query = ((COLOURS - 1,) * side,) * side
    return spare + max(length(codec.answer(grid, query)) for grid in _largest_grids(side))


def character_count(text: str) -> int:
    """Tokens of a text in which each character is a token, and so is what stands between angle brackets."""
    return len(SPECIAL.sub("x", text))


def _largest_grids(side: int) -> Iterator[Grid]:
    for colour in range(COLOURS):
        yield ((colour,) * side,) * side
    for step in (1, 3, 7):
        yield tuple(tuple((step * column + row) % COLOURS for column in range(side)) for row in range(side))
