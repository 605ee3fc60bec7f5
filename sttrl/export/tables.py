"""A run as two tables, problems and samples, in CSV or Parquet files."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any, Final

from sttrl.errors import UsageError
from sttrl.export.published import published
from sttrl.export.writing import replacing
from sttrl.library.loaded_run import LoadedRun
from sttrl.library.tables import SAMPLE_COLUMNS, Columns, Row, problem_columns, problem_row, sample_rows

ROWS_AT_ONCE: Final = 1024
"""Rows of Parquet that are in memory at the same time."""


def write_csv(run: LoadedRun, folder: Path) -> tuple[Path, ...]:
    """Write problems.csv and samples.csv: UTF-8, a header, an empty cell for what is missing, ``true`` and ``false``; no lists."""
    return _written(run, folder, "csv", _csv)


def write_parquet(run: LoadedRun, folder: Path) -> tuple[Path, ...]:
    """Write problems.parquet and samples.parquet. Raises `UsageError` if pyarrow is not installed."""
    return _written(run, folder, "parquet", _parquet)


def _written(run: LoadedRun, folder: Path, suffix: str, write: Callable[[Path, Columns, Iterable[Row]], None]) -> tuple[Path, ...]:
    tables: dict[str, tuple[Columns, Iterator[Row]]] = {
        "problems": (problem_columns(run.problems), map(problem_row, run.problems)),
        "samples": (SAMPLE_COLUMNS, (row for problem in run.problems for row in sample_rows(problem))),
    }
    files = []
    for name, (columns, rows) in tables.items():
        files.append(folder / f"{name}.{suffix}")
        with replacing(files[-1]) as temporary:
            write(temporary, columns, (published(row, run.withheld) for row in rows))
    return tuple(files)


def _csv(path: Path, columns: Columns, rows: Iterable[Row]) -> None:
    names = [name for name, kind in columns.items() if kind not in ("wholes", "numbers")]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows([_cell(row.get(name)) for name in names] for row in rows)


def _cell(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value


def _parquet(path: Path, columns: Columns, rows: Iterable[Row]) -> None:
    try:
        arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        raise UsageError("Parquet files need the package pyarrow, which is not installed.", "pip install pyarrow") from error
    kinds = {"text": arrow.string(), "whole": arrow.int64(), "number": arrow.float64(), "flag": arrow.bool_()}
    kinds |= {"wholes": arrow.list_(arrow.int32()), "numbers": arrow.list_(arrow.float32())}
    schema = arrow.schema([(name, kinds[kind]) for name, kind in columns.items()])
    left = iter(rows)
    with parquet.ParquetWriter(path, schema) as writer:
        while part := [{name: row.get(name) for name in columns} for row in islice(left, ROWS_AT_ONCE)]:
            writer.write_table(arrow.Table.from_pylist(part, schema=schema))
