"""The files of TinyRecursiveModels' builders, byte for byte, and the batches of its loader."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trm_data_golden import FOLDER, found, read, unpacked
from trm_data_sets import files

from sttrl.trm.data import arc
from sttrl.trm.data.arguments import Build, BuildArc, BuildMaze, BuildSudoku
from sttrl.trm.data.canvas import draw
from sttrl.trm.data.commands import build
from sttrl.trm.data.format import read_identifiers, read_split, read_test_puzzles
from sttrl.trm.data.loader import Batch, Batches
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


@pytest.mark.parametrize("case", found("loader/*.json"), ids=lambda case: case.stem)
def test_batches_are_those_of_the_original(case: Path, tmp_path: Path) -> None:
    recorded, arrays = read(case), np.load(case.with_suffix(".npz"))
    folder = unpacked(FOLDER / "dataset_arc" / "five_tasks" / "out", tmp_path / "d")
    flags = recorded["args"]
    batches = Batches(
        [folder],
        "test" if flags["test_set_mode"] else "train",
        seed=0,
        global_batch_size=flags["global_batch_size"],
        epochs_per_iteration=flags["epochs_per_iter"],
        max_augmentations=flags.get("max_eval_augmentations"),
        max_examples_per_puzzle=flags.get("max_examples_per_puzzle"),
        order="fork" if "head" in case.stem else "original",
        examples=np.random.RandomState(recorded["np_random_seed_before"]),
    )
    tasks = batches.task_of_identifier()
    drawn: list[tuple[str, Batch, int]] = (
        list(batches.test())
        if flags["test_set_mode"]
        else [("all", batch, len(batch["labels"])) for _, batch in islice(batches.train(), len(recorded["batches"]))]
    )
    assert len(drawn) == len(recorded["batches"])
    assert batches.metadata.as_json() == recorded["metadata"]
    for number, ((set_name, batch, effective), expected) in enumerate(zip(drawn, recorded["batches"], strict=True)):
        assert (set_name, effective) == (expected["set"], expected["effective_global_batch"])
        for name in ("inputs", "labels", "puzzle_identifiers"):
            assert batch[name].dtype == np.int32
            assert np.array_equal(batch[name], arrays[f"batch{number}.{name}"]), f"{name} of batch {number}"
        if f"batch{number}.task_identifiers" in arrays:
            assert np.array_equal(tasks[batch["puzzle_identifiers"]], arrays[f"batch{number}.task_identifiers"])
