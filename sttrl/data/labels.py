"""The labels, for sttrl.report and the check of a data set, and for nobody else."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from sttrl.data.rows import text_problem
from sttrl.data.table import Table
from sttrl.types import AnswerKind

_FINAL = re.compile(r"^####[ \t]*(\S.*)$", re.MULTILINE)
_NUMBER = re.compile(r"([+-]?)(\d+)(?:\.(\d+))?")
_LETTER = re.compile(r"\(?([A-Za-z])\)?[.:]?")


def labels(table: Table) -> Mapping[str, str]:
    """Return the normal form of the right answer by question id; a question without one is left out."""
    worked = table.columns.answer is not None and table.columns.answer.lower() == "solution"
    read = {row.id: read_label(row.answer, table.dataset.kind, worked=worked) for row in table.rows}
    return {question_id: label for question_id, label in read.items() if label is not None}


def read_label(cell: object, kind: AnswerKind, *, worked: bool = False) -> str | None:
    """Return the label in a cell, or None.

    Taken from the last line ``#### ...`` or the last ``\\boxed{...}`` where there is one, else the whole cell, unless
    it is ``worked``: a solution, of which the whole is no answer. Numbers lose commas, leading and trailing zeros.
    """
    text = _cell_text(cell)
    if text is None or text_problem(text) is not None:
        return None
    final = _final_part(text) or (None if worked else text.strip())
    if final is None or kind == "math":
        return final
    return _number(final) if kind == "number" else _letter(final)


def fits_kind(label: str, kind: AnswerKind) -> bool:
    """Whether a label is what its kind says: a number, a capital letter, or anything for mathematics."""
    if kind == "math":
        return True
    return bool(_NUMBER.fullmatch(label)) if kind == "number" else bool(re.fullmatch("[A-Z]", label))


def _cell_text(cell: object) -> str | None:
    if isinstance(cell, Mapping):
        cell = cell.get("ground_truth")
    if isinstance(cell, bool) or (isinstance(cell, float) and not math.isfinite(cell)):
        return None
    if isinstance(cell, float):
        return str(int(cell)) if cell.is_integer() and abs(cell) < 1e15 else repr(cell)
    if isinstance(cell, int):
        return str(cell) if abs(cell) < 10**1000 else None
    return cell if isinstance(cell, str) else None


def _final_part(text: str) -> str | None:
    marked = _FINAL.findall(text)
    return marked[-1].strip() if marked else _last_boxed(text)


def _last_boxed(text: str) -> str | None:
    start = text.rfind("\\boxed{")
    depth = 0
    for position in range(start + len("\\boxed"), len(text)) if start >= 0 else ():
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[start + len("\\boxed{") : position].strip() or None
    return None


def _number(text: str) -> str:
    match = _NUMBER.fullmatch(text.replace(",", "").replace("$", "").strip())
    if match is None:
        return text
    sign, whole, fraction = match[1].replace("+", ""), match[2].lstrip("0") or "0", (match[3] or "").rstrip("0")
    value = f"{whole}.{fraction}" if fraction else whole
    return value if value == "0" else sign + value


def _letter(text: str) -> str:
    match = _LETTER.fullmatch(text)
    return match[1].upper() if match else text
