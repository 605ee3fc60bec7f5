"""The data sets that the project makes itself: unique solutions, train and test apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sttrl.errors import UsageError
from sttrl.trm.data.arguments import BuildDemo
from sttrl.trm.data.commands import build
from sttrl.trm.data.demo import HELD_OUT_RULES, RULES, TRAIN_RULES, build_demo
from sttrl.trm.data.format import read_identifiers, read_split, read_test_puzzles
from sttrl.trm.data.sudoku_boards import solved_4x4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("demo")
    build(BuildDemo(output_dir=made, train_puzzles=60, test_puzzles=40, num_aug=2, pairs=6, demos=4, tests=3))
    return made


def arrays(folder: Path, split: str) -> Any:
    return read_split(folder, split)[1]["all"]


def rows(values: Any) -> set[bytes]:
    return {np.asarray(row, dtype=np.uint8).tobytes() for row in values}


def test_there_are_288_boards() -> None:
    boards = solved_4x4()
    assert boards.shape == (288, 16) and len(rows(boards)) == 288
    for lines in (boards.reshape(-1, 4, 4), boards.reshape(-1, 2, 2, 2, 2).transpose(0, 1, 3, 2, 4).reshape(-1, 4, 4)):
        assert (np.sort(lines, axis=2) == [1, 2, 3, 4]).all()


def test_every_sudoku_has_one_solution_and_it_is_the_label(folder: Path) -> None:
    boards = solved_4x4()
    for split in ("train", "test"):
        found = arrays(folder / "sudoku4", split)
        for puzzle, solution in zip(found.inputs - 1, found.labels - 1, strict=True):
            fitting = boards[((boards == puzzle) | (puzzle == 0)).all(axis=1)]
            assert fitting.tolist() == [solution.tolist()]
            assert 4 <= np.count_nonzero(puzzle) <= 6


def test_no_board_of_the_test_split_is_in_training_not_even_as_a_variant(folder: Path) -> None:
    train, test = arrays(folder / "sudoku4", "train"), arrays(folder / "sudoku4", "test")
    assert len(train.inputs) == 180 and len(test.inputs) == 40
    assert len(rows(test.inputs)) == 40
    assert not rows(train.labels) & rows(test.labels)


def test_held_out_rules_are_new_combinations_of_known_parts() -> None:
    assert len(RULES) == len(set(RULES)) == 24
    assert (len(TRAIN_RULES), len(HELD_OUT_RULES)) == (20, 4)
    assert {rule.symmetry for rule in TRAIN_RULES} == set(range(8))
    assert {rule.exchange for rule in TRAIN_RULES} == {rule.exchange for rule in RULES}


def test_every_rule_makes_something_else_of_a_grid() -> None:
    grid = np.array([[0, 1, 2, 3], [0, 0, 1, 2], [3, 0, 0, 0], [1, 2, 2, 0]], dtype=np.uint8)
    assert len({rule.apply(grid).tobytes() for rule in RULES}) == 24


def test_no_input_of_a_rule_occurs_twice(folder: Path) -> None:
    inputs = np.concatenate([arrays(folder / name, split).inputs for name in ("rules", "rules-held-out") for split in ("train", "test")])
    assert len(inputs) == len(rows(inputs)) == 20 * (6 + 3) + 4 * (4 + 3)


def test_the_pairs_of_a_rule_follow_it_and_have_its_row(folder: Path) -> None:
    for name, rules in (("rules", TRAIN_RULES), ("rules-held-out", HELD_OUT_RULES)):
        assert read_identifiers(folder / name) == ["<blank>", *(rule.name for rule in rules)]
        tasks = read_test_puzzles(folder / name)
        for split in ("train", "test"):
            found = arrays(folder / name, split)
            for given, wanted, row in zip(found.inputs, found.labels, found.puzzle_identifiers, strict=True):
                rule = rules[row - 1]
                assert (rule.apply(given.reshape(4, 4) - 2) + 2).ravel().tolist() == wanted.tolist()
                pair = {"input": (given.reshape(4, 4) - 2).tolist(), "output": (wanted.reshape(4, 4) - 2).tolist()}
                assert pair in tasks[rule.name][split]


def test_a_seed_gives_the_same_data(tmp_path: Path) -> None:
    small = {"train_puzzles": 5, "test_puzzles": 5, "num_aug": 1, "pairs": 2, "demos": 2, "tests": 2}
    found = []
    for number, seed in enumerate((3, 3, 4)):
        folders = build_demo(BuildDemo(output_dir=tmp_path / str(number), seed=seed, **small))
        found.append(np.concatenate([arrays(each, "train").inputs for each in folders]))
    assert (found[0] == found[1]).all() and not (found[0] == found[2]).all()


def test_sizes_that_cannot_be_made_are_refused(tmp_path: Path) -> None:
    for flags in ({"test_puzzles": 10**6}, {"pairs": 0}, {"num_aug": -1}, {"seed": -1}):
        with pytest.raises(UsageError, match="Use"):
            build_demo(BuildDemo(output_dir=tmp_path, **flags))
