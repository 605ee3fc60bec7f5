"""What ``python main.py data D`` prints of a data set."""

from __future__ import annotations

from statistics import median

from sttrl.data.columns import listed
from sttrl.data.table import Row, Table
from sttrl.questions.labels import can_be_met, counted_either_way, labels

COUNTED = "the labels may count the options from 0 or from 1; they are read as counted from 0; letters would be unambiguous"
_SHOWN_ROWS = 5


def describe(table: Table, prompt: str | None = None) -> str:
    """Return the source of a data set, what was read, what looks wrong, and one prompt (without ``prompt``: the text that goes into it).

    Labels are never shown, nor questions that their authors withhold.
    """
    found = labels(table)
    lines = [
        ("data set", table.dataset.name),
        ("source", table.source),
        ("questions", _questions(table)),
        ("columns", _columns(table)),
        ("not used", listed(table.columns.unused) or "none"),
        ("answers", f"{table.dataset.kind}; {len(found)} of {len(table.rows)} questions have a label"),
        ("length", _lengths(table.rows)),
        ("prompt", _prompt(table)),
        ("skipped", _skipped(table)),
        *(("warning", warning) for warning in warnings(table)),
        ("example", _example(table, prompt)),
    ]
    return "\n".join(f"{name:<10} {text}" for name, text in lines)


def warnings(table: Table) -> tuple[str, ...]:
    """Return what looks wrong: an unexpected number of rows, and labels that are missing or that no answer can equal."""
    found = labels(table)
    kind, expected, total = table.dataset.kind, table.dataset.rows, len(table.rows) + len(table.skipped)
    unfit = [row for row in table.rows if row.id in found and not can_be_met(found[row.id], kind, row.option_count)]
    missing = [row for row in table.rows if row.id not in found]
    said = [
        f"{table.dataset.name} should have {expected} rows, not {total}" if expected not in (None, total) else None,
        "no column holds the answers: nothing can be scored" if table.columns.answer is None else None,
        _rows_where("no label that can be read", missing) if missing and table.columns.answer is not None else None,
        COUNTED if counted_either_way(table.rows) else None,
        _rows_where(f"a label that no answer can equal (the answers are of the kind {kind})", unfit) if unfit else None,
    ]
    return tuple(text for text in said if text is not None)


def _questions(table: Table) -> str:
    distinct = len({row.text for row in table.rows})
    return f"{len(table.rows)}" if distinct == len(table.rows) else f"{len(table.rows)}, of which {distinct} different"


def _columns(table: Table) -> str:
    columns, rows = table.columns, table.rows
    question = " + ".join(map(repr, columns.question))
    options = f", options {' '.join(map(repr, columns.options))}" if columns.options else ""
    without = sum(row.options is None for row in rows) if columns.options else 0
    missing = f" ({without} of {len(rows)} questions have none)" if without else ""
    answer = repr(columns.answer) if columns.answer is not None else "none"
    numbered = "by number" + (f" ({columns.id_note})" if columns.id_note else "")
    return f"question {question}{options}{missing}, answer {answer}, id {repr(columns.id) if columns.id is not None else numbered}"


def _lengths(rows: tuple[Row, ...]) -> str:
    by_length = sorted(rows, key=lambda row: len(row.text))
    shortest, longest = by_length[0], by_length[-1]
    middle = median(len(row.text) for row in rows)
    return f"{len(shortest.text)} ({shortest.id}) to {len(longest.text)} ({longest.id}) characters, median {middle:g}"


def _prompt(table: Table) -> str:
    return f"at most {table.dataset.max_prompt_tokens} tokens; instruction: {table.dataset.instruction or 'none'}"


def _example(table: Table, prompt: str | None) -> str:
    """The whole prompt of the first question, every line indented."""
    row = table.rows[0]
    if not table.dataset.printable:
        return f"({row.id}) {len(row.text)} characters, not shown: its authors ask that questions stay out of plain text"
    if prompt is not None:
        return f"({row.id}) the whole prompt, as the model sees it:\n{_set_in(prompt)}"
    instruction = table.dataset.instruction
    text = row.text if not instruction or instruction in row.text else f"{row.text}\n{instruction}"
    said = "what goes into the model's chat template (with --model: the whole prompt)"
    system = f"system message:\n{_set_in(row.system)}\n{'':<10} question:\n" if row.system is not None else ""
    return f"({row.id}) {said}:\n{'':<10} {system}{_set_in(text)}" if system else f"({row.id}) {said}:\n{_set_in(text)}"


def _set_in(text: str) -> str:
    """A text with a bar before each line; control characters are escaped."""
    return "\n".join(f"  | {''.join(char if char.isprintable() else ascii(char)[1:-1] for char in line)}" for line in text.split("\n"))


def _skipped(table: Table) -> str:
    if not table.skipped:
        return "none"
    shown = "; ".join(f"row {bad.row}, field {bad.field!r}: {bad.reason}" for bad in table.skipped[:_SHOWN_ROWS])
    return f"{len(table.skipped)} rows: {shown}" + ("; ..." if len(table.skipped) > _SHOWN_ROWS else "")


def _rows_where(what: str, rows: list[Row]) -> str:
    shown = ", ".join(str(row.row) for row in rows[:_SHOWN_ROWS])
    return f"{len(rows)} questions have {what}: row {shown}" + (", ..." if len(rows) > _SHOWN_ROWS else "")
