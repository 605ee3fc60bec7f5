"""Local files: .json, .jsonl (plain or .gz) and .parquet, read as data and never as code."""

from __future__ import annotations

import codecs
import gzip
import json
import zlib
from importlib import import_module
from pathlib import Path

from sttrl.data.rows import RawRow, Unreadable
from sttrl.errors import DataError

MAX_FILE_BYTES = 2**30
"""Bytes of a JSON file, once decompressed."""


def read_file(path: Path) -> list[RawRow]:
    """Return the rows of a file with one of the known suffixes. Raises DataError where the file as a whole is bad."""
    if path.name.endswith(".parquet"):
        return _parquet_rows(path)
    data = _read_bytes(path)
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{path} is UTF-16.", "Save it as UTF-8.")
    data = data.removeprefix(codecs.BOM_UTF8)
    return _line_rows(data) if path.name.removesuffix(".gz").endswith(".jsonl") else _json_rows(path, data)


def first_line(error: Exception) -> str:
    """The first line of an error's own message, for a message of one line."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _read_bytes(path: Path) -> bytes:
    try:
        with gzip.open(path) if path.name.endswith(".gz") else path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}.", "Is the file whole, and may you read it?") from error
    if len(data) > MAX_FILE_BYTES:
        raise DataError(f"{path} holds more than {MAX_FILE_BYTES // 2**20} MiB.", "Split it, or save it as .parquet.")
    return data


def _json_rows(path: Path, data: bytes) -> list[RawRow]:
    try:
        content = json.loads(data.decode())
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 (byte {error.start}).", "Save it as UTF-8.") from error
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            return _line_rows(data)
        raise DataError(f"{path} is not JSON: {error}.", "Rows one a line belong in a .jsonl file.") from error
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
        raise DataError(f"{path} cannot be read as parquet: {first_line(error)}.", "Is the file whole?") from error
    return [RawRow(row=number, value=value) for number, value in enumerate(rows, start=1)]
