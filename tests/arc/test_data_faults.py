"""ARC data sets: every bad file, with its exact line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from arc_files import TRAIN, A, B, fault_lines, pairs, read, save, task

from sttrl.arc.files import read_json
from sttrl.arc.grids import as_grid
from sttrl.arc.labels import inspect_labels, read_labels
from sttrl.arc.sources import ArcSpec, inspect_tasks
from sttrl.cli import main
from sttrl.errors import DataError


def test_faults_of_a_task(tmp_path: Path) -> None:
    good, wide, tall = {"input": A, "output": B}, [[0] * 31], [[0]] * 31
    bad = {
        "a": task({"input": A}, train=[good, {"input": [[1, 2], [3]], "output": B}]),
        "b": task({"input": [[1, 10]]}),
        "c": task({"input": A}, train=[]),
        "d": task(),
        "e": task({"input": wide}, train=[{"input": tall, "output": []}]),
        "f": task({"input": [[]]}, {}, 3, train=[{"input": A}, []]),
        "g": {"train": {}, "test": [{"input": A}]},
        "h": {"train": TRAIN},
        "i": 5,
        "j": task({"input": [[True, 0]]}, {"input": [[1.0]]}, {"input": "A"}),
        "": task({"input": A}),
        "z": task({"input": A}),
    }
    file = save(tmp_path / "x_challenges.json", bad)
    assert fault_lines(file) == [
        f"{file}, task '': the id is empty, too long or not printable.",
        f"{file}, task a, demonstration 2, input: row 2 has 1 cells, and row 1 has 2.",
        f"{file}, task b, test 1, input: row 1, column 2 is 10, and a colour is a number from 0 to 9.",
        f"{file}, task c: there are no demonstrations.",
        f"{file}, task d: there are no test inputs.",
        f"{file}, task e, demonstration 1, input: 31 rows, and a grid has at most 30.",
        f"{file}, task e, demonstration 1, output: a grid without rows.",
        f"{file}, task e, test 1, input: row 1 has 31 cells, and a grid has at most 30 columns.",
        f'{file}, task f, demonstration 1: there is no "output".',
        f'{file}, task f, demonstration 2: it is not an object with "input" and "output".',
        f"{file}, task f, test 1, input: row 1 is empty.",
        f'{file}, task f, test 2: there is no "input".',
        f'{file}, task f, test 3: it is not an object with "input".',
        f'{file}, task g: "train" is not a list.',
        f'{file}, task h: there is no "test".',
        f'{file}, task i: it is not an object with "train" and "test".',
        f"{file}, task j, test 1, input: row 1, column 1 is True, and a colour is a number from 0 to 9.",
        f"{file}, task j, test 2, input: row 1, column 1 is 1.0, and a colour is a number from 0 to 9.",
        f"{file}, task j, test 3, input: not a list of rows.",
    ]
    assert [found.id for found in inspect_tasks(ArcSpec(dataset=str(file))).tasks] == ["z"]
    with pytest.raises(DataError) as stop:
        read(file)
    assert str(stop.value) == (
        f"{file}, task '': the id is empty, too long or not printable. There are 18 more faults; `python main.py data {file}` lists all."
    )


def test_one_fault_is_one_line_with_a_remedy(tmp_path: Path) -> None:
    file = save(tmp_path / "x_challenges.json", {"a": task({"input": [[1], [2, 3]]})})
    with pytest.raises(DataError) as stop:
        read(file)
    assert str(stop.value) == f"{file}, task a, test 1, input: row 2 has 2 cells, and row 1 has 1. Correct the file."
    assert stop.value.exit_code == 3


def test_a_long_cell_does_not_make_a_long_line(tmp_path: Path) -> None:
    file = save(tmp_path / "x_challenges.json", {"a": task({"input": [["\n" * 1000]]})})
    (line,) = fault_lines(file)
    assert len(line) < len(str(file)) + 250 and "\n" not in line


def test_data_sets_for_training_may_have_no_demonstrations(tmp_path: Path) -> None:
    file = save(tmp_path / "x_challenges.json", {"a": task({"input": A}, train=[])})
    assert read(file, need_demos=False).tasks[0].demos == ()


def test_repeated_keys(tmp_path: Path) -> None:
    one = json.dumps(task({"input": A}))
    file = save(tmp_path / "x_challenges.json", f'{{"a": {one}, "b": {one}, "a": {one}}}')
    assert fault_lines(file) == [f"{file}, task a: the id is in the file more than once."]
    save(tmp_path / "x_solutions.json", {"a": [B], "b": [B]})
    assert read_labels(ArcSpec(dataset=str(file))).solutions == {"b": (as_grid(B),)}
    file = save(
        tmp_path / "y" / "t.json", '{"train": [], "train": [{"input": [[1]], "input": [[2]], "output": [[3]]}], "test": [{"input": [[1]]}]}'
    )
    assert fault_lines(file) == [
        f'{file}, task t: the key "train" is there more than once.',
        f'{file}, task t, demonstration 1: the key "input" is there more than once.',
    ]


def test_two_files_of_one_id(tmp_path: Path) -> None:
    one = save(tmp_path / "a.json", task({"input": A}))
    two = save(tmp_path / "a.json.gz", task({"input": A}))
    save(tmp_path / "b.json", task({"input": A}))
    assert fault_lines(tmp_path) == [f"{one}, task a: 2 files have this id.", f"{two}, task a: 2 files have this id."]
    files = [save(tmp_path / "c" / "data" / inner / "t.json", task({"input": A})) for inner in ("x", "y")]
    assert fault_lines(tmp_path / "c") == [f"{file}, task t: 2 files have this id." for file in files]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the file is empty"),
        (" \n", "the file is empty"),
        ('{"a": ', "it is not JSON: Expecting value at line 1, column 7"),
        ("[" * 100_000, "it is not JSON that can be read: nested too deep"),
        ('{"rows": 5}', 'it holds no ARC tasks: there is no "train" and no "test", nor a list of pairs'),
        ("3", 'it holds no ARC tasks: there is no "train" and no "test", nor a list of pairs'),
        ("{}", 'it holds no ARC tasks: there is no "train" and no "test", nor a list of pairs'),
        (
            '{"a": [[[1]]]}',
            "it has lists of grids and no tasks, like a solutions file; give the file whose name ends in _challenges.json",
        ),
    ],
)
def test_files_that_are_not_arc_at_all(tmp_path: Path, text: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = save(tmp_path / "x_challenges.json", text)
    assert fault_lines(file) == [f"{file}: {said}."]
    assert main(["data", str(file)]) == 3
    assert capsys.readouterr() == ("", f"error: {file}: {said}. Correct the file.\n")


def test_a_file_with_other_bytes_than_text(tmp_path: Path) -> None:
    file = tmp_path / "x_challenges.json"
    file.write_bytes(b'{"a": "\xff"}')
    assert fault_lines(file) == [f"{file}: it is not UTF-8 (byte 7)."]
    file = tmp_path / "y_challenges.json.gz"
    file.write_bytes(gzip.compress(b"{}" * 500)[:20])
    assert fault_lines(file)[0].startswith(f"{file}: it cannot be read (")
    assert read_json(save(tmp_path / "z.json", "\ufeff[]"))


def test_a_bad_file_in_a_folder_is_one_fault(tmp_path: Path) -> None:
    save(tmp_path / "a.json", task({"input": A}))
    broken = save(tmp_path / "b.json", "[[")
    other = save(tmp_path / "c.json", {"x": 1})
    assert fault_lines(tmp_path) == [
        f"{broken}: it is not JSON: Expecting value at line 1, column 3.",
        f'{other}: it holds no ARC tasks: there is no "train" and no "test", nor a list of pairs.',
    ]


def test_paths_that_hold_no_data_set(tmp_path: Path) -> None:
    def said(path: Path) -> str:
        with pytest.raises(DataError) as stop:
            read(path)
        return str(stop.value)

    assert said(tmp_path) == f"{tmp_path} holds no task files. Give a challenges file or a folder of task files."
    save(tmp_path / "training" / "a.json", task({"input": A}))
    assert said(tmp_path) == f"{tmp_path} holds no task files. Name one of its folders: training."
    for name in "xy":
        save(tmp_path / f"{name}_challenges.json", {})
    assert said(tmp_path) == f"{tmp_path} holds 2 challenges files: x_challenges.json, y_challenges.json. Name one of them."
    text = save(tmp_path / "x.txt", "")
    assert said(text) == f"{text} is no kind of file that can be read. Its name should end in .json or .json.gz."
    assert said(tmp_path / "none").startswith(f"There is no ARC data set, file or folder '{tmp_path}/none'. Known: ARC-AGI-1-training,")


def test_faults_of_solutions(tmp_path: Path) -> None:
    challenges = {name: task({"input": A}, {"input": B}) for name in "abcdef"}
    file = save(tmp_path / "x_challenges.json", challenges)
    one = json.dumps([A, B])
    written = f'{{"a": {one}, "a": {one}, "b": [[[1]]], "c": [[[1]], [[2]], [[3]]], "d": [[[1]], [[11]]], "e": 5, "g": []}}'
    solutions = save(tmp_path / "x_solutions.json", written)
    labels = inspect_labels(ArcSpec(dataset=str(file)))
    assert [str(fault) for fault in labels.faults] == [
        f"{solutions}, task a: the id is in the file more than once.",
        f"{solutions}, task b: it has 1 output, and the task has 2 test inputs.",
        f"{solutions}, task c: it has 3 outputs, and the task has 2 test inputs.",
        f"{solutions}, task d, output 2: row 1, column 1 is 11, and a colour is a number from 0 to 9.",
        f"{solutions}, task e: the solution is not a list of grids.",
        f"{solutions}, task f: there is no solution.",
        f"{solutions}, task g: the challenges have no such task.",
    ]
    assert labels.known == 0
    assert len(read(file).tasks) == 6  # a run never looks at them
    with pytest.raises(DataError, match="There are 6 more faults; `python main.py data "):
        read_labels(ArcSpec(dataset=str(file)))


@pytest.mark.parametrize("text", ["", "[", "[]"])
def test_a_solutions_file_that_is_none(tmp_path: Path, text: str) -> None:
    file = save(tmp_path / "x_challenges.json", {"a": task({"input": A})})
    save(tmp_path / "x_solutions.json", text)
    with pytest.raises(DataError, match="x_solutions.json: "):
        read_labels(ArcSpec(dataset=str(file)))


def test_faults_of_outputs_inside_task_files(tmp_path: Path) -> None:
    first = save(tmp_path / "a.json", task({"input": A, "output": B}, {"input": A}))
    second = save(tmp_path / "b.json", task({"input": A, "output": [[]]}))
    assert [str(fault) for fault in inspect_labels(ArcSpec(dataset=str(tmp_path))).faults] == [
        f'{first}, task a, test 2: there is no "output", and another test input of the task has one.',
        f"{second}, task b, test 1, output: row 1 is empty.",
    ]


def test_faults_of_flat_pairs(tmp_path: Path) -> None:
    bad = pairs(6)
    bad[1]["output"] = [[1], []]
    bad[3] = {"input": [[1]], "output": [[12]]}
    bad[5] = {"input": "unused"}
    file = save(tmp_path / "a.json", bad)
    assert fault_lines(file) == [f"{file}, task a, pair 2, output: row 2 is empty."]
    assert [str(fault) for fault in inspect_labels(ArcSpec(dataset=str(file))).faults] == [
        f"{file}, task a, pair 4, output: row 1, column 1 is 12, and a colour is a number from 0 to 9."
    ]
