"""Reads local files: .json, .jsonl, .ndjson, .csv, .tsv (plain or .gz) and .parquet."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import re
import zlib
from collections import Counter
from importlib import import_module
from pathlib import Path

from sttrl.data.rows import RawRow, Unreadable
from sttrl.errors import DataError, error_text

MAX_FILE_BYTES = 2**30
"""The largest file that is read, in bytes after decompression. It does not limit .parquet."""


def read_file(path: Path) -> list[RawRow]:
    """Return the rows of a file with one of the known suffixes. Raises DataError if the file as a whole cannot be read."""
    name = path.name.lower()
    if name.endswith(".parquet"):
        return _parquet_rows(path)
    data = _read_bytes(path)
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{path} is UTF-16.", "Save it as UTF-8.")
    data = data.removeprefix(codecs.BOM_UTF8)
    kind = name.removesuffix(".gz").rpartition(".")[2]
    if kind in ("csv", "tsv"):
        return _table_rows(path, data, kind)
    return _json_rows(path, data) if kind == "json" or _is_list(data) else _line_rows(data)


def _read_bytes(path: Path) -> bytes:
    try:
        with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}.", "Is the file whole, and may you read it?") from error
    if len(data) > MAX_FILE_BYTES:
        raise DataError(f"{path} holds more than {MAX_FILE_BYTES // 2**20} MiB.", "Split it, or save it as .parquet.")
    return data


def _is_list(data: bytes) -> bool:
    """Whether a file that should have a row on each line holds one JSON list of objects instead."""
    return re.match(rb"\s*\[\s*(\{|\]\s*$)", data) is not None


def _table_rows(path: Path, data: bytes, kind: str) -> list[RawRow]:
    """The rows after the header; the first of them is row 1. Cells are text; an empty cell is an empty text."""
    csv.field_size_limit(MAX_FILE_BYTES)
    try:
        text = data.decode()
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text, kind), strict=True)
        header, *rows = [cells for cells in reader if cells] or [[]]
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 (byte {error.start}).", "Save it as UTF-8.") from error
    except csv.Error as error:
        where = f"{path} is not {kind.upper()} near line {reader.line_num}"
        raise DataError(f"{where}: {error}.", 'Write a quote within quotes as "".') from error
    twice = sorted(name for name, count in Counter(header).items() if count > 1)
    if twice:
        raise DataError(f"{path} has the column {twice[0][:40]!r} twice.", "Its first line must name every column once.")
    return [RawRow(row=number, value=_record(header, cells)) for number, cells in enumerate(rows, start=1)]


def _delimiter(text: str, kind: str) -> str:
    """A tab in a .tsv; in a .csv the one of comma, semicolon and tab that the header has most of."""
    header = text.lstrip("\r\n").partition("\n")[0]
    return "\t" if kind == "tsv" else max(",;\t", key=header.count)


def _record(header: list[str], cells: list[str]) -> object:
    if len(cells) != len(header):
        return Unreadable(field="line", reason=f"has {len(cells)} cells, and the first line names {len(header)} columns")
    return dict(zip(header, cells, strict=True))


def _json_rows(path: Path, data: bytes) -> list[RawRow]:
    try:
        content = json.loads(data.decode())
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 (byte {error.start}).", "Save it as UTF-8.") from error
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            return _line_rows(data)
        raise DataError(f"{path} is not JSON: {error}.", "Is the file whole? Rows one a line belong in a .jsonl file.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON that can be read: {_reason(error)}.", "Correct the file.") from error
    rows = content.get("data") if isinstance(content, dict) else content
    if not isinstance(rows, list):
        raise DataError(f"{path} is neither a list of rows nor an object with a list under 'data'.", "Correct the file.")
    return [RawRow(row=number, value=value) for number, value in enumerate(rows, start=1)]


def _line_rows(data: bytes) -> list[RawRow]:
    lines = enumerate(data.split(b"\n"), start=1)
    return [RawRow(row=number, value=_line_value(line)) for number, line in lines if line.strip()]


def _line_value(line: bytes) -> object:
    try:
        value: object = json.loads(line.decode())
    except UnicodeDecodeError as error:
        return Unreadable(field="line", reason=f"is not UTF-8 (byte {error.start} of the line)")
    except (ValueError, RecursionError) as error:
        return Unreadable(field="line", reason=f"is not JSON: {_reason(error)}")
    return value


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at column {error.colno}"
    return "nested too deep" if isinstance(error, RecursionError) else "a number has too many digits"


def _parquet_rows(path: Path) -> list[RawRow]:
    try:
        pyarrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ModuleNotFoundError as error:
        raise DataError(f"{path} needs the package pyarrow.", "pip install pyarrow, or save the rows as .jsonl.") from error
    try:
        rows = parquet.read_table(path).to_pylist()
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise DataError(f"{path} cannot be read as parquet: {error_text(error, first_line=True)}.", "Is the file whole?") from error
    return [RawRow(row=number, value=value) for number, value in enumerate(rows, start=1)]
