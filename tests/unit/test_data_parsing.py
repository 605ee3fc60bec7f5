"""Columns, rows, ids, questions and labels; and what a bad row does."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from sttrl.data import DATASETS, OnBadRow, SourceSpec, Table, folder_name, questions, read_table
from sttrl.data.arithmetic import arithmetic_rows
from sttrl.data.columns import ANSWER_COLUMNS, ID_COLUMNS, QUESTION_COLUMNS
from sttrl.data.rows import MAX_QUESTION_CHARS
from sttrl.data.table import Question
from sttrl.errors import DataError, DataRowError, UsageError
from sttrl.questions import describe
from sttrl.questions.check import warnings
from sttrl.questions.labels import can_be_met, labels, read_label
from sttrl.types import AnswerKind

GOOD = '{"question": "good?", "answer": "1"}'


def read(tmp_path: Path, content: str | bytes, on_bad_row: OnBadRow = "stop", name: str = "set.jsonl") -> Table:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    return read_table(SourceSpec(dataset=str(path), on_bad_row=on_bad_row))


BAD_ROWS: list[tuple[str, str | bytes, str, str]] = [
    ("missing key", '{"answer": "2"}', "question", "is missing"),
    ("null", '{"question": null}', "question", "is missing"),
    ("number", '{"question": 12}', "question", "is a number"),
    ("NaN", '{"question": NaN}', "question", "is a number"),
    ("list", '{"question": ["a", "b"]}', "question", "is a list"),
    ("two turns", '{"question": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}', "question", "is a list"),
    ("empty", '{"question": " \\n"}', "question", "is empty"),
    ("NUL", '{"question": "a\\u0000b"}', "question", "NUL"),
    ("half a surrogate pair", '{"question": "a\\ud800b"}', "question", "surrogate"),
    ("10 MB", json.dumps({"question": "x" * 10 * 2**20}), "question", f"more than {MAX_QUESTION_CHARS}"),
    ("no object", '["question", "good?"]', "row", "is a list, not an object"),
    ("no JSON", '{"question": "good?"', "line", "is not JSON"),
    ("two on a line", GOOD + GOOD, "line", "is not JSON"),
    ("too deep", "[" * 200_000, "line", "nested too deep"),
    ("too many digits", '{"question": ' + "1" * 5000 + "}", "line", "too many digits"),
    ("not UTF-8", b'{"question": "caf\xe9?"}', "line", "is not UTF-8"),
]


@pytest.mark.parametrize(("bad", "field", "reason"), [row[1:] for row in BAD_ROWS], ids=[row[0] for row in BAD_ROWS])
def test_a_bad_row_stops_with_its_place_or_is_skipped_and_counted(tmp_path: Path, bad: str | bytes, field: str, reason: str) -> None:
    content = b"\n".join([GOOD.encode(), b"", bad if isinstance(bad, bytes) else bad.encode(), GOOD.encode()])
    with pytest.raises(DataRowError) as caught:
        read(tmp_path, content)
    assert (caught.value.file, caught.value.line, caught.value.field) == ("set.jsonl", 3, field)
    assert reason in caught.value.problem and len(str(caught.value)) < 300
    table = read(tmp_path, content, "skip")
    assert [(row.row, row.index) for row in table.rows] == [(1, 0), (4, 1)]
    (skipped,) = table.skipped
    assert (skipped.file, skipped.row, skipped.field, skipped.reason) == ("set.jsonl", 3, field, caught.value.problem)
    assert "1 rows: row 3" in describe(table)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("set.json", b""),
        ("set.json", b"{"),
        ("set.json", b'{"rows": []}'),
        ("set.json", b'"text"'),
        ("set.json", b"\xff\xfe[\x00]\x00"),
        ("set.json", b'["caf\xe9"]'),
        ("set.json", b"[" * 200_000),
        ("set.json", b"[" + b"1" * 5000 + b"]"),
        ("set.json", b"[]"),
        ("set.jsonl", b"\n \n"),
        ("set.jsonl", b'{"other": "good?"}'),
        ("set.json.gz", b"no gzip"),
        ("set.jsonl.gz", b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03cut"),
        ("set.parquet", b"no parquet"),
    ],
)
def test_a_bad_file_is_a_data_error_of_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    for on_bad_row in ("stop", "skip"):
        with pytest.raises(DataError) as caught:
            read(tmp_path, content, on_bad_row, name)  # type: ignore[arg-type]
        assert name in str(caught.value) and "\n" not in str(caught.value) and caught.value.hint


def test_a_file_that_decompresses_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sttrl.data.files.MAX_FILE_BYTES", len(GOOD))
    assert len(read(tmp_path, GOOD).rows) == 1
    with pytest.raises(DataError, match="more than"):
        read(tmp_path, GOOD + "\n")


def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path: Path) -> None:
    for name, content in (("set.json", f"[{GOOD}]"), ("set.jsonl", GOOD)):
        assert read(tmp_path, b"\xef\xbb\xbf" + content.encode(), name=name).rows[0].text == "good?"


def test_a_line_separator_inside_a_text_does_not_end_its_row(tmp_path: Path) -> None:
    table = read(tmp_path, '{"question":\r"a\u2028b\u0085c"}\r\n' + GOOD)
    assert [row.text for row in table.rows] == ["a\u2028b\u0085c", "good?"]


def test_only_bad_rows_are_an_error_even_when_skipping(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="All 2 rows"):
        read(tmp_path, "1\n2", "skip")


def test_columns_are_found_by_their_usual_names(tmp_path: Path) -> None:
    row = {"question": "second", "Problem": "first", "solution": r"so \boxed{\frac{1}{2}}", "uid": "u"}
    table = read(tmp_path, json.dumps(row))
    assert (table.columns.question, table.columns.answer, table.columns.id) == (("Problem",), "solution", "uid")
    assert labels(table) == {"u": r"\frac{1}{2}"}


def test_one_strange_row_does_not_choose_the_column(tmp_path: Path) -> None:
    table = read(tmp_path, '{"prompt": "odd"}\n' + f"{GOOD}\n{GOOD}", "skip")
    assert table.columns.question == ("question",) and [bad.row for bad in table.skipped] == [1]


def test_flags_name_columns_and_a_wrong_one_is_a_usage_error(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text('{"question": "a", "text": "b", "gold": "3", "key": "k1"}')
    table = read_table(
        SourceSpec(dataset=str(path), question_column=("text",), answer_column="gold", id_column="key", answer_kind="number")
    )
    assert questions(table) == (Question(id="k1", index=0, text="b", kind="number", row=1),)
    assert labels(table) == {"k1": "3"}
    with pytest.raises(UsageError, match="--answer_column 'typo'.*'gold'"):
        read_table(SourceSpec(dataset=str(path), answer_column="typo"))


def test_one_user_message_and_a_nested_label_as_verl_writes_them(tmp_path: Path) -> None:
    row = {"prompt": [{"role": "user", "content": "hi?"}], "reward_model": {"style": "rule", "ground_truth": "4"}}
    table = read(tmp_path, json.dumps(row))
    assert table.rows[0].text == "hi?" and labels(table) == {"set-0": "4"}


def test_ids_that_are_not_unique_are_replaced_by_numbers_unless_they_were_promised(tmp_path: Path) -> None:
    rows = '{"%s": "x", "question": "a"}\n\n{"%s": "x", "question": "b"}'
    table = read(tmp_path, rows % ("id", "id"))
    assert [row.id for row in table.rows] == ["set-0", "set-2"] and "'id'" in str(table.columns.id_note)
    with pytest.raises(DataRowError, match="earlier row") as caught:
        read(tmp_path, rows % ("unique_id", "unique_id"))
    assert (caught.value.line, caught.value.field) == (3, "unique_id")
    with pytest.raises(DataRowError, match="earlier row"):
        read_table(SourceSpec(dataset=str(tmp_path / "set.jsonl"), id_column="unique_id"))
    table = read(tmp_path, rows % ("unique_id", "unique_id"), "skip")
    assert [row.id for row in table.rows] == ["x"] and len(table.skipped) == 1


@pytest.mark.parametrize("bad_id", ["null", "1.5", "true", '""', '"a\\nb"', "[1]", '"' + "x" * 1001 + '"', "9" * 30])
def test_a_promised_id_that_is_none_is_a_bad_row(tmp_path: Path, bad_id: str) -> None:
    with pytest.raises(DataRowError) as caught:
        read(tmp_path, f'{{"unique_id": {bad_id}, "question": "a"}}')
    assert caught.value.field == "unique_id"


@pytest.mark.parametrize("plain", ["0", "AIME-TTT-3", "a.b_c-d", "x" * 80])
def test_a_plain_id_is_its_own_folder(plain: str) -> None:
    assert folder_name(plain) == plain


STRANGE = ["../../etc/passwd", "..", ".", "", "/", "a/b", "a-b/", "a\\b", "nul\0", "~", "a..b", "a.", ".ssh", "x" * 81, "é", "\ud800"]


def test_strange_ids_stay_in_the_run_folder_and_apart(tmp_path: Path) -> None:
    names = [folder_name(strange) for strange in STRANGE]
    assert len(set(names)) == len(STRANGE)
    assert not set(names) & set(STRANGE)
    for name in names:
        assert len(name) <= 80 and ".." not in name
        assert (tmp_path / name).resolve().parent == tmp_path.resolve()
        assert folder_name(name) != name, "a made name is never a plain one"


def test_questions_hold_no_label_and_keep_the_order_of_the_table(tmp_path: Path) -> None:
    lines = [json.dumps({"id": f"q{number}", "question": f"{number}?", "answer": f"LABEL{number}"}) for number in range(5)]
    table = read(tmp_path, "\n".join(lines))
    assert [question.id for question in questions(table)] == ["q0", "q1", "q2", "q3", "q4"]
    assert [(question.id, question.index) for question in questions(table, ids=["q3", "q1", "q3"])] == [("q1", 1), ("q3", 3)]
    assert [question.id for question in questions(table, ids=["q3", "q1"], limit=1)] == ["q1"]
    assert len(questions(table, limit=99)) == 5
    assert "LABEL" not in repr(table) + repr(questions(table))


@pytest.mark.parametrize("chosen", [{"ids": ["q1", "nope"]}, {"ids": []}, {"limit": 0}])
def test_ids_and_limits_that_leave_nothing_are_usage_errors(tmp_path: Path, chosen: dict[str, object]) -> None:
    table = read(tmp_path, '{"id": "q1", "question": "a"}')
    with pytest.raises(UsageError) as caught:
        questions(table, **chosen)  # type: ignore[arg-type]
    assert "q1" in caught.value.hint or "--limit" in caught.value.message


def test_labels_that_are_shuffled_or_deleted_change_no_question(tmp_path: Path) -> None:
    rows = [{"question": f"{number}?", "answer": str(number)} for number in range(4)]
    shuffled = [{**row, "answer": answer} for row, answer in zip(rows, ["3", None, float("nan"), [None]], strict=True)]
    deleted = [{"question": row["question"]} for row in rows]
    tables = [read(tmp_path, "\n".join(map(json.dumps, version))) for version in (rows, shuffled, deleted)]
    assert questions(tables[0]) == questions(tables[1]) == questions(tables[2])
    assert [len(labels(table)) for table in tables] == [4, 1, 0]
    assert "no column holds the answers" in describe(tables[2])
    assert "3 questions have no label that can be read: row 2, 3, 4" in describe(tables[1])


LABELS: list[Any] = [
    ("025", "number", "25"),
    ("000", "number", "0"),
    ("-0", "number", "0"),
    ("142.0", "number", "142"),
    (142.0, "number", "142"),
    (8.5, "number", "8.5"),
    ("3.50", "number", "3.5"),
    ("-007.10", "number", "-7.1"),
    (17, "number", "17"),
    ("$1,000", "number", "1000"),
    ("2+2=4\n#### 4\nno\n####  70,000 \n", "number", "70000"),
    ("about 3", "number", "about 3"),
    (r"so \boxed{1} and \boxed{\frac{1}{2}}", "math", r"\frac{1}{2}"),
    (r"\boxed{1", "math", r"\boxed{1"),
    (r" \left( 3, \frac{\pi}{2} \right) ", "math", r"\left( 3, \frac{\pi}{2} \right)"),
    ("025", "math", "025"),
    ("(b)", "choice", "B"),
    ("C.", "choice", "C"),
    ("both", "choice", "both"),
    (None, "math", None),
    (True, "number", None),
    (float("nan"), "number", None),
    (float("inf"), "number", None),
    pytest.param(10**5000, "number", None, id="huge"),
    ("  ", "math", None),
    ("a\0", "math", None),
    (["4"], "math", "4"),
    (["1", 2.0], "math", "1, 2"),
    ([], "math", None),
    (["4", None], "math", None),
    (Decimal("2.50"), "number", "2.5"),
    (Decimal("1E+2"), "number", "100"),
    (Decimal("NaN"), "number", None),
    ({"ground_truth": "4"}, "math", "4"),
]


@pytest.mark.parametrize(("cell", "kind", "label"), LABELS)
def test_labels_come_out_in_their_normal_form(cell: object, kind: AnswerKind, label: str | None) -> None:
    assert read_label(cell, kind) == label
    assert label is None or read_label(label, kind) == label


def test_a_worked_solution_without_a_mark_is_no_label() -> None:
    assert read_label("the whole story", "math", worked=True) is None
    assert read_label("the story\n#### 4", "math", worked=True) == "4"


def test_labels_that_no_answer_can_equal_are_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    rows = [{"question": "a", "answer": "twelve"}, {"question": "b", "answer": "3"}, {"question": "c", "answer": r"\frac{1}{2"}]
    path.write_text("\n".join(map(json.dumps, rows)))
    for kind, odd in (("number", "1, 3"), ("choice", "1, 2, 3"), ("math", "3")):
        said = warnings(read_table(SourceSpec(dataset=str(path), answer_kind=kind)))  # type: ignore[arg-type]
        count = odd.count(",") + 1
        assert said == (f"{count} questions have a label that no answer can equal (the answers are of the kind {kind}): row {odd}",)


@pytest.mark.parametrize(
    ("label", "kind", "option_count", "met"),
    [
        ("B", "choice", None, True),
        ("J", "choice", None, True),
        ("K", "choice", None, False),
        ("K", "choice", 11, True),
        ("E", "choice", 4, False),
        ("AB", "choice", None, False),
        ("1/2", "number", None, True),
        ("none", "number", None, False),
        ("none", "math", None, True),
        ("9" * 500, "math", None, False),
    ],
)
def test_a_label_can_be_met_where_some_answer_equals_it(label: str, kind: AnswerKind, option_count: int | None, met: bool) -> None:
    assert can_be_met(label, kind, option_count) is met


def test_a_description_escapes_what_a_terminal_would_obey(tmp_path: Path) -> None:
    assert "\x1b" not in describe(read(tmp_path, json.dumps({"question": "\x1b[2J clear", "answer": "1"})))


def test_arithmetic_demo_is_a_fair_mix_and_always_the_same() -> None:
    table = read_table(SourceSpec(dataset="arithmetic-demo"))
    texts = [row.text for row in table.rows]
    assert len(set(texts)) == len(texts) == table.dataset.rows == 56
    assert texts[:4] == [f"What is {sum_}? Reply with only the number." for sum_ in ("2 + 5", "9 * 4", "5 + 8", "9 * 8")]
    found = labels(table)
    for row in table.rows:
        left, sign, right = row.text.removeprefix("What is ").removesuffix("? Reply with only the number.").split()
        assert left in "23456789" and right in "23456789" and left != right
        assert found[row.id] == str(int(left) + int(right) if sign == "+" else int(left) * int(right))
    signs = [text.split()[3] for text in texts]
    assert signs == ["+", "*"] * 28
    first = list(found.values())[:12]
    assert sum(int(answer) >= 10 for answer in first[::2]) >= 3 and sum(int(answer) >= 20 for answer in first[1::2]) >= 3
    assert {row.id for row in table.rows} == {folder_name(row.id) for row in table.rows}
    assert arithmetic_rows() == arithmetic_rows() and table.dataset.instruction is None


def test_the_page_on_data_names_every_data_set_column_and_revision() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    levels = {f"MATH-L{level}-TTT" for level in range(2, 5)}
    pins = [entry.hub.revision[:8] for entry in DATASETS.values() if entry.hub is not None and entry.hub.revision is not None]
    columns = [", ".join(names) for names in (QUESTION_COLUMNS, ANSWER_COLUMNS, ID_COLUMNS)]
    assert [
        said for said in [*(set(DATASETS) - levels), *pins, *columns, f"{MAX_QUESTION_CHARS:_}".replace("_", " ")] if said not in page
    ] == []
    for entry in DATASETS.values():
        assert entry.name in levels or entry.name.startswith("MATH-L") or f"| {entry.name} | {entry.rows} | {entry.kind} |" in page
