"""Builders of data sets: their flags, and what they say about bad input."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sttrl.cli.parsing import parse
from sttrl.data import hub
from sttrl.errors import DataError, SttrlError, UsageError
from sttrl.trm.data import csv_files, rooms
from sttrl.trm.data.arc import build_subsets
from sttrl.trm.data.arc_tasks import subset_of
from sttrl.trm.data.arguments import BuildArc, BuildMaze, BuildSudoku
from sttrl.trm.data.commands import BUILDERS, build
from sttrl.trm.data.format import read_identifiers, read_split, read_test_puzzles

A, B, C = [[1, 2], [3, 4]], [[5]], [[6, 7, 8]]
DEMO = {"input": A, "output": B}


def task(**parts: Any) -> dict[str, Any]:
    return {"train": [DEMO, {"input": B, "output": C}], "test": [{"input": C}], **parts}


def save(folder: Path, subset: str, tasks: Any, solutions: Any = None) -> None:
    """Kaggle's files of a subset. ``solutions``: "known" for one grid a task."""
    folder.mkdir(exist_ok=True)
    text = tasks if isinstance(tasks, str) else json.dumps(tasks)
    (folder / f"arc_{subset}_challenges.json").write_text(text)
    if solutions is not None:
        known = {name: [A] for name in tasks} if solutions == "known" else solutions
        (folder / f"arc_{subset}_solutions.json").write_text(json.dumps(known))


def wish(folder: Path, *subsets: str, **flags: Any) -> BuildArc:
    prefix, output = str(folder / "arc"), folder / "out"
    return BuildArc(**{"input_file_prefix": prefix, "output_dir": output, "subsets": subsets, "num_aug": 2, **flags})


def error_of(arguments: BuildArc | BuildSudoku | BuildMaze) -> str:
    with pytest.raises(SttrlError) as caught:
        build(arguments)
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    assert not arguments.output_dir.exists()
    return str(caught.value)


def arrays(folder: Path, split: str) -> Any:
    return read_split(folder, split)[1]["all"]


BAD_TASKS = [
    (task(train=[{"input": [[1, 2], [3]], "output": B}]), "task t, demonstration 1, input: row 2 has 1 cells, and row 1 has 2"),
    (task(train=[{"input": [[1, 12]], "output": B}]), "task t, demonstration 1, input: row 1, column 2 is 12"),
    (task(train=[{"input": [[-1]], "output": B}]), "row 1, column 1 is -1"),
    (task(train=[{"input": A, "output": [[0]] * 31}]), "task t, demonstration 1, output: 31 rows, and a grid has at most 30"),
    (task(train=[{"input": A}]), 'task t, demonstration 1: there is no "output"'),
    (task(train=[{"input": [], "output": B}]), "a grid without rows"),
    (task(test=[]), "task t: there are no test inputs"),
    ({"train": [DEMO]}, 'task t: there is no "test"'),
    ([DEMO], 'task t: it is not an object with "train" and "test"'),
]


@pytest.mark.parametrize(("bad", "message"), BAD_TASKS)
def test_a_task_that_is_none_is_named_with_the_place(bad: Any, message: str, tmp_path: Path) -> None:
    save(tmp_path, "x", {"t": bad}, {"t": [A]})
    assert message in error_of(wish(tmp_path, "x"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"t": {}, "t": {}}', "task t: the id is in the file more than once"),
        ("{", "it is not JSON"),
        ("[]", "is not a JSON object of tasks"),
        (json.dumps({"a|||b": task()}), r"the id contains |||"),
    ],
)
def test_a_file_that_is_none_is_named(text: str, message: str, tmp_path: Path) -> None:
    save(tmp_path, "x", text)
    assert message in error_of(wish(tmp_path, "x"))


@pytest.mark.parametrize(
    ("solutions", "message"),
    [
        ({}, "task t: no solutions for 1 test input"),
        ({"t": [A, A]}, "task t: 2 solutions for 1 test input"),
        ({"t": A[0]}, "task t: 2 solutions"),
        ({"t": [[[1], [2, 3]]]}, "task t, test 1, output: row 2 has 2 cells"),
        ([], "is not a JSON object of solutions"),
    ],
)
def test_solutions_that_do_not_fit_are_named(solutions: Any, message: str, tmp_path: Path) -> None:
    save(tmp_path, "x", {"t": task()}, solutions)
    assert message in error_of(wish(tmp_path, "x"))


def test_a_test_pair_without_a_solution_is_never_trained_on(tmp_path: Path) -> None:
    save(tmp_path, "x", {"t": task()})
    assert "the outputs of test pairs are not known, and these pairs are in the train split" in error_of(
        wish(tmp_path, "x", train_only_subsets=("x",))
    )
    assert "Not all outputs of x are known" in build(wish(tmp_path, "x"))
    assert read_test_puzzles(tmp_path / "out")["t"]["test"] == [{"input": C, "output": [[0]]}]


def test_labels_of_an_output_that_is_not_known_are_padding(tmp_path: Path) -> None:
    """So that no accuracy counts it. An output that is known beside it keeps its labels, in every variant."""
    save(tmp_path, "x", {"t": task(test=[{"input": C}, {"input": B, "output": A}])})
    build(wish(tmp_path, "x", num_aug=4))
    labels = arrays(tmp_path / "out", "test").labels
    assert not labels[::2].any() and labels[1::2].any(axis=1).all() and len(labels) == 10


def test_a_test_task_may_not_be_in_the_train_split_too(tmp_path: Path) -> None:
    save(tmp_path, "x", {"t": task(), "u": task()}, "known")
    save(tmp_path, "y", {"u": task()}, "known")
    assert "1 test tasks are in two subsets; the first is task u, in x and y" in error_of(wish(tmp_path, "x", "y", test_set_name="y"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"test_set_name": "z"}, "'z' is not among --subsets xx y"),
        ({"test_set_names": ("x",)}, "Did you mean 'xx'?"),
        ({"train_only_subsets": ("y",), "test_set_name2": "y"}, "'y' is a test set and in --train-only-subsets"),
        ({"num_aug": -1}, "--num_aug is -1"),
        ({"puzzle_identifiers_start": 0}, "--puzzle_identifiers_start is 0"),
        ({"seed": -1}, "--seed is -1"),
        ({"subsets": ()}, "--subsets names none"),
        ({"subsets": ("y", "y")}, "--subsets names 'y' twice"),
        ({"subsets": ("nowhere",)}, "There is no file"),
    ],
)
def test_flags_that_do_not_fit_are_named(flags: dict[str, Any], message: str, tmp_path: Path) -> None:
    for subset in ("xx", "y"):
        save(tmp_path, subset, {subset: task()}, "known")
    assert message in error_of(wish(tmp_path, "xx", "y", **flags))


def test_the_splits_of_the_subsets(tmp_path: Path) -> None:
    for subset in ("x", "y", "z"):
        save(tmp_path, subset, {subset: task()}, "known")

    def tests(**flags: Any) -> tuple[list[str], int]:
        build(wish(tmp_path, "x", "y", "z", **flags))
        return sorted(read_test_puzzles(tmp_path / "out")), len(arrays(tmp_path / "out", "train").inputs)

    assert tests(test_set_name="y") == (["y"], 3 * (3 + 2 + 3))
    assert tests(test_set_name="y", test_set_name2="z") == (["y", "z"], 3 * (3 + 2 + 2))
    assert tests(test_set_names=("x", "z")) == (["x", "z"], 3 * (2 + 3 + 2))
    assert tests() == (["x", "y", "z"], 3 * (2 + 2 + 2))
    assert tests(train_only_subsets=("x",)) == (["y", "z"], 3 * (3 + 2 + 2))


def test_puzzles_of_the_train_split_have_the_first_rows_when_a_test_subset_is_named_first(tmp_path: Path) -> None:
    save(tmp_path, "x", {"t": task(), "u": task(train=[])}, "known")
    save(tmp_path, "y", {"v": task()}, "known")
    build(wish(tmp_path, "x", "y", test_set_name="x"))
    train, test = (arrays(tmp_path / "out", split).puzzle_identifiers.tolist() for split in ("train", "test"))
    assert (train, sorted(test)) == ([1, 2, 3, 4, 5, 6], [1, 2, 3, 7, 8, 9])


def test_a_task_without_demonstrations_is_in_the_test_split_alone(tmp_path: Path) -> None:
    save(tmp_path, "x", {"t": task(), "u": task(train=[])}, "known")
    build(wish(tmp_path, "x"))
    names = read_identifiers(tmp_path / "out")
    for split, tasks in (("train", {"t"}), ("test", {"t", "u"})):
        assert {names[row].split("|||")[0] for row in arrays(tmp_path / "out", split).puzzle_identifiers} == tasks


def test_translations_can_be_left_out(tmp_path: Path) -> None:
    save(tmp_path, "x", {"t": task()}, "known")
    moved = {}
    for enabled in (True, False):
        build(wish(tmp_path, "x", num_aug=5, enable_train_translation=enabled))
        first = arrays(tmp_path / "out", "train").inputs[:, 0]
        moved[enabled] = int((first == 0).sum())
    assert moved[True] == 6 and moved[False] == 0


def test_variants_differ_and_their_lack_is_said(tmp_path: Path) -> None:
    grid = [[0]]
    save(tmp_path, "x", {"t": {"train": [{"input": grid, "output": grid}], "test": [{"input": [[1]], "output": grid}]}})
    assert "1 task has fewer variants than asked for, because no more that differ were found (t 9)" in build(
        wish(tmp_path, "x", num_aug=50)
    )
    assert len(set(arrays(tmp_path / "out", "test").inputs[:, 0].tolist())) == 9


def test_tasks_of_any_layout_are_a_test_set(tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "t.json").write_text(json.dumps(task(test=[{"input": C, "output": A}])))
    save(tmp_path, "x", {"t": task()}, "known")
    subsets = [subset_of(path) for path in (tmp_path / "tasks", tmp_path / "tasks" / "t.json", tmp_path / "arc_x_challenges.json")]
    assert [subset.solved for subset in subsets] == [True] * 3
    found = []
    for subset in subsets:
        build_subsets(wish(tmp_path, num_aug=3), [subset])
        found.append((arrays(tmp_path / "out", "test").labels.tolist(), read_test_puzzles(tmp_path / "out")))
    assert found[0] == found[1] == found[2]
    (tmp_path / "tasks" / "u.json").write_text(json.dumps(task(test=[{"input": [[10]]}])))
    with pytest.raises(DataError, match="task u, test 1, input: row 1, column 1 is 10"):
        subset_of(tmp_path / "tasks")


def test_compressed_files_give_the_same_data(tmp_path: Path) -> None:
    save(tmp_path, "x", {"t": task()}, "known")
    build(wish(tmp_path, "x"))
    plain = arrays(tmp_path / "out", "train").inputs.copy()
    for file in tmp_path.glob("arc_*.json"):
        file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    build(wish(tmp_path, "x"))
    assert (arrays(tmp_path / "out", "train").inputs == plain).all()


def test_too_large_a_data_set_is_refused_first_with_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, "x", {"t": task()}, "known")
    monkeypatch.setattr(rooms, "_free_disk", lambda folder: 2**20)
    assert "The data set takes up to 5.2 MiB, and " in error_of(wish(tmp_path, "x", num_aug=1000))
    monkeypatch.undo()
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable: 100 kB\n")
    monkeypatch.setattr(rooms, "MEMORY_FILE", tmp_path / "meminfo")
    message = error_of(wish(tmp_path, "x", num_aug=1000))
    assert "Building needs up to 439.9 KiB of memory, and 100.0 KiB are free" in message and "--num-aug (1000 now)" in message


def sudoku(folder: Path, *rows: str, header: str = "source,question,answer,rating") -> BuildSudoku:
    folder.mkdir(exist_ok=True)
    good = f"s,{'.' * 12}4321,{SOLVED},7"
    (folder / "train.csv").write_text("\n".join([header, *(rows or (good,))]))
    (folder / "test.csv").write_text("\n".join(["source,question,answer,rating", good]))
    return BuildSudoku(source_repo=str(folder), output_dir=folder / "out")


SOLVED = "1234341221434321"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (f"s,{'.' * 16},{SOLVED[:15]},1", "row 1, field 'answer': it has 15 characters, and others have 16"),
        (f"s,{'.' * 15}x,{SOLVED},1", "row 1, field 'question': it has a character other than . and 0 to 4"),
        (f"s,{'.' * 15}5,{SOLVED},1", "row 1, field 'question': it has a character other than"),
        (f"s,{'.' * 16},{SOLVED[:15]}.,1", "row 1, field 'answer': it has a character other than 1 to 4"),
        (f"s,{'.' * 15}2,{SOLVED},1", "row 1, field 'answer': it contradicts a digit that is given"),
        (f"s,{'.' * 16},{'1234' * 4},1", "row 1, field 'answer': it is no solved board"),
        (f"s,{'.' * 16},{SOLVED}", "row 1, field 'line': has 3 cells, and the first line has 4"),
        ("s,...,123,1", "it has 3 cells, and a board has 81 or 16"),
        (f"s,{'.' * 15}é,{SOLVED},1", "characters that are not ASCII"),
    ],
)
def test_a_row_that_is_no_sudoku_is_named(row: str, message: str, tmp_path: Path) -> None:
    assert message in error_of(sudoku(tmp_path / "s", row))


def test_sudoku_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    wanted = sudoku(tmp_path / "s", f"s,{'.' * 16},{SOLVED},hard")
    assert "row 1, field 'rating': it is 'hard'" in error_of(BuildSudoku(**{**vars(wanted), "min_difficulty": 3}))
    wanted = sudoku(tmp_path / "s")
    assert "has no puzzles rated so high. Lower --min-difficulty (8 now)" in error_of(BuildSudoku(**{**vars(wanted), "min_difficulty": 8}))
    assert "--num_aug is -1" in error_of(BuildSudoku(**{**vars(wanted), "num_aug": -1}))
    (tmp_path / "s" / "test.csv").unlink()
    assert "has no test.csv" in error_of(wanted)
    assert "There is no folder nowhere/at/all" in error_of(BuildSudoku(**{**vars(wanted), "source_repo": "nowhere/at/all"}))


def test_columns_are_found_by_their_names(tmp_path: Path) -> None:
    build(sudoku(tmp_path / "s", f"{SOLVED},{'.' * 16}", header="answer,question"))
    build(sudoku(tmp_path / "s", f"s,{'.' * 16},{SOLVED},3", header="a,b,c,d"))
    assert "has no columns question and answer" in error_of(sudoku(tmp_path / "t", f"{'.' * 16},{SOLVED}", header="puzzle,solution"))


def test_sudoku_variants_are_solved_boards_with_the_same_givens(tmp_path: Path) -> None:
    wanted = sudoku(tmp_path / "s")
    build(BuildSudoku(**{**vars(wanted), "num_aug": 20}))
    found = arrays(wanted.output_dir, "train")
    boards = found.labels.reshape(-1, 4, 4) - 1
    for lines in (boards, boards.transpose(0, 2, 1), boards.reshape(-1, 2, 2, 2, 2).transpose(0, 1, 3, 2, 4).reshape(-1, 4, 4)):
        assert (np.sort(lines, axis=2) == [1, 2, 3, 4]).all()
    given = found.inputs > 1
    assert (given.sum(axis=1) == 4).all() and (found.inputs[given] == found.labels[given]).all()
    assert len(np.unique(found.inputs, axis=0)) > 15


def test_two_builds_with_a_seed_are_equal(tmp_path: Path) -> None:
    rows = [f"s,{SOLVED[:n]}{'.' * (16 - n)},{SOLVED},1" for n in range(10)]
    wanted = sudoku(tmp_path / "s", *rows)
    found = []
    for seed in (1, 1, 2):
        build(BuildSudoku(**{**vars(wanted), "seed": seed, "subsample_size": 3, "num_aug": 2}))
        found.append(np.array(arrays(wanted.output_dir, "train").inputs))
    assert len(found[0]) == 9 and (found[0] == found[1]).all() and not (found[0] == found[2]).all()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("m,S  G ,SooG ,1", "it has 5 cells, which is no square"),
        ("m,S?#G,S?#G,1", "row 1, field 'question': it has a character other than '# SGo'"),
        ("m,S #G,So G,1", "row 1, field 'answer': it differs from the maze off the path"),
    ],
)
def test_a_row_that_is_no_maze_is_named(row: str, message: str, tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / f"{split}.csv").write_text(f"source,question,answer,rating\n{row}\n")
    assert message in error_of(BuildMaze(source_repo=str(tmp_path), output_dir=tmp_path / "out"))


def test_files_come_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for split in ("train", "test"):
        (tmp_path / f"{split}.csv").write_text("source,question,answer,rating\nm,S  G,SooG,1\n")
    asked: list[tuple[str, str, str]] = []

    def download(repo: str, name: str, *, repo_type: str, endpoint: str | None) -> str:
        asked.append((repo, name, repo_type))
        if not (tmp_path / name).exists():
            raise FileNotFoundError("404: no such file")
        return str(tmp_path / name)

    stand_in = SimpleNamespace(hf_hub_download=download, is_offline_mode=lambda: True)
    for module in (csv_files, hub):
        monkeypatch.setattr(module, "import_module", lambda name: stand_in)
    build(BuildMaze(output_dir=tmp_path / "out"))
    assert asked == [("sapientinc/maze-30x30-hard-1k", f"{split}.csv", "dataset") for split in ("train", "test")]
    (tmp_path / "test.csv").unlink()
    assert "test.csv of sapientinc/maze-30x30-hard-1k did not come from the hub: 404" in error_of(BuildMaze(output_dir=tmp_path / "new"))


COMMANDS = {
    "arc": "--input-file-prefix p/arc-agi --output-dir o --subsets training evaluation concept --test-set-name evaluation "
    "--test-set-name2 x --seed 42 --num-aug 1000 --puzzle-identifiers-start 1 --test-set-names a b --train-only-subsets c "
    "--no-enable-train-translation",
    "sudoku": "--source-repo a/b --output-dir o --subsample-size 1000 --min-difficulty 3 --num-aug 1000",
    "sudoku-tasks": "--source-repo a/b --output-dir o --tasks 5 --demos 2 --subsample-size 1000 --min-difficulty 3 --seed 1",
    "maze": "--source-repo a/b --output-dir o --subsample-size 1000 --aug",
    "demo": "--output-dir o --kind rules",
}


@pytest.mark.parametrize("name", BUILDERS)
def test_the_flags_of_the_builders_are_read_with_hyphens_and_with_underscores(name: str) -> None:
    arguments = COMMANDS[name].split()
    with_underscores = [word.replace("-", "_").replace("__", "--", 1) if word.startswith("--") else word for word in arguments]
    wanted = parse(BUILDERS[name], arguments)
    assert wanted == parse(BUILDERS[name], with_underscores)
    assert wanted.output_dir == Path("o")
    if isinstance(wanted, BuildArc):
        assert (wanted.subsets, wanted.test_set_names, wanted.enable_train_translation) == (
            ("training", "evaluation", "concept"), ("a", "b"), False,
        )  # fmt: skip


def test_errors_are_of_the_kinds_that_the_program_knows(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        build(wish(tmp_path, "x", test_set_name="y"))
    with pytest.raises(DataError):
        build(wish(tmp_path, "x"))
