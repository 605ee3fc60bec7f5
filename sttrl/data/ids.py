"""Ids of questions: which values are valid, and the file name that belongs to an id."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

MAX_ID_CHARS = 1000
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9_-]+")


def id_text(cell: object) -> str | None:
    """Return the id in a cell, which is a printable text or a whole number; None for anything else."""
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
    """Return the file name for a question. It contains no path separator, and no two ids have the same one.

    An id of letters, digits and ``._-`` (at most 80 characters) is its own file name. In any other id the other characters are
    replaced, and ``~`` and a hash are appended; ``~`` is in no id of the first kind.
    """
    if _PLAIN.fullmatch(question_id) and ".." not in question_id and not question_id.endswith("."):
        return question_id
    digest = hashlib.sha256(question_id.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{_NOT_PLAIN.sub('-', question_id)[:60].strip('-')}~{digest}"
