"""The flags of the builders of data sets: those of the original builders, with their names and defaults."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class BuildArc:
    """ARC tasks in Kaggle's files, with symmetries, colours and places as augmentations."""

    input_file_prefix: str
    """Path and beginning of the names of the files: ``kaggle/combined/arc-agi`` reads kaggle/combined/arc-agi_SUBSET_challenges.json and,
    where it exists, ..._SUBSET_solutions.json (.json.gz too)."""
    output_dir: Path
    """Folder of the data set. An older data set there is replaced."""
    subsets: tuple[str, ...]
    """Subsets to read, in this order: training evaluation concept."""
    test_set_name: str | None = None
    """Subset whose test pairs are the test split. The train split has the demonstrations of all subsets and the other subsets' test pairs.
    Without any test set all test pairs are the test split, as in the later state of Trelis' fork."""
    test_set_name2: str | None = None
    """A second such subset."""
    test_set_names: tuple[str, ...] = ()
    """Any number of such subsets (Trelis' fork)."""
    train_only_subsets: tuple[str, ...] = ()
    """Subsets whose test pairs are in the train split although no test set is named (Trelis' fork)."""
    enable_train_translation: bool = True
    """Move each variant's grids on the canvas, all but one of its examples (train split only)."""
    seed: int = 42
    """Seed of the augmentations."""
    num_aug: int = 1000
    """Variants of each task beside the task itself; fewer where 5 times as many draws find no more that differ."""
    puzzle_identifiers_start: int = 1
    """Row of the puzzle table of the first puzzle; above 1 to leave room for another data set."""


@dataclass(frozen=True, kw_only=True)
class BuildSudoku:
    """Sudoku-Extreme: train.csv and test.csv with the columns source, question, answer, rating."""

    source_repo: str = "sapientinc/sudoku-extreme"
    """Data set on the hub, or a folder with train.csv and test.csv."""
    output_dir: Path = Path("data/sudoku-extreme-full")
    """Folder of the data set. An older data set there is replaced."""
    subsample_size: int | None = None
    """So many puzzles of the train split, drawn at random (the paper: 1000). Default: all."""
    min_difficulty: int | None = None
    """Only puzzles rated at least so hard. Default: all."""
    num_aug: int = 0
    """Variants of each training puzzle: relabelled, bands, stacks, rows and columns exchanged, transposed (the paper: 1000)."""
    seed: int = 0
    """Seed of the draws. The original has none: every build differs there."""


@dataclass(frozen=True, kw_only=True)
class BuildSudokuTasks:
    """Sudokus as ARC tasks for a language model: challenges and solutions as Kaggle's files, and pairs to train on."""

    source_repo: str = "sapientinc/sudoku-extreme"
    """Data set on the hub, or a folder with train.csv and test.csv."""
    output_dir: Path = Path("data/sudoku-tasks")
    """Folder of the tasks: --dataset of a run. Its folder train is a --train_dataset of finetune. Older ones there are replaced."""
    tasks: int = 100
    """Tasks: so many puzzles of the test split, drawn at random."""
    demos: int = 1
    """Solved puzzles of the train split that a task shows (Product of Experts: 1)."""
    subsample_size: int = 10000
    """So many puzzles of the train split, drawn at random, for demonstrations and training pairs."""
    min_difficulty: int | None = None
    """Only puzzles rated at least so hard. Default: all."""
    seed: int = 0
    """Seed of the draws."""


@dataclass(frozen=True, kw_only=True)
class BuildMaze:
    """Maze-Hard: train.csv and test.csv with the columns source, question, answer, rating."""

    source_repo: str = "sapientinc/maze-30x30-hard-1k"
    """Data set on the hub, or a folder with train.csv and test.csv."""
    output_dir: Path = Path("data/maze-30x30-hard-1k")
    """Folder of the data set. An older data set there is replaced."""
    subsample_size: int | None = None
    """So many mazes of the train split, drawn at random. Default: all."""
    aug: bool = False
    """Add the seven other symmetries of each training maze."""
    seed: int = 0
    """Seed of the draws. The original has none."""


@dataclass(frozen=True, kw_only=True)
class BuildDemo:
    """Small data sets that the project makes itself; they train in minutes on a CPU."""

    output_dir: Path = Path("data/trm-demo")
    """Folder of the data sets: sudoku4, rules, rules-held-out. Older ones there are replaced."""
    kind: Literal["all", "sudoku4", "rules"] = "all"
    """sudoku4: Sudoku on 4x4 cells, tested on boards of which no puzzle is in training. rules: ARC-like rules on 4x4 grids, 20 to train on
    and 4 others to adapt to."""
    train_puzzles: int = 1000
    """Sudoku: training puzzles, from 200 of the 288 grids."""
    test_puzzles: int = 200
    """Sudoku: test puzzles, from the other 88 grids."""
    num_aug: int = 9
    """Sudoku: variants of each training puzzle, which stay within the 200 grids."""
    pairs: int = 400
    """Rules: training pairs of each of the 20 rules."""
    demos: int = 20
    """Rules: demonstrations of each of the 4 held-out rules."""
    tests: int = 20
    """Rules: test pairs of each rule, of inputs that are in no training pair."""
    seed: int = 0
    """Seed of the puzzles and pairs."""


Build = BuildArc | BuildSudoku | BuildSudokuTasks | BuildMaze | BuildDemo
