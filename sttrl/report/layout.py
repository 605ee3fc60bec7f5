"""Plain text in aligned columns, at most `WIDTH` characters wide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

WIDTH: Final = 100
NOTHING: Final = "-"
"""The content of a cell without a number."""


def decimal(value: float, digits: int, signed: bool = False) -> str:
    """A number from -1 to 1 as text: ``.250``. 1 has one digit less (``1.00``), so that all numbers have the same width."""
    text = f"{abs(value):.{digits}f}"
    text = text[1:] if text.startswith("0") else text[:-1]
    is_zero = not text.strip(".0")
    return (("+" if value > 0 else "-") if signed and not is_zero else "-" if value < 0 and not is_zero else "") + text


def number_or_nothing(value: float | None) -> str:
    """A number with three digits, or `NOTHING`."""
    return NOTHING if value is None else decimal(value, 3)


def with_interval(value: float, low: float, high: float, signed: bool = False) -> str:
    """A number with its interval: ``.412 [.30, .53]``."""
    return f"{decimal(value, 3, signed)} [{decimal(low, 2, signed)}, {decimal(high, 2, signed)}]"


def p_value_or_nothing(value: float | None) -> str:
    """A p-value with three digits, or `NOTHING`."""
    return NOTHING if value is None else "<.001" if value < 0.0005 else decimal(value, 3)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def named(name: str, text: str) -> list[str]:
    """Lines with ``name`` in the first column and the text, broken into lines, in the second."""
    return [f"{name if number == 0 else '':<9} {line}" for number, line in enumerate(broken(text, WIDTH - 10))]


def broken(text: str, width: int = WIDTH) -> list[str]:
    """A text in lines of at most ``width`` characters, unless one word is longer."""
    lines: list[str] = [""]
    for word in text.split(" "):
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def page(lines: Sequence[str]) -> str:
    """The lines as one text, each cut at `WIDTH`."""
    return "\n".join(line[:WIDTH].rstrip() for line in lines)
