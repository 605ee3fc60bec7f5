"""Where a data set comes from: named, from a file, from the hub; and what is said when it is nowhere."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_hub import FakeHub

from sttrl.data import DATASETS, SourceSpec, Table, questions, read_table
from sttrl.data.hub import parse_hub_source, read_hub
from sttrl.data.registry import SUFFIXES, NamedDataset
from sttrl.errors import DataError, DataRowError, SttrlError, UsageError
from sttrl.questions import describe
from sttrl.questions.check import warnings
from sttrl.questions.labels import can_be_met, labels

REPO = Path(__file__).resolve().parents[2]
BENCHMARK_FOLDER = Path(os.environ.get("STTRL_DATA") or REPO.parent / "shared" / "data")
ROW_COUNTS = {
    "AIME-TTT": 30,
    "AMC-TTT": 83,
    "MATH-TTT": 500,
    "MATH-L1-TTT": 43,
    "MATH-L2-TTT": 90,
    "MATH-L3-TTT": 105,
    "MATH-L4-TTT": 128,
    "MATH-L5-TTT": 134,
    "GSM8K-TTT": 1319,
    "GPQA-TTT": 198,
}
ROWS = [{"problem": "one?", "answer": "1"}, {"problem": "two?", "answer": "2"}]


@pytest.fixture(autouse=True)
def _no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STTRL_DATA", raising=False)


@pytest.fixture(scope="module")
def benchmark_tables() -> Iterator[dict[str, Table]]:
    if not (BENCHMARK_FOLDER / "AIME-TTT.json").is_file():
        pytest.skip(f"the benchmark files are not in {BENCHMARK_FOLDER}; STTRL_DATA names their folder")
    yield {name: read_table(SourceSpec(dataset=name, data_dir=BENCHMARK_FOLDER)) for name in ROW_COUNTS}


def test_every_benchmark_has_the_rows_and_labels_it_should_have(benchmark_tables: dict[str, Table]) -> None:
    assert {name: len(table.rows) for name, table in benchmark_tables.items()} == ROW_COUNTS
    for name, table in benchmark_tables.items():
        found = labels(table)
        assert len(found) == ROW_COUNTS[name] == DATASETS[name].rows
        assert all(can_be_met(label, table.dataset.kind) for label in found.values())
        assert len({question.id for question in questions(table)}) == ROW_COUNTS[name]
        assert warnings(table) == ()


def test_labels_of_the_benchmarks_come_out_right(benchmark_tables: dict[str, Table]) -> None:
    by_name = {name: list(labels(table).values()) for name, table in benchmark_tables.items()}
    assert by_name["AIME-TTT"][:3] == ["204", "25", "809"]
    assert by_name["AMC-TTT"][:3] == ["142", "144", "81"]
    assert by_name["GSM8K-TTT"][:5] == ["18", "3", "70000", "540", "20"]
    assert set(by_name["GPQA-TTT"]) == set("ABCD")
    raw = json.loads((BENCHMARK_FOLDER / "MATH-TTT.json").read_text(encoding="utf-8"))
    assert by_name["MATH-TTT"] == [row["answer"] for row in raw]
    assert by_name["MATH-TTT"][0] == r"\left( 3, \frac{\pi}{2} \right)"


def test_math_levels_are_a_partition_of_math(benchmark_tables: dict[str, Table]) -> None:
    levels = [row.id for level in range(1, 6) for row in benchmark_tables[f"MATH-L{level}-TTT"].rows]
    assert sorted(levels) == sorted(row.id for row in benchmark_tables["MATH-TTT"].rows)


def test_description_shows_an_example_but_nothing_of_gpqa(benchmark_tables: dict[str, Table]) -> None:
    for name, table in benchmark_tables.items():
        text = describe(table)
        shown = [row.id for row in table.rows if row.text.splitlines()[0][:30] in text]
        assert bool(shown) == (name != "GPQA-TTT")
        assert table.rows[0].text[:8] not in repr(table)
        assert f"{ROW_COUNTS[name]} of {ROW_COUNTS[name]} questions have a label" in text


def test_a_gpqa_file_given_as_a_path_keeps_its_settings(benchmark_tables: dict[str, Table]) -> None:
    table = read_table(SourceSpec(dataset=str(BENCHMARK_FOLDER / "GPQA-TTT.json.gz")))
    assert table.dataset == DATASETS["GPQA-TTT"]
    assert table.rows == benchmark_tables["GPQA-TTT"].rows


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    """The rows in the form that the file's name promises."""
    kind = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    if kind == "parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return path
    if kind in ("csv", "tsv"):
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), delimiter="," if kind == "csv" else "\t")
        writer.writeheader()
        writer.writerows(rows)
        content = text.getvalue()
    else:
        content = json.dumps(rows) if kind == "json" else "\n".join(map(json.dumps, rows))
    path.write_bytes(gzip.compress(content.encode()) if path.name.lower().endswith(".gz") else content.encode())
    return path


KINDS = [suffix.removeprefix(".") for suffix in SUFFIXES] + ["JSONL", "Csv", "JSON.GZ"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_gives_the_same_table(tmp_path: Path, kind: str) -> None:
    table = read_table(SourceSpec(dataset=str(write(tmp_path / f"mine.{kind}", ROWS))))
    assert [(row.id, row.index, row.row, row.text) for row in table.rows] == [("mine-0", 0, 1, "one?"), ("mine-1", 1, 2, "two?")]
    assert labels(table) == {"mine-0": "1", "mine-1": "2"}
    assert table.dataset.kind == "math"


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.ndjson", "rows.jsonl.gz"])
@pytest.mark.parametrize("indent", [None, 2])
def test_a_list_in_a_file_of_lines_is_its_rows(tmp_path: Path, name: str, indent: int | None) -> None:
    content = json.dumps(ROWS, indent=indent).encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    table = read_table(SourceSpec(dataset=str(tmp_path / name)))
    assert [(row.row, row.text) for row in table.rows] == [(1, "one?"), (2, "two?")]


TABLES = {
    "quotes, commas and line breaks": ('question,answer\r\n"a, ""b""\nc?",1\r\n', 'a, "b"\nc?'),
    "semicolons": ("question;answer\na, b?;1,5\n", "a, b?"),
    "a byte order mark": ("\ufeffquestion,answer\na?,1\n", "a?"),
    "a column": ("question\na?\n", "a?"),
    "options as a list": ("question,options,answer\na?,\"['x', 'y']\",y\n", "a?\n\nA. x\nB. y"),
    "options as columns": ("question,A,B,C,answer\na?,x,y,,B\n", "a?\n\nA. x\nB. y"),
    "a long cell": (f"question,answer\n{'x' * 200_000},1\n", "x" * 200_000),
}


@pytest.mark.parametrize(("content", "text"), TABLES.values(), ids=TABLES)
def test_a_table_of_text_is_read(tmp_path: Path, content: str, text: str) -> None:
    (tmp_path / "rows.csv").write_bytes(content.encode())
    (row,) = read_table(SourceSpec(dataset=str(tmp_path / "rows.csv"))).rows
    assert row.text == text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'question,answer\na?,1\n"b?,2\nc?,3\n', "is not CSV near line 4"),
        (b"question,question\na?,1\n", "has the column 'question' twice"),
        (b"question,answer\ncaf\xe9?,1\n", "is not UTF-8"),
        (b"question,answer\n", "holds no rows"),
        (b"", "holds no rows"),
    ],
)
def test_a_table_that_is_broken_as_a_whole_loses_no_row_in_silence(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "rows.csv").write_bytes(content)
    for on_bad_row in ("stop", "skip"):
        with pytest.raises(DataError, match=said):
            read_table(SourceSpec(dataset=str(tmp_path / "rows.csv"), on_bad_row=on_bad_row))  # type: ignore[arg-type]


def test_a_row_with_cells_too_many_or_too_few_is_a_bad_row(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("question,answer\na?,1\nb?\nc, d?,2\n")
    with pytest.raises(DataRowError, match="row 2, field 'line'.*has 1 cells"):
        read_table(SourceSpec(dataset=str(tmp_path / "rows.csv")))
    table = read_table(SourceSpec(dataset=str(tmp_path / "rows.csv"), on_bad_row="skip"))
    assert [row.text for row in table.rows] == ["a?"] and [bad.row for bad in table.skipped] == [2, 3]


def test_rows_under_data_and_lines_in_a_json_file_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"data": ROWS}))
    (tmp_path / "b.json").write_text("\n".join(map(json.dumps, ROWS)))
    for name in ("a", "b"):
        assert [row.text for row in read_table(SourceSpec(dataset=str(tmp_path / f"{name}.json"))).rows] == ["one?", "two?"]


def test_data_dir_goes_before_the_variable_and_ttrls_layout_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    (first / "AMC-TTT").mkdir(parents=True)
    second.mkdir()
    write(first / "AMC-TTT" / "test.json", [{"prompt": "in data_dir?", "answer": "142.0"}])
    write(second / "AMC-TTT.json", [{"prompt": "in the variable?", "answer": "7"}])
    monkeypatch.setenv("STTRL_DATA", str(second))
    table = read_table(SourceSpec(dataset="AMC-TTT", data_dir=first))
    assert [row.text for row in table.rows] == ["in data_dir?"]
    assert labels(table) == {"AMC-TTT-0": "142"}
    assert [row.text for row in read_table(SourceSpec(dataset="AMC-TTT")).rows] == ["in the variable?"]
    assert "AMC-TTT should have 83 rows, not 1" in warnings(table)


def test_a_named_set_without_a_hub_is_read_from_folders_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS, "MINE-TTT", NamedDataset(name="MINE-TTT", rows=2))
    write(tmp_path / "MINE-TTT.csv", ROWS)
    assert [row.text for row in read_table(SourceSpec(dataset="MINE-TTT", data_dir=tmp_path)).rows] == ["one?", "two?"]
    with pytest.raises(DataError, match="MINE-TTT is on no hub.*MINE-TTT.json.*--data_dir"):
        read_table(SourceSpec(dataset="MINE-TTT"))


@pytest.mark.parametrize("source", [SourceSpec(dataset="AIME-TTT", data_dir=Path("/does/not/exist")), SourceSpec(dataset="x.jsonl")])
def test_what_is_not_there_is_a_data_error(source: SourceSpec) -> None:
    with pytest.raises(DataError) as caught:
        read_table(source)
    assert caught.value.exit_code == 3


def test_an_unknown_name_gets_a_suggestion_and_the_list() -> None:
    with pytest.raises(DataError) as caught:
        read_table(SourceSpec(dataset="aime-tt"))
    assert "Did you mean AIME-TTT?" in caught.value.hint
    assert all(name in caught.value.hint for name in DATASETS)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.pkl").write_bytes(b"\x80\x04N.")
    with pytest.raises(DataError, match="no kind of file"):
        read_table(SourceSpec(dataset=str(tmp_path / "rows.pkl")))


FIRST_ROW = {"id": 7, "problem": "seven?", "answer": 142.0, "level": 1}
SECOND_ROW = {"id": 8, "problem": "eight?", "answer": 8.5, "level": 2}


@pytest.fixture()
def hub(monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    fake = FakeHub([FIRST_ROW, SECOND_ROW])
    monkeypatch.setattr("sttrl.data.hub.import_module", lambda name: fake)
    return fake


def test_a_named_set_comes_from_the_hub_at_its_pinned_revision(hub: FakeHub) -> None:
    table = read_table(SourceSpec(dataset="AMC-TTT"))
    assert hub.asked == [("AI-MO/aimo-validation-amc", None, "train", "69d78a4a2c840e82d69af6bc742bda09005f6316")]
    assert labels(table) == {"7": "142", "8": "8.5"}
    assert table.source == "hf:AI-MO/aimo-validation-amc@69d78a4a2c840e82d69af6bc742bda09005f6316:train"


def test_every_hub_source_is_pinned_to_a_commit() -> None:
    hubs = [entry.hub for entry in DATASETS.values() if entry.hub is not None]
    assert len(hubs) >= len(ROW_COUNTS)
    assert all(hub.revision is not None and len(hub.revision) == 40 and int(hub.revision, 16) for hub in hubs)


@pytest.mark.parametrize("level", range(1, 6))
def test_a_level_of_math_is_a_selection_that_keeps_row_numbers(hub: FakeHub, level: int) -> None:
    hub.answer = [{"unique_id": f"q{number}", "problem": f"{number}?", "answer": "1", "level": number} for number in range(1, 6)]
    table = read_table(SourceSpec(dataset=f"MATH-L{level}-TTT"))
    assert [(row.id, row.row, row.index) for row in table.rows] == [(f"q{level}", level, 0)]


GPQA_ROW = {
    "Record ID": "rec1",
    "Question": "Which? ",
    "Correct Answer": "yes\n",
    "Incorrect Answer 1": "no",
    "Incorrect Answer 2": "perhaps",
    "Incorrect Answer 3": "never",
}


@pytest.mark.parametrize("dataset", ["GPQA-TTT", "hf:Idavidrein/gpqa:gpqa_diamond"])
def test_gpqa_of_the_hub_becomes_multiple_choice(hub: FakeHub, dataset: str) -> None:
    hub.answer = [GPQA_ROW] if dataset in DATASETS else {"train": [GPQA_ROW]}
    table = read_table(SourceSpec(dataset=dataset))
    (row,), label = table.rows, labels(table)["rec1"]
    lines = row.text.splitlines()
    assert lines[:2] == ["Which?", ""]
    assert sorted(line[3:] for line in lines[2:]) == ["never", "no", "perhaps", "yes"]
    assert [line[:3] for line in lines[2:]] == ["A. ", "B. ", "C. ", "D. "]
    assert f"{label}. yes" in lines
    assert "Which?" not in describe(table)


def test_the_order_of_gpqas_options_does_not_depend_on_which_is_right(hub: FakeHub) -> None:
    swapped = {**GPQA_ROW, "Correct Answer": "no", "Incorrect Answer 1": "yes"}
    hub.answer = [GPQA_ROW]
    right = read_table(SourceSpec(dataset="GPQA-TTT"))
    hub.answer = [swapped]
    wrong = read_table(SourceSpec(dataset="GPQA-TTT"))
    assert questions(right) == questions(wrong)
    assert labels(right) != labels(wrong)


def test_a_gpqa_row_with_a_missing_option_is_a_bad_row(hub: FakeHub) -> None:
    hub.answer = [{**GPQA_ROW, "Incorrect Answer 2": None}]
    with pytest.raises(DataRowError, match="missing"):
        read_table(SourceSpec(dataset="GPQA-TTT"))


@pytest.mark.parametrize(
    ("text", "config", "split"),
    [("hf:a/b", None, None), ("hf:a/b:main:test", "main", "test"), ("hf:a/b:test", None, "test"), ("hf:a/b::dev", None, "dev")],
)
def test_the_parts_of_a_hub_source(text: str, config: str | None, split: str | None) -> None:
    source = parse_hub_source(text)
    assert (source.repo, source.config, source.split) == ("a/b", config, split)


@pytest.mark.parametrize("text", ["hf:", "hf:a", "hf:a/b:c:d:e", "hf:a/../b/c", "hf:/a/b"])
def test_a_hub_source_of_another_form_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError):
        parse_hub_source(text)


def test_without_a_split_the_only_one_or_test_is_read_and_else_asked_for(hub: FakeHub) -> None:
    for splits, expected in (({"train": [FIRST_ROW]}, "7"), ({"train": [FIRST_ROW], "test": [SECOND_ROW]}, "8")):
        hub.answer = splits
        assert [row.id for row in read_table(SourceSpec(dataset="hf:a/b")).rows] == [expected]
    hub.answer = {"train": [FIRST_ROW], "dev": [SECOND_ROW]}
    with pytest.raises(DataError, match="dev, train"):
        read_table(SourceSpec(dataset="hf:a/b"))


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (ConnectionError("Couldn't reach it\nmore\nlines"), "Couldn't reach it."),
        (LookupError("is a gated dataset on the Hub"), "hf auth login"),
        (ValueError(""), "ValueError"),
    ],
)
def test_a_hub_that_fails_is_one_line_with_the_remedy(hub: FakeHub, fault: Exception, said: str) -> None:
    hub.answer = fault
    with pytest.raises(DataError) as caught:
        read_table(SourceSpec(dataset="GPQA-TTT"))
    assert said in str(caught.value) and "--data_dir" in str(caught.value) and "\n" not in str(caught.value)


def test_no_network_is_said_at_once(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    def unresolved(host: str, port: int) -> None:
        raise OSError(f"no address of {host}")

    monkeypatch.setattr(hub, "is_offline_mode", lambda: False)
    monkeypatch.setattr("socket.getaddrinfo", unresolved)
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(DataError, match="cannot be reached.*--data_dir"):
        read_table(SourceSpec(dataset="AIME-TTT"))
    assert hub.asked == []


def test_a_missing_package_is_one_line_with_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("sttrl.data.hub.import_module", missing)
    monkeypatch.setattr("sttrl.data.files.import_module", missing)
    with pytest.raises(DataError, match="pip install datasets"):
        read_hub(parse_hub_source("hf:a/b"), "or else")
    (tmp_path / "rows.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="pip install pyarrow"):
        read_table(SourceSpec(dataset=str(tmp_path / "rows.parquet")))


def test_importing_the_room_is_light() -> None:
    heavy = "torch datasets transformers pyarrow jinja2 huggingface_hub pandas numpy"
    code = f"import sys, sttrl.data; print(*[name for name in {heavy.split()!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_nothing_of_a_question_stands_in_an_error(tmp_path: Path) -> None:
    path = tmp_path / "gpqa.jsonl"
    path.write_text('{"question": "SECRET\\u0000", "answer": "A"}\n{"question": ["SECRET"]}\n{"question": "SECRET\n')
    for on_bad_row in ("stop", "skip"):
        with pytest.raises(SttrlError) as caught:
            read_table(SourceSpec(dataset=str(path), on_bad_row=on_bad_row))  # type: ignore[arg-type]
        assert "SECRET" not in str(caught.value)
