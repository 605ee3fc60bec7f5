"""The options of a multiple-choice question in its text, and orders in which they are asked.

Permuting the options and mapping the letters back before the vote takes out the model's preference for a letter or a place (arXiv
2309.03882, 2308.11483).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from math import factorial
from string import ascii_uppercase
from typing import Final

from sttrl.ledger.seeds import seed_of

Span = tuple[int, int]
"""Start and end of a text in a longer one."""

_LINE: Final = re.compile(r"^[ \t]*[(\[]?([A-Za-z])[ \t]?[)\].:][ \t]*(?=\S)", re.MULTILINE)
"""A letter that begins a line."""
_INLINE: Final = re.compile(r"(?<![^\s,;])(?:\(([A-Za-z])\)|([A-Za-z]) ?\))[ \t]*(?=\S)")
"""A letter within a line: (A) or A)."""
_BLANK: Final = re.compile(r"\n[ \t]*\n")
_OF_LETTERS: Final = re.compile(
    r"(?:both|either|neither|all of|none of|only|options?|choices?|answers?|statements?|\s)*"
    r"\(?(?-i:[A-Z])\)?(?:(?:\s*(?:,|/|&|\band\b|\bor\b|\bnor\b)\s*)+\(?(?-i:[A-Z])\)?)+\s*(?:only|are (?:correct|right|true)|\s)*\.?",
    re.IGNORECASE,
)
"""An option that names other options by their letters, such as "both A and C"."""
_OF_PLACES: Final = re.compile(r"\b(?:above|below|preceding|previous|foregoing|following options?)\b", re.IGNORECASE)
"""A word by which an option refers to those before or after it, such as "none of the above"."""


def option_spans(text: str, count: int | None = None) -> tuple[Span, ...] | None:
    """Where the text of each option stands in a question, in order; None if no list from A on can be found, or none of ``count`` options.

    The last list counts: a question may hold another one before its options.
    """
    found = _found(text, count)
    return found[1] if found else None


def list_start(text: str, count: int | None = None) -> int | None:
    """Where the list of options begins, with its first letter; None as in `option_spans`."""
    found = _found(text, count)
    return found[0] if found else None


def _found(text: str, count: int | None) -> tuple[int, tuple[Span, ...]] | None:
    """The start of the list of options, and the options."""
    lists = [found for letters in (_LINE, _INLINE) for upper in (True, False) if (found := _listed(text, letters, upper))]
    return next((found for found in lists if count in (None, len(found[1]))), None)


def reordered(text: str, spans: Sequence[Span], order: Sequence[int]) -> str:
    """The question with the text of option ``order[i]`` at place i; letters stay where they are."""
    parts, end = list[str](), 0
    for (start, stop), shown in zip(spans, order, strict=True):
        parts += [text[end:start], text[slice(*spans[shown])]]
        end = stop
    return "".join((*parts, text[end:]))


def movable(options: Sequence[str]) -> tuple[int, ...]:
    """The places of the options that may be exchanged. If an option names others by letter, as "both A and C", none may.

    An option that refers to those above it stays where it is. If it is not the last one, none moves: the options above it would change.
    """
    fixed = [place for place, option in enumerate(options) if _OF_PLACES.search(option)]
    if any(map(_OF_LETTERS.fullmatch, options)) or fixed not in ([], [len(options) - 1]):
        return ()
    return tuple(place for place in range(len(options)) if place not in fixed)


def orders(options: Sequence[str], count: int, seed: int, question_id: str) -> tuple[tuple[int, ...], ...]:
    """Different orders of the options, ``count`` of them or as many as there are; the first is that of the question.

    ``orders(...)[v][i]``: the number of the option at place i. The n options that move are shifted along a cycle drawn from the seed, so in
    the first n orders each of them stands once at each of their places, and so on.
    """
    free = movable(options)
    wanted = min(count, factorial(len(free)))
    found: list[tuple[int, ...]] = []
    for row in _rows(free, len(options), seed, question_id):
        if row[0] not in found:
            found += row
        if len(found) >= wanted:
            break
    return tuple(found[:wanted])


def _rows(free: tuple[int, ...], total: int, seed: int, question_id: str) -> Iterator[list[tuple[int, ...]]]:
    """Rows of orders: a drawn beginning, shifted along the cycle. The first begins with the question's own order."""
    cycle = _drawn(free, seed, question_id, "cycle", 0)
    step = dict(zip(cycle, (*cycle[1:], *cycle[:1]), strict=True))
    draw = 0
    while True:
        shown = dict(zip(free, free if draw == 0 else _drawn(free, seed, question_id, "order", draw), strict=True))
        at, row = {place: place for place in free}, []
        for _ in range(max(1, len(free))):
            row.append(tuple(shown[at[place]] if place in at else place for place in range(total)))
            at = {place: step[origin] for place, origin in at.items()}
        yield row
        draw += 1


def _drawn(places: Sequence[int], seed: int, question_id: str, purpose: str, draw: int) -> list[int]:
    """The places in a random order."""
    return sorted(places, key=lambda place: seed_of(seed, question_id, f"options {purpose}", draw, place))


def _listed(text: str, letters: re.Pattern[str], upper: bool) -> tuple[int, tuple[Span, ...]] | None:
    """The last list whose letters are A, B, C and so on: where it begins, and its options."""
    wanted = ascii_uppercase if upper else ascii_uppercase.lower()
    best: list[re.Match[str]] = []
    run: list[re.Match[str]] = []
    for match in letters.finditer(text):
        letter = next(filter(None, match.groups()))
        if letter == wanted[0]:
            run = [match]
        elif run and len(run) < len(wanted) and letter == wanted[len(run)]:
            run.append(match)
        if len(run) > 1:
            best = run
    if len(best) < 2:
        return None
    *spans, (start, _) = (
        _without_rim(text, match.end(), after.start() if after else len(text)) for match, after in zip_longest(best, best[1:])
    )
    end = _end(text, start, [text[slice(*span)] for span in spans])
    whole = None if end is None else (*spans, _without_rim(text, start, end))
    return (best[0].start(), whole) if whole is not None and all(first < last for first, last in whole) else None


def _end(text: str, start: int, others: Sequence[str]) -> int | None:
    """Where the last option ends: it has as many paragraphs as the others. None if what follows may be of it or not."""
    rest = text[start:].rstrip()
    if len(lines := rest.split("\n")) == 1:
        return start + len(rest)
    paragraphs = {len(_BLANK.split(option)) for option in others}
    breaks = [blank.start() for blank in _BLANK.finditer(rest)]
    if len(paragraphs) > 1:
        return None
    end = [*breaks, len(rest)][min(paragraphs.pop() - 1, len(breaks))]
    one_line = not any("\n" in option for option in others)
    return None if one_line and end != len(lines[0]) else start + end


def _without_rim(text: str, start: int, end: int) -> Span:
    """The span without white space and a separator at its end."""
    kept = text[start:end].rstrip().removesuffix(",").removesuffix(";").rstrip()
    return start, start + len(kept)
