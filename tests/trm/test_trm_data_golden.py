"""The builders give the files of TinyRecursiveModels' own builders, byte for byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trm_data_golden import FOLDER, files, found, read, unpacked

from sttrl.trm.data import arc
from sttrl.trm.data.arguments import Build, BuildArc, BuildMaze, BuildSudoku
from sttrl.trm.data.canvas import draw
from sttrl.trm.data.commands import build
from sttrl.trm.data.format import read_identifiers, read_split, read_test_puzzles
from sttrl.trm.data.moves import INVERSES, moved

ARC = found("dataset_arc/*/config.json")
CSV = found("dataset_sudoku*/config.json") + found("dataset_maze*/config.json")
UNIT = read(found("dataset_arc/unit.json")[0])


def wish(case: Path, output: Path) -> Build:
    """The flags with which a golden data set was built."""
    recorded = read(case)
    flags: dict[str, Any] = {**recorded["config"], "output_dir": output}
    if "subsets" in flags:
        if flags["test_set_name2"] == "your_test_set":
            del flags["test_set_name2"]
        prefix = str(case.parent / flags["input_file_prefix"])
        return BuildArc(**{**flags, "input_file_prefix": prefix, "subsets": tuple(flags["subsets"])})
    flags |= {"source_repo": str(case.parent / "input"), "seed": recorded["np_random_seed_set_by_me_before_the_build"]}
    return BuildMaze(**flags) if "aug" in flags else BuildSudoku(**flags)


@pytest.mark.parametrize("case", [*ARC, *CSV], ids=lambda case: str(case.parent.relative_to(FOLDER)))
def test_a_data_set_has_the_files_of_the_original(case: Path, tmp_path: Path) -> None:
    build(wish(case, tmp_path / "built"))
    assert files(tmp_path / "built") == files(unpacked(case.parent / "out", tmp_path / "expected"))


@pytest.mark.parametrize("case", ARC, ids=lambda case: case.parent.name)
def test_the_draws_are_those_of_the_original_in_its_order(case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[Any]] = []

    class Recorder(np.random.RandomState):
        def __init__(self, seed: int) -> None:
            super().__init__(seed)
            calls.append(["seed", seed])

        def shuffle(self, x: Any) -> None:  # type: ignore[override]
            super().shuffle(x)
            calls.append(["shuffle", len(x)])

        def randint(self, low: int, high: int) -> int:  # type: ignore[override]
            calls.append(["randint", low, high, int(super().randint(low, high))])
            return calls[-1][-1]

        def permutation(self, x: Any) -> Any:  # type: ignore[override]
            before = len(calls)
            drawn = super().permutation(x)
            del calls[before:]  # it shuffles a copy
            calls.append(["permutation", list(x), drawn.tolist()])
            return drawn

    monkeypatch.setattr(arc.np.random, "RandomState", Recorder)
    flags = wish(case, tmp_path / "built")
    assert isinstance(flags, BuildArc)
    arc.build_arc(flags)
    assert calls == read(case.parent / "rng_calls.json")


@pytest.mark.parametrize("case", [*ARC, *CSV], ids=lambda case: str(case.parent.relative_to(FOLDER)))
def test_a_data_set_of_the_original_is_read(case: Path, tmp_path: Path) -> None:
    folder = unpacked(case.parent / "out", tmp_path / "d")
    for split in ("train", "test"):
        metadata, sets = read_split(folder, split)
        assert metadata.as_json() == read(folder / split / "dataset.json")
        for field, values in np.load(case.parent / "out" / f"{split}__all.npz").items():
            assert (getattr(sets["all"], field) == values).all()
    assert read_identifiers(folder) == read(case.parent / "out" / "identifiers.json")
    if (folder / "test_puzzles.json").is_file():
        assert read_test_puzzles(folder) == read(case.parent / "out" / "test_puzzles.json")


def test_grids_move_as_in_the_original() -> None:
    for case in UNIT["dihedral"]:
        assert moved(np.array(case["x"]), case["t"]).tolist() == case["y"]
        assert INVERSES[case["t"]] == case["inverse_t"]
        assert moved(moved(np.array(case["x"]), case["t"]), case["inverse_t"]).tolist() == case["x"]


def test_grids_are_drawn_on_the_canvas_as_in_the_original() -> None:
    for case in UNIT["canvas"]:
        for grid, sequence in ((case["input"], case["input_seq"]), (case["output"], case["label_seq"])):
            canvas = np.zeros(900, dtype=np.uint8)
            draw(canvas, np.array(grid, dtype=np.uint8), 0, 0)
            assert canvas.tolist() == sequence
