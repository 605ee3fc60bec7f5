"""Cells of a table as text."""

from __future__ import annotations

import math
from decimal import Decimal


def number_text(cell: object) -> str | None:
    """Return a text unchanged and a number as people write it (142.0 is 142), or None for anything else.

    Decimals of a parquet file are numbers too. The result is None for infinity, NaN and very long numbers.
    """
    if isinstance(cell, str):
        return cell
    if isinstance(cell, bool):
        return None
    if isinstance(cell, Decimal):
        return _decimal_text(cell) if cell.is_finite() and abs(cell.adjusted()) < 1000 else None
    if isinstance(cell, float):
        if not math.isfinite(cell):
            return None
        return str(int(cell)) if cell.is_integer() and abs(cell) < 1e15 else repr(cell)
    return str(cell) if isinstance(cell, int) and abs(cell) < 10**1000 else None


def _decimal_text(number: Decimal) -> str:
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def type_name(cell: object) -> str:
    """The type of a cell, in the words of JSON."""
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object", type(None): "null"}
    return names.get(type(cell), type(cell).__name__)
