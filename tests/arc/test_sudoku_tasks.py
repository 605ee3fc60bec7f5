"""Sudokus as ARC tasks: the builder, and fine-tuning and search on what it writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from arc_stand_in import ArcStandIn, arc_attempt
from test_arc_runs import results_of

from sttrl import cli
from sttrl.arc.sources import ArcSpec, read_tasks
from sttrl.arc.views.draws import SeededDice, colours
from sttrl.arc.views.key import View
from sttrl.config import RunConfig
from sttrl.errors import DataError, UsageError
from sttrl.trm.data.arguments import BuildSudokuTasks
from sttrl.trm.data.commands import build
from sttrl.trm.data.sudoku_boards import solved_4x4


def csv_files(folder: Path, train: int = 40, test: int = 6) -> Path:
    """Sudokus of 4x4 cells with five cells empty; train and test are of different boards."""
    folder.mkdir(parents=True, exist_ok=True)
    draws, boards = np.random.default_rng(5), solved_4x4()
    draws.shuffle(boards)
    for name, part in (("train", boards[:train]), ("test", boards[train : train + test])):
        rows = []
        for board in part:
            puzzle = board.copy()
            puzzle[draws.choice(16, size=5, replace=False)] = 0
            rows.append(f"x,{''.join(map(str, puzzle)).replace('0', '.')},{''.join(map(str, board))},1")
        (folder / f"{name}.csv").write_text("\n".join(["source,question,answer,rating", *rows]) + "\n")
    return folder


def wish(folder: Path, **flags: Any) -> BuildSudokuTasks:
    return BuildSudokuTasks(**{"source_repo": str(csv_files(folder / "csv")), "output_dir": folder / "tasks", "tasks": 4, **flags})


def is_solved(grid: Any) -> bool:
    """Whether each row, column and box of 2x2 cells has 1 to 4, under any permutation of the digits 1 to 9."""
    board = np.array(grid)
    lines = [*board, *board.T, *(board[r : r + 2, c : c + 2].ravel() for r in (0, 2) for c in (0, 2))]
    digits = set(board.ravel().tolist())
    return len(digits) == 4 and 0 not in digits and all(set(line.tolist()) == digits for line in lines)


def test_tasks_show_other_boards_than_training_and_tests(tmp_path: Path) -> None:
    said = build(wish(tmp_path, demos=2))
    assert "4 tasks with 2 demonstrations" in said and "32 pairs" in said
    folder = tmp_path / "tasks"
    tasks, solutions = (json.loads((folder / f"sudoku_{name}.json").read_text()) for name in ("challenges", "solutions"))
    trained = json.loads((folder / "train" / "sudoku.json").read_text())
    shown = [pair for task in tasks.values() for pair in task["train"]]
    assert len(tasks) == 4 and len(shown) == 8 and not [pair for pair in shown if pair in trained]
    for name, task in tasks.items():
        [test], [answer] = task["test"], solutions[name]
        assert is_solved(answer) and list(test) == ["input"] and sum(test["input"], []).count(0) == 5
        assert all(given in (0, known) for rows in zip(test["input"], answer, strict=True) for given, known in zip(*rows, strict=True))
    assert len(read_tasks(ArcSpec(dataset=str(folder))).tasks) == 4
    before = {file: file.read_bytes() for file in folder.rglob("*.json")}
    build(wish(tmp_path, demos=2))
    assert {file: file.read_bytes() for file in folder.rglob("*.json")} == before, "the same seed, the same tasks"
    build(wish(tmp_path, demos=2, seed=1))
    assert {file: file.read_bytes() for file in folder.rglob("*.json")} != before


def test_views_keep_a_sudoku_a_sudoku() -> None:
    board = tuple(map(tuple, solved_4x4()[7].reshape(4, 4).tolist()))
    for seed in range(8):
        view = colours(SeededDice(seed), keep_background=True)
        for moves in ("", "tp", "rt", "tp.rt.rt"):
            changed = View.read(moves).apply(view.apply(board)) if moves else view.apply(board)
            assert is_solved(changed) and view.apply(((0,),)) == ((0,),)


def test_bad_wishes_are_one_line(tmp_path: Path) -> None:
    for flags, what in (({"tasks": 0}, "--tasks is 0"), ({"demos": 0}, "--demos is 0")):
        with pytest.raises(UsageError, match=what):
            build(wish(tmp_path, **flags))
    with pytest.raises(DataError, match="40 puzzles, too few to show 30"):
        build(wish(tmp_path, demos=30))
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "mine.txt").write_text("x")
    with pytest.raises(DataError, match=r"holds something else: mine\.txt"):
        build(wish(tmp_path))


def test_a_run_and_a_fine_tuning_take_the_tasks(tmp_path: Path) -> None:
    words = ["trm", "build", "sudoku-tasks", "--source_repo", str(csv_files(tmp_path / "csv")), "--output_dir", str(tmp_path / "tasks")]
    assert cli.main([*words, "--tasks", "2"]) == 0
    common = {"dataset": str(tmp_path / "tasks"), "codec": "cells_16", "output_dir": tmp_path}
    tuned = RunConfig.of(
        **common, adaptation_method="finetune", train_dataset=(f"{tmp_path / 'tasks' / 'train'}*4",), pairs_per_task=(4,), ttt_batch=2,
        run_name="tuned",
    )  # fmt: skip
    arc_attempt(tuned, ArcStandIn())
    assert json.loads((tmp_path / "tuned" / "summary.json").read_text())["adapted"]["loss"] > 0
    arc_attempt(RunConfig.of(**common, adaptation_method="ttt", ttt_rows=4, views=4, score_views=2, run_name="run"), ArcStandIn())
    results = results_of(tmp_path / "run")
    assert [result["status"] for result in results] == ["done", "done"] and all(
        result["polls"]["adapted"]["attempts"] for result in results
    )
