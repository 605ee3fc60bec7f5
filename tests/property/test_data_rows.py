"""Whatever stands in a file, each row becomes a typed row or a DataRowError that names its place."""

from __future__ import annotations

import gzip
import json
import random
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sttrl.data import SourceSpec, folder_name, questions, read_table
from sttrl.data.columns import find_columns
from sttrl.data.rows import RawRow, parse_rows
from sttrl.errors import DataError, DataRowError
from sttrl.questions import describe
from sttrl.questions.labels import labels

KEYS = ["question", "prompt", "answer", "solution", "id", "unique_id", "options", "context", "", "\0", "data", "\ud800"]
LONG_TEXT = "x" * 1_000_001
ODD_TEXTS = ["", " ", "\0", "a\0b", "\ud800", "\ufeff", "../..", "{question}", "#### 7", r"\boxed{{7}", r"\boxed{7", "7", "é"]
ODD_NUMBERS: list[Any] = [None, True, 0, -1, 1.5, float("nan"), float("inf"), 10**5000]
ODD_CELLS: list[Any] = [*ODD_NUMBERS, b"bytes", [], {}, [1], object(), {"ground_truth": "1"}, ["x", "y"], {"text": ["x", "y"]}, LONG_TEXT]


def garbage_row(rng: random.Random) -> Any:
    """A row of which about half are good: usual and odd keys, usual and odd cells, or no row at all."""
    if rng.random() < 0.05:
        return rng.choice([*ODD_CELLS, "text"])
    keys = rng.sample(KEYS, rng.randint(0, 4))
    row = {key: rng.choice([rng.choice(ODD_TEXTS), rng.choice(ODD_CELLS), f"text {rng.random()}"]) for key in keys}
    return {"question": f"Is it {rng.random()}?", "answer": str(rng.randint(0, 99)), **row}


def check_rows(values: list[Any]) -> tuple[int, int]:
    """Skipping, every row is accounted for; stopping, the first bad one is raised. Returns good and bad."""
    raw_rows = [RawRow(row=number, value=value) for number, value in enumerate(values, start=1)]
    try:
        columns = find_columns(values, file="set.jsonl")
    except DataError:
        return 0, len(values)
    rows, skipped = parse_rows(raw_rows, columns, file="set.jsonl", name="set", on_bad_row="skip")
    assert sorted([row.row for row in rows] + [bad.row for bad in skipped]) == list(range(1, len(values) + 1))
    assert [row.index for row in rows] == list(range(len(rows)))
    assert len({row.id for row in rows}) == len(rows) == len({folder_name(row.id) for row in rows})
    for row in rows:
        assert row.text.strip() and "\0" not in row.text and len(row.text.encode()) <= 1_000_000
    for bad in skipped:
        assert bad.reason and bad.file == "set.jsonl" and len(bad.reason) < 200
    try:
        parse_rows(raw_rows, columns, file="set.jsonl", name="set")
    except DataRowError as error:
        assert (error.line, error.field, error.problem) == (skipped[0].row, skipped[0].field, skipped[0].reason)
    else:
        assert not skipped
    return len(rows), len(skipped)


def test_ten_thousand_rows_of_garbage_are_typed_rows_or_row_errors() -> None:
    rng = random.Random(20260)
    good = bad = 0
    while good + bad < 10_000:
        found = check_rows([garbage_row(rng) for _ in range(rng.choice([1, 2, 5, 40]))])
        good, bad = good + found[0], bad + found[1]
    assert good > 2_000 and bad > 2_000, "both sides of the promise were seen"


cells = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(ODD_TEXTS),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=3,
)
rows = st.dictionaries(st.sampled_from(KEYS), cells, max_size=4) | cells


@settings(max_examples=300, deadline=None)
@given(st.lists(rows, min_size=1, max_size=6))
def test_any_rows_are_typed_rows_or_row_errors(values: list[Any]) -> None:
    check_rows(values)


def read_bytes(folder: Path, name: str, content: bytes) -> None:
    """Read a file of any bytes: a table all of whose functions work, or a DataError of one line."""
    path = folder / name
    path.write_bytes(content)
    try:
        table = read_table(SourceSpec(dataset=str(path), on_bad_row="skip"))
    except DataError as error:
        assert "\n" not in str(error)
        return
    found = questions(table)
    assert len(found) == len(table.rows) > 0
    assert set(labels(table)) <= {question.id for question in found}
    json.dumps([[question.id, question.text] for question in found], ensure_ascii=False).encode()
    json.dumps(dict(labels(table)), ensure_ascii=False).encode()
    describe(table).encode()


ODD_LINES = [b'{"question": "a?", "answer": "1"}', b'{"question": "b?"', b"[1]", b"\xff", b"\xef\xbb\xbf", b"NaN", b"", b"\r", b"\0"]
LINES = st.lists(
    st.sampled_from(ODD_LINES) | st.binary(max_size=20) | st.builds(lambda row: json.dumps(row).encode(), rows),
    max_size=6,
)


FILES = ["set.json", "set.jsonl", "set.json.gz", "set.jsonl.gz", "set.ndjson", "set.csv", "set.TSV", "set.csv.gz"]


@settings(max_examples=300, deadline=None)
@given(LINES, st.sampled_from(FILES), st.booleans(), st.integers(0, 40))
def test_any_file_of_text_is_a_table_or_a_data_error(lines: list[bytes], name: str, packed: bool, cut: int) -> None:
    content = b"\n".join(lines)
    if name.endswith(".gz") and packed:
        content = gzip.compress(content, mtime=0)
        content = content[: len(content) - cut] if cut > 20 else content
    with tempfile.TemporaryDirectory() as folder:
        read_bytes(Path(folder), name, content)


def test_any_parquet_columns_are_a_table_or_a_data_error(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    columns: list[list[Any]] = [["a?", None], [1, 2], [b"a\xff", b"b"], [["a"], []], [{"role": "user"}, None], [1.5, float("nan")]]
    for number, question in enumerate(columns):
        for answer in columns:
            table = pyarrow.table({"question": question, "answer": answer, "id": ["x", "x"]})
            pyarrow.parquet.write_table(table, tmp_path / "made.parquet")
            whole = (tmp_path / "made.parquet").read_bytes()
            read_bytes(tmp_path, "set.parquet", whole)
        read_bytes(tmp_path, "set.parquet", whole[: -number - 1])


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=100), st.text(max_size=100))
def test_folder_names_are_safe_and_belong_to_one_id(first: str, second: str) -> None:
    name = folder_name(first)
    assert 0 < len(name) <= 80 and name.isascii() and not set(name) & set("/\\\0:") and ".." not in name and name[0] != "."
    assert folder_name(name) == name or "~" in name
    assert first == second or folder_name(second) != name
