"""Builds a data set by the flags of a command, and says what was built."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sttrl.trm.data.arc import ArcBuilt, build_arc
from sttrl.trm.data.arguments import Build, BuildArc, BuildDemo, BuildMaze, BuildSudoku, BuildSudokuTasks
from sttrl.trm.data.demo import build_demo
from sttrl.trm.data.format import Metadata, read_split
from sttrl.trm.data.maze import build_maze
from sttrl.trm.data.rooms import size_text
from sttrl.trm.data.sudoku import build_sudoku
from sttrl.trm.data.sudoku_tasks import build_sudoku_tasks

BUILDERS: Mapping[str, type[Build]] = {
    "arc": BuildArc, "sudoku": BuildSudoku, "sudoku-tasks": BuildSudokuTasks, "maze": BuildMaze, "demo": BuildDemo,
}  # fmt: skip
"""What `trm build` can build, and the flags of each."""

_TABLE_WIDTH = 512
_NAMED = 3


def build(wish: Build) -> str:
    """Build a data set, and return the text to print. Raises DataError, UsageError or JournalError."""
    if isinstance(wish, BuildArc):
        built = build_arc(wish)
        return "\n".join([*_described(built.folder, built.splits), *_notes(built)])
    if isinstance(wish, BuildDemo):
        folders = build_demo(wish)
        return "\n".join(
            line for folder in folders for line in _described(folder, {split: read_split(folder, split)[0] for split in ("train", "test")})
        )
    if isinstance(wish, BuildSudokuTasks):
        return build_sudoku_tasks(wish)
    splits = build_sudoku(wish) if isinstance(wish, BuildSudoku) else build_maze(wish)
    return "\n".join(_described(wish.output_dir, splits))


def _described(folder: Path, splits: Mapping[str, Metadata]) -> list[str]:
    """The folder, its size, its splits and its puzzle table."""
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    lines = [f"{folder} ({size_text(size)})"]
    for split, metadata in splits.items():
        _, sets = read_split(folder, split)
        examples = sum(len(arrays.inputs) for arrays in sets.values())
        puzzles = sum(len(arrays.puzzle_identifiers) for arrays in sets.values())
        lines.append(f"  {split}: {metadata.total_groups} puzzles, {puzzles} with their variants, {examples} examples")
    metadata = next(iter(splits.values()))
    rows = metadata.num_puzzle_identifiers
    table = f", {size_text(4 * _TABLE_WIDTH * rows)} at {_TABLE_WIDTH} numbers a row" if rows > 1 else ""
    lines.append(
        f"  {metadata.seq_len} cells, {metadata.vocab_size} tokens; puzzle table of {rows} {'row' if rows == 1 else 'rows'}{table}"
    )
    return lines


def _notes(built: ArcBuilt) -> list[str]:
    lines = []
    if built.unsolved:
        lines.append(f"  Not all outputs of {', '.join(built.unsolved)} are known: those test labels are empty, and no score counts them.")
    if built.short:
        fewest = sorted(built.short.items(), key=lambda item: item[1])[:_NAMED]
        named = ", ".join(f"{name} {count}" for name, count in fewest)
        tasks = "1 task has" if len(built.short) == 1 else f"{len(built.short)} tasks have"
        lines.append(f"  {tasks} fewer variants than asked for, because no more that differ were found ({named}).")
    return lines
