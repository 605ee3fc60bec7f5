"""What a submission's file must hold, what is missing in it, and the command that prints its scores."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from sttrl import cli
from sttrl.arc.grids import MISSING, Grid
from sttrl.arc.scores import first_attempts, kaggle, marc_evaluate, score, validate
from sttrl.arc.submission import Filled, build_submission, read_submission, write_submission
from sttrl.arc.tasks import Task
from sttrl.errors import DataError

ONE: Grid = ((1,),)
TWO: Grid = ((2, 2),)
TASKS = (Task(id="a", demos=(), tests=(ONE, ONE)), Task(id="b", demos=(), tests=(ONE,)))
SOLUTIONS = {"a": (ONE, TWO), "b": (MISSING,)}


def test_every_task_and_test_input_is_there_and_what_was_missing_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "submission.json"
    assert write_submission(path, TASKS, {("a", 1): [ONE, TWO, ONE]}) == Filled(outputs=3, unanswered=2, attempts=4)
    assert json.loads(path.read_text()) == {
        "a": [{"attempt_1": [[0]], "attempt_2": [[0]]}, {"attempt_1": [[1]], "attempt_2": [[2, 2]]}],
        "b": [{"attempt_1": [[0]], "attempt_2": [[0]]}],
    }
    assert [child.name for child in tmp_path.iterdir()] == ["submission.json"]


@pytest.mark.parametrize("answers", [{("c", 0): [ONE]}, {("b", 1): [ONE]}, {("b", 0): [((1,), (1, 1))]}])
def test_answers_to_nothing_and_answers_that_are_no_grid_are_refused(answers: Any) -> None:
    with pytest.raises(ValueError):
        build_submission(TASKS, answers)


def test_what_is_missing_is_no_hit_but_an_answer_of_one_black_cell_is_an_answer() -> None:
    submission, _ = build_submission(TASKS, {("a", 0): [ONE]})
    result = score(submission, SOLUTIONS)
    assert [(ratio.numerator, ratio.denominator) for ratio in result.rules.values()] == [(2, 3), (1.5, 2), (1, 2)]
    assert (result.missing_tasks, result.missing_outputs, result.missing_attempts) == (0, 1, 3)
    nothing = score({}, SOLUTIONS)
    assert [(ratio.numerator, ratio.denominator) for ratio in nothing.rules.values()] == [(0, 3), (0, 2), (0, 2)]
    assert (nothing.missing_tasks, nothing.missing_outputs, nothing.missing_attempts) == (2, 3, 6)


def test_only_the_published_evaluation_rewards_leaving_outputs_out() -> None:
    whole = {"a": ((ONE, ONE), (ONE, ONE)), "b": ((MISSING, MISSING),)}
    part = {"a": ((ONE, ONE),), "b": ((MISSING, MISSING),)}
    assert marc_evaluate(whole, SOLUTIONS)["Per Prediction Accuracy"].value == pytest.approx(2 / 3)
    assert marc_evaluate(part, SOLUTIONS)["Per Prediction Accuracy"].value == 1
    assert marc_evaluate(part, SOLUTIONS)["Competition Accuracy"].value == 0.5
    assert kaggle(part, SOLUTIONS) == kaggle(whole, SOLUTIONS)
    with pytest.raises(DataError, match="task a of the submission has 1 entry, and 2 test inputs"):
        validate(part, SOLUTIONS)


def test_the_second_attempt_can_be_left_out_of_the_score() -> None:
    submission = {"a": ((TWO, ONE), (TWO, ONE)), "b": ((MISSING, MISSING),)}
    assert kaggle(submission, SOLUTIONS).numerator == 3
    assert kaggle(first_attempts(submission), SOLUTIONS).numerator == 2


def entry(one: Any = ((1,),), two: Any = ((1,),)) -> dict[str, Any]:
    return {"attempt_1": one, "attempt_2": two}


GOOD = {"a": [entry(), entry([[2, 2]])], "b": [entry([[0]], [[0]])]}
BROKEN = {
    "not JSON": ("{", "is not JSON"),
    "not an object": ([], "no JSON object of task ids"),
    "unknown task": ({**GOOD, "zz": [entry()]}, "task zz of the submission has no solution"),
    "several unknown tasks": ({"x": [], "y": []}, "2 tasks (x, y) of the submission have no solution"),
    "list too short": ({**GOOD, "a": [entry()]}, "task a of the submission has 1 entry, and 2 test inputs"),
    "list too long": ({**GOOD, "b": [entry(), entry()]}, "task b of the submission has 2 entries, and 1 test input"),
    "a strange id": ({**GOOD, "a\nb": [entry()]}, "task a b of the submission"),
    "a long id": ({**GOOD, "x" * 500: [entry()]}, "of the submission has no solution"),
    "no list": ({**GOOD, "b": entry()}, "task b is not a list"),
    "no object": ({**GOOD, "b": [[[1]]]}, "task b, test input 1 is not an object with attempt_1 and attempt_2"),
    "attempt missing": ({**GOOD, "b": [{"attempt_1": [[1]]}]}, "task b, test input 1 has no attempt_2"),
    "third attempt": ({**GOOD, "b": [{**entry(), "attempt_3": [[1]]}]}, "'attempt_3'"),
    "not a grid": ({**GOOD, "b": [entry([[1], [1, 2]])]}, "task b, test input 1, attempt_1 is no grid: row 2 has 2 cells, and row 1 has 1"),
    "a colour too many": ({**GOOD, "b": [entry([[1]], [[10]])]}, "attempt_2 is no grid: row 1, column 1 is 10"),
    "null": ({**GOOD, "b": [entry(None)]}, "attempt_1 is no grid: not a list of rows"),
}


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    submission, solutions = tmp_path / "submission.json", tmp_path / "solutions.json"
    submission.write_text(json.dumps(GOOD))
    solutions.write_text(json.dumps(SOLUTIONS))
    return submission, solutions


def test_the_command_prints_every_rule_by_its_name(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["score", *map(str, files)]) == 0
    printed = capsys.readouterr().out
    rows = {line[:24].strip(): line[24:].split() for line in printed.splitlines()[:4]}
    assert rows == {
        "kaggle": ["3", "/", "3", "100.00", "%"],
        "per_task_mean": ["2", "/", "2", "100.00", "%"],
        "all_or_nothing": ["2", "/", "2", "100.00", "%"],
        "kaggle, attempt_1 only": ["3", "/", "3", "100.00", "%"],
    }
    assert printed.splitlines()[-1] == "missing: 0 tasks, 0 test inputs, 0 attempts"


def test_missing_tasks_are_counted_and_score_nothing(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    files[0].write_text(json.dumps({"a": GOOD["a"]}))
    assert cli.main(["score", *map(str, files)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split() == ["kaggle", "2", "/", "3", "66.67", "%"]
    assert printed[-1] == "missing: 1 task, 1 test input, 2 attempts"


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_a_broken_submission_is_one_clear_line(name: str, files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    content, message = BROKEN[name]
    files[0].write_text(content if isinstance(content, str) else json.dumps(content))
    assert cli.main(["score", *map(str, files)]) == 3
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert said.err.startswith("error: ") and message in said.err and str(files[0]) in said.err


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"a": []}', '{"a": [[[11]]]}', '{"a": {}}'])
def test_broken_solutions_are_one_clear_line(content: str, files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    files[1].write_text(content)
    assert cli.main(["score", *map(str, files)]) == 3
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and str(files[1]) in said.err


def test_files_that_are_not_there_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["score", str(tmp_path / "none.json"), str(tmp_path / "neither.json")]) == 3
    assert "neither.json: No such file or directory" in capsys.readouterr().err
    assert cli.main(["score", str(tmp_path / "none.json")]) == 2
    assert read_error(tmp_path / "none.json").startswith("Cannot read")


def scored(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What the command prints."""
    assert cli.main(["score", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def test_the_detail_is_marc_s_evaluation(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    files[0].write_text(json.dumps({"a": [entry([[2]]), entry([[2]], [[2, 2]])]}))
    detail = scored(capsys, *files, "--detail").removeprefix(scored(capsys, *files)).split("\n")
    assert [" ".join(line.split()) for line in detail if line] == [
        "all: 2 tasks",
        "Per Prediction Accuracy 2 / 2 100.00 %",
        "Per Prediction Hamming Distance 0.75 / 2 37.50 %",
        "Competition Accuracy 1 / 2 50.00 %",
        "Numbers per prediction are about the 2 of 3 test outputs that were submitted: leaving hard ones out raises them.",
    ]
    files[0].write_text(json.dumps(GOOD))
    assert "leaving hard ones out" not in scored(capsys, *files, "--detail")


@pytest.mark.parametrize("columns", ["task_id,level", "level, name", "\ufefftask_id,level,correct"])
def test_the_detail_by_level(columns: str, files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    levels, names = tmp_path / "tasks_info.csv", [name.strip("\ufeff ") for name in columns.split(",")]
    rows = [{"id": "c", "level": "easy"}, {"id": "b", "level": "hard"}, {"id": "ab", "level": "hard"}]
    lines = [",".join(row["level"] if name == "level" else "True" if name == "correct" else row["id"] for name in names) for row in rows]
    levels.write_text("\r\n".join([columns, *lines, "", ""]))
    printed = scored(capsys, *files, "--levels", levels)
    heads = [line for line in printed.splitlines() if re.fullmatch(r".*: \d+ tasks?", line)]
    assert heads == ["all: 2 tasks", "level hard: 1 task", "no level: 1 task"], "ids are compared whole"
    assert re.findall(r"Competition Accuracy +(\d) / (\d)", printed) == [("2", "2"), ("1", "1"), ("1", "1")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has the columns of an empty file"),
        ("id,level\na,easy\n", "has the columns id, level"),
        ("task_id,level\nzz,easy\n", "has none of the tasks"),
        ("task_id,level\na,easy\na,hard\n", "line 3: task a has another level before"),
        ("task_id,level\na\n", "line 2 has 1 cell, and the header 2"),
        (None, "No such file"),
    ],
)
def test_broken_levels_are_one_clear_line(
    content: str | None, message: str, files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "levels.csv").write_text(content)
    assert cli.main(["score", *map(str, files), "--levels", str(tmp_path / "levels.csv")]) == 3
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and message in said.err and "levels.csv" in said.err


def test_two_submissions_are_compared_output_by_output(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"a": [entry([[3]], [[3]]), entry([[2, 2]])]}))
    printed = scored(capsys, *files, "--compare", other).splitlines()
    assert printed[-6:-3] == [f"A  {files[0]}", f"B  {other}", "test outputs: both right 1, only A 2, only B 0, neither 0"]
    assert printed[-2].split()[:2] == ["per_task_mean", "+.750"] and printed[-1].split()[:2] == ["all_or_nothing", "+1.00"]
    back = scored(capsys, other, files[1], "--compare", files[0]).splitlines()
    assert "only A 0, only B 2" in back[-4] and "-.750" in back[-2]
    other.write_text(json.dumps({"zz": []}))
    assert cli.main(["score", *map(str, files), "--compare", str(other)]) == 3
    assert f"{other}: task zz of the submission has no solution" in capsys.readouterr().err


def read_error(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_submission(path)
    return str(caught.value)
