"""Ids of questions: what may be one, and the name of the folder that belongs to it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

MAX_ID_CHARS = 1000
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9_-]+")


def id_text(cell: object) -> str | None:
    """Return the id that a cell holds, a printable text or a whole number, or None."""
    if isinstance(cell, int) and not isinstance(cell, bool) and abs(cell) < 10**18:
        return str(cell)
    if isinstance(cell, str) and cell.strip() and len(cell) <= MAX_ID_CHARS and cell.isprintable():
        return cell
    return None


def are_unique_ids(cells: Sequence[object]) -> bool:
    """Whether every cell holds an id and no two hold the same."""
    texts = {id_text(cell) for cell in cells}
    return None not in texts and len(texts) == len(cells)


def folder_name(question_id: str) -> str:
    """Return a name for files of this question that stays in its folder and belongs to no other id.

    A plain id (letters, digits, ``._-``, at most 80) is its own name. Of any other the strange characters
    are replaced and a hash is joined with ``~``, which no plain id has.
    """
    if _PLAIN.fullmatch(question_id) and ".." not in question_id and not question_id.endswith("."):
        return question_id
    digest = hashlib.sha256(question_id.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{_NOT_PLAIN.sub('-', question_id)[:60].strip('-')}~{digest}"
