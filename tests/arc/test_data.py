"""ARC data sets: every layout, every bad file with its exact line, labels kept apart, the named data sets, and pictures."""

from __future__ import annotations

import gzip
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from sttrl.arc.check import check
from sttrl.arc.datasets import ARC_DATASETS, is_arc
from sttrl.arc.files import read_json
from sttrl.arc.flat import FlatPairs, draw_tasks
from sttrl.arc.grids import as_grid
from sttrl.arc.labels import inspect_labels, read_labels
from sttrl.arc.pictures import COLOUR_CODES, grid_lines, grid_svg, shown, task_lines
from sttrl.arc.sources import ArcData, ArcSpec, fingerprint, inspect_tasks, read_tasks, warnings
from sttrl.arc.tasks import Pair, Task
from sttrl.cli import main
from sttrl.errors import DataError

A, B, C = [[1, 2], [3, 4]], [[5]], [[6, 7, 8]]
TRAIN = [{"input": A, "output": B}, {"input": B, "output": C}]
DEMOS = (Pair(input=as_grid(A), output=as_grid(B)), Pair(input=as_grid(B), output=as_grid(C)))


def save(path: Path, value: object) -> Path:
    """Write a JSON file, or text as it is; compressed if its name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = (value if isinstance(value, str) else json.dumps(value)).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def task(*tests: Any, train: Any = None) -> dict[str, Any]:
    return {"train": TRAIN if train is None else train, "test": list(tests)}


def read(path: Path, **options: Any) -> ArcData:
    return read_tasks(ArcSpec(dataset=str(path), **options))


def fault_lines(path: Path) -> list[str]:
    return [str(fault) for fault in inspect_tasks(ArcSpec(dataset=str(path))).faults]


def data_folder() -> Path:
    """The folder of real data sets."""
    named = os.environ.get("STTRL_DATA")
    if named is None:
        pytest.skip("STTRL_DATA does not name a folder of data sets")
    folder = Path(named) / "arc" if (Path(named) / "arc").is_dir() else Path(named)
    if not (folder / "arc-agi_evaluation_challenges.json").is_file():
        pytest.skip("the folder in STTRL_DATA has no ARC data sets")
    return folder


# Layouts


@pytest.mark.parametrize("suffix", [".json", ".json.gz"])
def test_a_kaggle_pair_of_files(tmp_path: Path, suffix: str) -> None:
    file = save(tmp_path / f"x_challenges{suffix}", {"b": task({"input": A}, {"input": B}), "a": task({"input": C})})
    save(tmp_path / f"x_solutions{suffix}", {"a": [B], "b": [C, A]})
    data = read(file)
    assert (data.name, data.layout, data.outputs) == ("x", "kaggle", 3)
    assert data.tasks == (
        Task(id="a", demos=DEMOS, tests=(as_grid(C),)),
        Task(id="b", demos=DEMOS, tests=(as_grid(A), as_grid(B))),
    )
    labels = read_labels(ArcSpec(dataset=str(file)))
    assert labels.solutions == {"a": (as_grid(B),), "b": (as_grid(C), as_grid(A))}
    assert read(tmp_path).tasks == data.tasks  # the folder stands for its only challenges file


def test_a_folder_of_task_files(tmp_path: Path) -> None:
    save(tmp_path / "b.json", task({"input": A, "output": B}))
    save(tmp_path / "a.json.gz", task({"input": C}))
    data = read(tmp_path)
    assert data.layout == "task folder"
    assert [found.id for found in data.tasks] == ["a", "b"]
    labels = read_labels(ArcSpec(dataset=str(tmp_path)))
    assert labels.solutions == {"a": None, "b": (as_grid(B),)}
    assert read(tmp_path / "b.json").layout == "task file"


def test_the_highest_revision_of_a_collection_counts(tmp_path: Path) -> None:
    save(tmp_path / "data" / "x" / "t.json", task({"input": A, "output": A}))
    save(tmp_path / "data" / "x" / "t_v2.json", task({"input": A, "output": B}))
    save(tmp_path / "data" / "x" / "t_v10.json", task({"input": B, "output": C}))
    save(tmp_path / "data" / "y" / "u_v3.json", task({"input": C, "output": C}))
    save(tmp_path / "data" / "w.json", task({"input": C, "output": C}))
    data = read(tmp_path)
    assert data.layout == "collection"
    assert [(found.id, found.tests) for found in data.tasks] == [("t", (as_grid(B),)), ("u", (as_grid(C),)), ("w", (as_grid(C),))]
    assert read_labels(ArcSpec(dataset=str(tmp_path))).solutions["t"] == (as_grid(C),)


def pairs(count: int) -> list[dict[str, Any]]:
    """Pairs that can be told apart: number n has n in its input and n + 1, of another shape, in its output."""
    return [{"input": [[number]], "output": [[number + 1, number]]} for number in range(count)]


def test_flat_pairs_in_the_order_of_the_file(tmp_path: Path) -> None:
    save(tmp_path / "a.json", pairs(5))
    data, labels = read(tmp_path), read_labels(ArcSpec(dataset=str(tmp_path)))
    assert data.layout == "flat pairs"
    assert [pair.input for pair in data.tasks[0].demos] == [((0,),), ((1,),), ((2,),)]
    assert data.tasks[0].tests == (((3,),),)
    assert labels.solutions == {"a": (((4, 3),),)}


def test_re_arc_with_sizes_and_a_seed(tmp_path: Path) -> None:
    for name in "ab":
        save(tmp_path / "tasks" / f"{name}.json", pairs(9))
    save(tmp_path / "metadata.json", {name: {"pso_difficulties": [0.1, 0.9] * 4 + [0.5]} for name in "ab"})
    rule = FlatPairs(sizes=(1, 2), tasks_per_file=3, seed=7, drop_easiest=0.5)
    spec = ArcSpec(dataset=str(tmp_path), flat=rule)
    data, labels = read_tasks(spec), read_labels(spec)
    assert data.layout == "re-arc"
    assert [found.id for found in data.tasks] == ["a-0", "a-1", "a-2", "b-0", "b-1", "b-2"]
    assert [len(found.demos) for found in data.tasks] == [1, 2, 1, 1, 2, 1]
    for found in data.tasks:
        numbers = [pair.input[0][0] for pair in found.demos] + [found.tests[0][0][0]]
        assert set(numbers) <= {1, 3, 5, 7, 8} and len(set(numbers)) == len(numbers)
        assert labels.solutions[found.id] == (((numbers[-1] + 1, numbers[-1]),),)
    assert [found.demos for found in data.tasks[:3]] != [found.demos for found in data.tasks[3:]]
    assert read_tasks(spec).fingerprint == data.fingerprint


def test_re_arc_needs_its_metadata_where_the_easiest_are_dropped(tmp_path: Path) -> None:
    save(tmp_path / "tasks" / "a.json", pairs(9))
    with pytest.raises(DataError, match=r"metadata\.json: it cannot be read"):
        read(tmp_path, flat=FlatPairs(drop_easiest=0.5))


def test_too_few_pairs(tmp_path: Path) -> None:
    file = save(tmp_path / "a.json", pairs(3))
    assert fault_lines(file) == [f"{file}, task a: 3 pairs to use, and 4 are needed."]


@given(
    count=st.integers(1, 30),
    sizes=st.lists(st.integers(0, 6), min_size=1, max_size=3),
    tasks=st.integers(1, 5),
    seed=st.none() | st.integers(0, 99),
    drop=st.sampled_from([0.0, 0.5]),
)
def test_a_task_of_flat_pairs_never_has_a_pair_twice(count: int, sizes: list[int], tasks: int, seed: int | None, drop: float) -> None:
    rule = FlatPairs(sizes=tuple(sizes), tasks_per_file=tasks, seed=seed, drop_easiest=drop)
    difficulties = [(7 * place) % count for place in range(count)]
    try:
        draws = draw_tasks(rule, "a", count, difficulties)
    except ValueError:
        return
    easiest = sorted(range(count), key=lambda place: difficulties[place])[: int(count * drop)]
    assert len(draws) == tasks
    for number, draw in enumerate(draws):
        assert len(draw.demos) == sizes[number % len(sizes)]
        assert len({*draw.demos, draw.test}) == len(draw.demos) + 1
        assert not {*draw.demos, draw.test} & set(easiest)


def test_pairs_drawn_with_replacement() -> None:
    rule = FlatPairs(sizes=(3,), tasks_per_file=50, seed=0, replacement=True)
    assert any(len({*draw.demos, draw.test}) < 4 for draw in draw_tasks(rule, "a", 5))


@pytest.mark.parametrize(
    "settings", [{"sizes": ()}, {"sizes": (-1,)}, {"tasks_per_file": 0}, {"replacement": True}, {"drop_easiest": 1.0}], ids=str
)
def test_rules_without_a_meaning(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        FlatPairs(**settings)


# Labels stay apart


def test_no_output_of_a_test_input_is_in_what_is_read(tmp_path: Path) -> None:
    """Another solution, or none, changes nothing but the sha256 of the files."""
    seen = []
    for number, test in enumerate(({"input": A, "output": C}, {"input": A, "output": "nonsense"}, {"input": A})):
        save(tmp_path / str(number) / "t.json", task(test))
        seen.append(read(tmp_path / str(number)))
    assert len({data.fingerprint for data in seen}) == 1
    assert len({data.tasks for data in seen}) == 1
    assert len({data.sha256 for data in seen}) == 3


def test_the_fingerprint_is_the_same_in_every_layout(tmp_path: Path) -> None:
    tasks = {"b": task({"input": A}), "a": task({"input": C})}
    file = save(tmp_path / "x_challenges.json.gz", tasks)
    for name, value in tasks.items():
        save(tmp_path / "folder" / f"{name}.json", value)
    assert read(file).fingerprint == read(tmp_path / "folder").fingerprint
    one, two = (Task(id="a", demos=DEMOS, tests=(as_grid(grid),)) for grid in (A, B))
    assert fingerprint([one]) != fingerprint([two])


def test_challenges_without_solutions_can_be_read(tmp_path: Path) -> None:
    file = save(tmp_path / "x_challenges.json", {"a": task({"input": C})})
    labels = read_labels(ArcSpec(dataset=str(file)))
    assert labels.solutions == {"a": None} and labels.source is None
    assert labels.missing == f'there is no {tmp_path}/x_solutions.json, and no "test" of {file} has outputs'
    assert "a run works, and nothing can be scored" in check(ArcSpec(dataset=str(file))).text


# Bad files


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


# Named data sets


def test_the_demo_set_comes_with_the_package() -> None:
    data = read_tasks(ArcSpec(dataset="arc-demo"))
    assert [found.id for found in data.tasks] == ["5582e5ca", "6150a2bd", "66e6c45b", "d037b0a7", "d631b094", "e9afcf9a"]
    assert str(data.release) == "arc-demo, release six tasks of 3990304 (the same tasks)"
    assert read_labels(ArcSpec(dataset="arc-demo")).known == 6
    assert "github.com/fchollet/ARC-AGI" in (data.path.parent / "NOTICE").read_text()


@pytest.mark.parametrize("name", [name for name, entry in ARC_DATASETS.items() if entry.folder is None])
def test_the_named_data_sets(name: str) -> None:
    spec = ArcSpec(dataset=name, data_dir=data_folder())
    data, labels = read_tasks(spec), read_labels(spec)
    assert (len(data.tasks), data.outputs) == (ARC_DATASETS[name].releases[0].tasks, ARC_DATASETS[name].releases[0].outputs)
    assert data.release is not None and (data.release.dataset, data.release.same) == (name, True)
    assert warnings(data) == ()
    assert all(len(labels.solutions[found.id] or ()) == len(found.tests) for found in data.tasks)


def test_the_demo_tasks_are_those_of_the_real_data_sets() -> None:
    real = {
        found.id: found
        for name in ("ARC-AGI-1-training", "ARC-AGI-1-evaluation")
        for found in read_tasks(ArcSpec(dataset=name, data_dir=data_folder())).tasks
    }
    assert all(found == real[found.id] for found in read_tasks(ArcSpec(dataset="arc-demo")).tasks)


def test_real_re_arc() -> None:
    folder = data_folder() / "re_arc"
    if not folder.is_dir():
        pytest.skip("the folder in STTRL_DATA has no re_arc")
    spec = ArcSpec(dataset=str(folder), flat=FlatPairs(sizes=(6,), tasks_per_file=3, seed=42, drop_easiest=0.5))
    data = read_tasks(spec)
    assert data.layout == "re-arc"
    assert (len(data.tasks), {len(found.demos) for found in data.tasks}) == (90, {6})
    assert read_labels(spec).known == 90


def test_a_clone_of_the_repository_is_found(tmp_path: Path) -> None:
    save(tmp_path / "ARC-AGI" / "data" / "training" / "a.json", task({"input": A, "output": B}))
    spec = ArcSpec(dataset="ARC-AGI-1-training", data_dir=tmp_path)
    data = read_tasks(spec)
    assert data.layout == "task folder"
    assert warnings(data) == ("ARC-AGI-1-training should have 400 tasks and 416 test outputs, not 1 and 1",)


def test_another_data_set_under_the_same_file_name(tmp_path: Path) -> None:
    """Kaggle's files of 2025 have ARC-AGI-2 under the names that ARC-AGI-1 has here."""
    tasks = {str(number): task(*([{"input": A}] * (48 if number == 0 else 1))) for number in range(120)}
    save(tmp_path / "arc-agi_evaluation_challenges.json", tasks)
    data = read_tasks(ArcSpec(dataset="ARC-AGI-1-evaluation", data_dir=tmp_path))
    assert warnings(data) == (
        "ARC-AGI-1-evaluation should have 400 tasks and 419 test outputs, not 120 and 167; it looks like ARC-AGI-2-evaluation, "
        "release 2025-05-15, f3283f7 (the same counts, but other tasks)",
    )
    save(tmp_path / "arc-agi_evaluation2_challenges.json", tasks)
    data = read_tasks(ArcSpec(dataset="ARC-AGI-2-evaluation", data_dir=tmp_path))
    assert warnings(data) == (
        "the tasks differ from those of ARC-AGI-2-evaluation, release 2025-05-15, f3283f7, though the counts are the same",
    )


def test_a_named_data_set_that_is_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STTRL_DATA", raising=False)
    with pytest.raises(DataError) as stop:
        read_tasks(ArcSpec(dataset="ARC-AGI-2-evaluation"))
    assert str(stop.value) == (
        "ARC-AGI-2-evaluation is in no folder that was named, and on no hub. Put arc-agi_evaluation2_challenges.json and its solutions, "
        "or ARC-AGI-2/data/evaluation, into a folder and give that with --data_dir or STTRL_DATA; "
        "they come from https://github.com/arcprize/ARC-AGI-2 (commit f3283f7)."
    )
    with pytest.raises(DataError, match=f"^ConceptARC is not in {tmp_path}\\."):
        read_tasks(ArcSpec(dataset="ConceptARC", data_dir=tmp_path))


def test_what_is_an_arc_data_set(tmp_path: Path) -> None:
    grids = save(tmp_path / "t.json", task({"input": A}))
    flat = save(tmp_path / "f.json.gz", pairs(3))
    questions = save(tmp_path / "q.json", [{"input": "1 + 1", "output": "2"}, {"question": ["[1]"]}])
    broken = save(tmp_path / "b.json.gz", "")
    broken.write_bytes(b"no gzip")
    arc = ("ARC-AGI-1-training", "arc-demo", "ARC-AGI-1-eval", "no_challenges.json", str(tmp_path), str(grids), str(flat))
    assert [name for name in arc if not is_arc(name)] == []
    other = ("arithmetic-demo", "AIME-TTT", "MATH-TTT", "hf:allenai/ai2_arc:ARC-Challenge:test", "none.json", str(questions), str(broken))
    assert [name for name in other if is_arc(name)] == []


# What is shown


@pytest.fixture
def shown_set(tmp_path: Path) -> Path:
    file = save(tmp_path / "x_challenges.json", {"a": task({"input": C}), "b": task({"input": [[1, 1]]}, {"input": B})})
    save(tmp_path / "x_solutions.json", {"a": [[[9]]], "b": [B, B]})
    return file


def test_what_the_check_prints(shown_set: Path) -> None:
    found = check(ArcSpec(dataset=str(shown_set)))
    data = read(shown_set)
    assert found.faults == ()
    assert found.text.splitlines() == [
        "data set    x",
        f"source      {shown_set}",
        "layout      a challenges file (Kaggle), with its solutions in a second file",
        "release     none that is known",
        "tasks       2",
        "demos       4, 2 a task",
        "tests       3, 1 to 2 a task",
        "grids       11 without solutions; 1 to 2 rows (median 1), 1 to 3 columns (median 2)",
        "colours     1 blue 16.7%, 2 red 8.3%, 3 green 8.3%, 4 yellow 8.3%, 5 grey 20.8%, 6 magenta 12.5%, 7 orange 12.5%, "
        "8 light blue 12.5%",
        f"solutions   2 of 2 tasks have one, in {shown_set.parent}/x_solutions.json",
        f"fingerprint {data.fingerprint} (of the tasks, without solutions)",
        f"files       sha256 {data.sha256}",
        "faults      none",
        "example     (a) solutions are not shown",
        "demonstration 1: 2 x 2 -> 1 x 1",
        "  1 2  -> 5",
        "  3 4",
        "",
        "demonstration 2: 1 x 1 -> 1 x 3",
        "  5  -> 6 7 8",
        "",
        "test 1: 1 x 3 -> ?",
        "  6 7 8",
    ]


def test_colours_where_the_terminal_has_them(shown_set: Path) -> None:
    def text(**options: Any) -> str:
        return check(ArcSpec(dataset=str(shown_set)), Console(file=io.StringIO(), width=80, **options)).text

    assert "\x1b[" in text(force_terminal=True, color_system="truecolor")
    assert "\x1b[" not in text(force_terminal=True, color_system="truecolor", no_color=True)
    assert "\x1b[" not in text()


def test_the_command_lists_all_faults(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = save(tmp_path / "x_challenges.json", {"a": task({"input": [[]]}), "b": task({"input": [[10]]}), "c": task({"input": A})})
    assert main(["data", str(file)]) == 3
    out, err = capsys.readouterr()
    assert f"  {file}, task a, test 1, input: row 1 is empty.\n  {file}, task b, test 1, input: row 1, column 1 is 10," in out
    assert err == "error: The data set has 2 faults, listed above. Correct the files.\n"


def test_the_command_refuses_flags_for_questions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "arc-demo"]) == 0
    assert "(5582e5ca)" in capsys.readouterr().out
    assert main(["data", "arc-demo", "--id_column", "x"]) == 2
    assert capsys.readouterr().err == "error: --id_column does nothing for the ARC tasks of arc-demo. Leave it out.\n"


grids = st.integers(1, 30).flatmap(
    lambda width: st.lists(st.lists(st.integers(0, 9), min_size=width, max_size=width), min_size=1, max_size=30)
)


@given(grids, st.integers(1, 3))
def test_lines_of_a_grid_hold_its_digits(rows: list[list[int]], cell: int) -> None:
    lines = grid_lines(as_grid(rows), cell)
    assert [[int(line.plain[at]) for at in range(0, len(line.plain), cell)] for line in lines] == rows


@given(grids)
def test_an_svg_covers_every_cell_once(rows: list[list[int]]) -> None:
    root = ElementTree.fromstring(grid_svg(as_grid(rows), cell=10))
    assert (root.get("width"), root.get("height")) == (str(10 * len(rows[0])), str(10 * len(rows)))
    painted: dict[tuple[int, int], int] = {}
    for path in list(root)[:-1]:
        for run in (path.get("d") or "").split("z")[:-1]:
            place, length = run[1:].split("v")[0].split("h")
            column, row = map(int, place.split())
            for step in range(int(length)):
                assert (row, column + step) not in painted
                painted[row, column + step] = COLOUR_CODES.index(path.get("fill") or "")
    assert painted == {(row, column): cell for row, cells in enumerate(rows) for column, cell in enumerate(cells)}


def test_wide_grids_fit_into_eighty_characters() -> None:
    wide = tuple((0,) * 30 for _ in range(2))
    lines = task_lines(Task(id="a", demos=(Pair(input=wide, output=wide),), tests=(wide,)), width=80)
    assert max(line.cell_len for line in lines) <= 80
    assert shown(lines, colours=False).splitlines()[1] == f"  {'0' * 30} -> {'0' * 30}"


def test_a_colour_on_the_screen_is_the_one_of_the_page() -> None:
    said: Callable[[int], str] = lambda number: ";".join(str(int(COLOUR_CODES[number][at : at + 2], 16)) for at in (1, 3, 5))  # noqa: E731
    assert f"48;2;{said(4)}m" in shown(grid_lines(((4,),)), colours=True)
