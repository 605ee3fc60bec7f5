"""Plain text in columns, at most `WIDTH` of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

WIDTH: Final = 100
NOTHING: Final = "-"
"""Stands in a cell that has no number."""


def share(value: float, digits: int, signed: bool = False) -> str:
    """``.250``; the number 1 loses a digit, so that every share of a column has the same width."""
    text = f"{abs(value):.{digits}f}"
    text = text[1:] if text.startswith("0") else text[:-1]
    is_zero = not text.strip(".0")
    return (("+" if value > 0 else "-") if signed and not is_zero else "-" if value < 0 and not is_zero else "") + text


def share_or_nothing(value: float | None) -> str:
    """A share with three digits, or the sign for none."""
    return NOTHING if value is None else share(value, 3)


def with_interval(value: float, low: float, high: float, signed: bool = False) -> str:
    """``.412 [.30, .53]``."""
    return f"{share(value, 3, signed)} [{share(low, 2, signed)}, {share(high, 2, signed)}]"


def p_value_or_nothing(value: float | None) -> str:
    """A p-value with three digits, or the sign for none."""
    return NOTHING if value is None else "<.001" if value < 0.0005 else share(value, 3)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def named(name: str, text: str) -> list[str]:
    """``name`` in a column of its own, the text beside it, broken where it is too long."""
    return [f"{name if number == 0 else '':<9} {line}" for number, line in enumerate(broken(text, WIDTH - 10))]


def broken(text: str, width: int = WIDTH) -> list[str]:
    """A text in lines of at most ``width`` where its words allow it."""
    lines: list[str] = [""]
    for word in text.split(" "):
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def page(lines: Sequence[str]) -> str:
    """The lines as one text, none wider than `WIDTH`."""
    return "\n".join(line[:WIDTH].rstrip() for line in lines)
