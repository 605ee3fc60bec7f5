"""Reads the parts of a question, its system message and its options from a row, in the layouts of published data sets."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase

from sttrl.data.cells import number_text, type_name
from sttrl.data.table import Columns, Options, Turn

_LETTERED = re.compile(r"\s*[(\[]?([A-Za-z])[)\].:]\s*(\S.*)", re.DOTALL)
_NAME = re.compile(r"[A-Za-z]|\d{1,2}")
_LISTED = re.compile(r"(?<![A-Za-z0-9])A\s?[).:\]].*(?<![A-Za-z0-9])B\s?[).:\]]", re.IGNORECASE | re.DOTALL)
"""A cell of options that is one text with lettered options, as in MathQA."""
_BETWEEN = r"[^A-Za-z0-9]{1,12}"
"""What may stand between the letter and the text of an option, in a question that lists its options."""


class LayoutError(ValueError):
    """A cell that cannot be read. ``field``: its column. The message never quotes the cell."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(problem)
        self.field, self.problem = field, problem


def flattened(row: Mapping[str, object]) -> Mapping[str, object]:
    """The row with the fields of a nested question moved up: AI2's files have {"question": {"stem", "choices"}}."""
    question = row.get("question")
    return {**row, **question, "question": question["stem"]} if isinstance(question, Mapping) and "stem" in question else row


@dataclass(frozen=True)
class Asked:
    """What a row asks: the ``text`` without its options, a ``system`` message or None, and the ``earlier`` turns of a conversation."""

    text: str
    system: str | None = None
    earlier: tuple[Turn, ...] = ()


def question_of(row: Mapping[str, object], columns: Columns) -> Asked:
    """The question of a row. Raises `LayoutError` if there is none."""
    parts = [(name, _part(name, row.get(name))) for name in columns.question if not _is_blank(row.get(name))]
    if not parts or columns.needed not in (None, *dict(parts)):
        field = columns.needed or columns.question[0]
        raise LayoutError(field, "is missing" if row.get(field) is None else "is empty")
    if len(parts) == 1:
        return parts[0][1]
    whole = next((part.text for name, part in parts if name == columns.needed), "")
    texts = [part.text.strip() for name, part in parts if name == columns.needed or part.text.strip() not in whole]
    system = next((part.system for _, part in parts if part.system is not None), None)
    return Asked("\n".join(texts), system, tuple(turn for _, part in parts for turn in part.earlier))


def options_of(row: Mapping[str, object], columns: Sequence[str]) -> tuple[Options | None, str]:
    """The options of a row and the lines that show them; None and "" if it has no options. Raises `LayoutError`."""
    if not columns:
        return None, ""
    try:
        if len(columns) > 1:
            return _shown(_columned([row.get(name) for name in columns]))
        cell = _unquoted(row.get(columns[0]))
        if isinstance(cell, str) and _LISTED.search(cell):
            return Options(), cell.strip()
        return _shown(read_options(cell))
    except ValueError as error:
        raise LayoutError(columns[0], str(error)) from error


def read_options(cell: object) -> Options | None:
    """The options in a cell; None if the cell is empty.

    Known layouts: a list of texts or numbers, with letters inside ("A)21", AQuA) or without (MMLU, MMLU-Pro); {"text": [...],
    "label": [...]} (ARC); a list of {"text", "label"} (AI2's files); {"A": text, ...} (MedQA).
    Raises ValueError for anything else.
    """
    if cell is None or (not cell and isinstance(cell, str | list | tuple | Mapping)):
        return None
    texts, names = _texts_and_names(cell)
    options = [number_text(text) for text in texts]
    if None in options or not all(str(option).strip() for option in options):
        raise ValueError("holds an option that is not text")
    if not 2 <= len(options) <= len(ascii_uppercase):
        raise ValueError(f"holds {len(options)} options, not 2 to {len(ascii_uppercase)}")
    inner_texts, inner_names = _without_letters([str(option).strip() for option in options])
    given = tuple(str(name).strip() for name in names)
    return Options(texts=inner_texts, names=given if len(set(given)) == len(options) else inner_names)


def with_options(text: str, lines: str, options: Options | None) -> str:
    """The question with its options below it, unless it shows them already."""
    if not lines or lines in text or (options is not None and options.texts and _shows(text, options.texts)):
        return text
    return f"{text.rstrip()}\n\n{lines}"


def _is_blank(cell: object) -> bool:
    return cell is None or (isinstance(cell, str) and not cell.strip())


def _part(name: str, cell: object) -> Asked:
    """What a cell asks: it is text, or a list of messages of which the last is the user's. Only the first may be a system message."""
    if isinstance(cell, str):
        return Asked(cell)
    messages = cell if isinstance(cell, list) and all(isinstance(message, Mapping) for message in cell) else []
    turns = [(message.get("role"), message.get("content")) for message in messages]
    if not all(isinstance(content, str) for _, content in turns):
        turns = []
    system = turns.pop(0)[1] if turns and turns[0][0] == "system" else ""
    roles = [role for role, _ in turns]
    if not roles or roles != [("user", "assistant")[place % 2] for place in range(len(roles))] or roles[-1] != "user":
        raise LayoutError(
            name, f"is {type_name(cell)}, not text or messages of user and assistant in turn (a system message may go before them)"
        )
    return Asked(turns[-1][1], system if system.strip() else None, tuple(turns[:-1]))


def _unquoted(cell: object) -> object:
    """The list or object that a cell holds as text, as in a .csv; any other cell unchanged."""
    if not isinstance(cell, str) or cell.strip()[:1] not in ("[", "{"):
        return cell
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(cell.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        raise ValueError("is text that begins like a list, and no list can be read from it") from None


def _texts_and_names(cell: object) -> tuple[Sequence[object], Sequence[object]]:
    if isinstance(cell, Mapping):
        if isinstance(cell.get("text"), list | tuple):
            names = cell.get("label")
            return cell["text"], names if isinstance(names, list | tuple) else ()
        present = {str(name): text for name, text in cell.items() if text is not None}
        if all(_NAME.fullmatch(name) for name in present):
            names = sorted(present, key=lambda name: (len(name), name))
            return [present[name] for name in names], names
    if isinstance(cell, list | tuple) and all(isinstance(option, Mapping) for option in cell):
        return [option.get("text") for option in cell], [option.get("label") for option in cell]
    if isinstance(cell, list | tuple):
        return cell, ()
    raise ValueError("is no list of options")


def _columned(cells: Sequence[object]) -> Options | None:
    """Options from columns A, B, C and so on; the last columns may be empty."""
    while cells and (cells[-1] is None or cells[-1] == ""):
        cells = cells[:-1]
    return read_options(list(cells))


def _without_letters(texts: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The texts, without leading letters if these are A, B, C and so on in order; and the letters."""
    letters = tuple(ascii_uppercase[: len(texts)])
    matches = [match for text in texts if (match := _LETTERED.fullmatch(text))]
    if tuple(match[1].upper() for match in matches) == letters:
        return tuple(match[2] for match in matches), letters
    return tuple(texts), letters


def _shown(options: Options | None) -> tuple[Options | None, str]:
    texts = options.texts if options is not None else ()
    return options, "\n".join(f"{letter}. {text}" for letter, text in zip(ascii_uppercase, texts, strict=False))


def _shows(text: str, options: Sequence[str]) -> bool:
    """Whether a text lists these options in order, each after its letter."""
    squeezed, start = " ".join(text.split()), 0
    for letter, option in zip(ascii_uppercase, options, strict=False):
        wanted = re.escape(" ".join(option.split()).rstrip("."))
        found = re.compile(rf"(?<![A-Za-z0-9]){letter}{_BETWEEN}{wanted}(?!\w)", re.IGNORECASE).search(squeezed, start)
        if found is None:
            return False
        start = found.end()
    return True
