"""The labels of a data set. Only the report and the check of a data set (``data D``) may import this."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from string import ascii_uppercase

from sttrl.data.cells import number_text
from sttrl.data.rows import text_problem
from sttrl.data.table import Options, Row, Table
from sttrl.questions.answers import Limits
from sttrl.questions.answers import read_label as normal_form
from sttrl.questions.answers.choice import LETTERS_UNLESS_KNOWN, letters_in
from sttrl.questions.answers.extract import boxes
from sttrl.questions.answers.notation import spell
from sttrl.types import AnswerKind

_FINAL = re.compile(r"^####[ \t]*(\S.*)$", re.MULTILINE)
_NUMBER = re.compile(r"([+-]?)(\d+)(?:\.(\d+))?")
_LETTERED = re.compile(r"[(\[]?[A-Za-z][)\].:]\s*(\S.*)", re.DOTALL)

Style = Callable[[str, Options], int | None]
"""A way to read a label: (label, options) -> the index of the option that it means, or None."""


def labels(table: Table) -> Mapping[str, str]:
    """Return the right answer of each question by id; a question without a readable label is left out."""
    worked = table.columns.answer is not None and table.columns.answer.lower() == "solution"
    kind, style = table.dataset.kind, _style(table.rows)
    read = {row.id: read_label(_chosen(row, style, kind), kind, worked=worked) for row in table.rows}
    return {question_id: label for question_id, label in read.items() if label is not None}


def read_label(cell: object, kind: AnswerKind, *, worked: bool = False) -> str | None:
    """Return the label in a cell, or None.

    It is what follows ``####`` on the last such line, or the content of the last ``\\boxed{...}``, or else the whole cell. ``worked``: the
    cell is a worked solution, so that the whole cell is no label. Numbers lose commas, leading and trailing zeros.
    """
    text = _cell_text(cell)
    if text is None or text_problem(text) is not None:
        return None
    final = _final_part(text) or (None if worked else text.strip())
    if final is None or kind == "math":
        return final
    return _number(final) if kind == "number" else _letter(final)


def can_be_met(label: str, kind: AnswerKind, option_count: int | None = None) -> bool:
    """Whether an answer can equal a label. It must be readable; a number needs digits; a choice must be the letter of an option."""
    form = normal_form(label, kind, Limits()).text
    if form is None or kind == "math":
        return form is not None
    if kind == "number":
        return any(char.isdigit() for char in form)
    return form in ascii_uppercase[: option_count or LETTERS_UNLESS_KNOWN]


def _by_name(text: str, options: Options) -> int | None:
    """The label is the name of an option: B, (B) or B. if options are called A, B, C; or 2 if the file calls them 1, 2, 3."""
    return _place(text.strip(" ()[].:").casefold(), [name.casefold() for name in options.names])


def _by_text(text: str, options: Options) -> int | None:
    """The label is the text of an option, with or without a letter before it."""
    texts = [_folded(option) for option in options.texts]
    match = _LETTERED.fullmatch(text)
    place = _place(_folded(text), texts)
    return place if place is not None or match is None else _place(_folded(match[1]), texts)


def _counted_from(first: int) -> Style:
    """The label is the number of an option; the first option has the number ``first``."""

    def by_number(text: str, options: Options) -> int | None:
        return _place(_number(text), [str(number) for number in range(first, first + len(options.texts))])

    return by_number


_FROM_0, _FROM_1 = _counted_from(0), _counted_from(1)


def _labelled(rows: Sequence[Row]) -> list[tuple[str, Options]]:
    """The label and the options of every row that has both."""
    return [(text, row.options) for row in rows if row.options and row.options.texts and (text := _said(row.answer)) is not None]


def _style(rows: Sequence[Row]) -> Style | None:
    """The way of naming the right option that fits most labels of the file. None if no row has options."""
    given = _labelled(rows)
    if not given:
        return None
    numbers = all(_number(text).isdigit() for text, _ in given)
    styles = (_by_name, _FROM_0, _FROM_1, _by_text) if numbers else (_by_name, _by_text, _FROM_0, _FROM_1)
    return max(styles, key=lambda style: sum(style(text, options) is not None for text, options in given))


def counted_either_way(rows: Sequence[Row]) -> bool:
    """Whether the labels are read as numbers counted from 0, but could also be counted from 1."""
    given = _labelled(rows)
    return _style(rows) is _FROM_0 and all(_FROM_1(*label) is not None for label in given if _FROM_0(*label) is not None)


def _chosen(row: Row, style: Style | None, kind: AnswerKind) -> object:
    """The letter of the option that a label means, or its text if the answers are not choices. Without such an option: the cell itself."""
    text = _said(row.answer)
    place = style(text, row.options) if style is not None and text is not None and row.options is not None else None
    if place is None or row.options is None or (kind != "choice" and style is not _by_name):
        return row.answer
    return ascii_uppercase[place] if kind == "choice" else row.options.texts[place]


def _said(cell: object) -> str | None:
    text = _cell_text(cell)
    return None if text is None else _final_part(text) or text.strip()


def _folded(text: str) -> str:
    return " ".join(text.split()).casefold()


def _place(wanted: str, found: Sequence[str]) -> int | None:
    return found.index(wanted) if wanted in found else None


def _cell_text(cell: object) -> str | None:
    if isinstance(cell, Mapping):
        cell = cell.get("ground_truth")
    if isinstance(cell, list | tuple):
        parts = [number_text(part) for part in cell]
        return ", ".join(map(str, parts)) if parts and None not in parts else None
    return number_text(cell)


def _final_part(text: str) -> str | None:
    marked = _FINAL.findall(text)
    return marked[-1].strip() if marked else _last_boxed(text)


def _last_boxed(text: str) -> str | None:
    return next((content.strip() for _, content in reversed(boxes(text)) if content.strip()), None)


def _number(text: str) -> str:
    match = _NUMBER.fullmatch(text.replace(",", "").replace("$", "").strip())
    if match is None:
        return text
    sign, whole, fraction = match[1].replace("+", ""), match[2].lstrip("0") or "0", (match[3] or "").rstrip("0")
    value = f"{whole}.{fraction}" if fraction else whole
    return value if value == "0" else sign + value


def _letter(text: str) -> str:
    letters = letters_in(spell(text))
    return next(iter(letters)) if len(letters) == 1 else text
