"""GPQA as its authors publish it (arXiv 2311.12022), turned into multiple choice."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

_CORRECT = "Correct Answer"
_OPTIONS = (_CORRECT, "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")
_QUESTION = "Question"
_ID = "Record ID"


def multiple_choice(row: Mapping[str, object]) -> Mapping[str, object]:
    """Return {question, options, answer, id}. The order of the options depends on their text alone, not on which one is correct.

    For a row in which a field is not text, the question is None, so that `parse_rows` reports the row.
    """
    texts = {name: row.get(name) for name in (_QUESTION, *_OPTIONS)}
    if not all(isinstance(text, str) for text in texts.values()):
        return {"question": None, "options": None, "answer": None, "id": row.get(_ID)}
    question = str(texts[_QUESTION]).strip()
    options = {name: str(texts[name]).strip() for name in _OPTIONS}
    order = sorted(_OPTIONS, key=lambda name: (_digest(question, options[name]), name))
    answer = "ABCD"[order.index(_CORRECT)]
    return {"question": question, "options": [options[name] for name in order], "answer": answer, "id": row.get(_ID)}


def _digest(question: str, option: str) -> bytes:
    return hashlib.sha256(f"{question}\0{option}".encode("utf-8", "surrogatepass")).digest()
