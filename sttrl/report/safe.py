"""Text that others wrote, made safe for a page: escaped, cut, without characters that could hide or turn what stands beside them."""

from __future__ import annotations

from html import escape
from typing import Final

SHOWN_CHARS: Final = 160
SHOWN_TEXT_CHARS: Final = 2000
_JOINERS: Final = "\u200c\u200d"
"""Not printable, and part of how several scripts are written."""


def shown(value: object) -> str:
    """Any value as one line of a page: cut, without control characters, escaped."""
    text = str(value)
    cut = text[:SHOWN_CHARS] + ("…" if len(text) > SHOWN_CHARS else "")
    return escape("".join(char if char.isprintable() else "·" for char in cut))


def shown_text(text: str) -> str:
    """A text of several lines, safe as `shown` makes it. Of a long one the middle is left out: answers stand at the end."""
    half = SHOWN_TEXT_CHARS // 2
    cut = text if len(text) <= SHOWN_TEXT_CHARS else f"{text[:half]}\n[… {len(text) - 2 * half} characters …]\n{text[-half:]}"
    return escape("".join(map(_safe, cut.replace("\r\n", "\n").strip())))


def _safe(char: str) -> str:
    if char == "\n" or char.isprintable() or char in _JOINERS:
        return char
    return " " if char.isspace() else "·"
