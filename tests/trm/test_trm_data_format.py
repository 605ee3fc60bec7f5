"""The files of a data set: what may be replaced, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trm_data_sets import files, made

from sttrl.errors import DataError, JournalError
from sttrl.trm.data.format import new_dataset, read_identifiers, read_split, read_test_puzzles


def test_an_older_data_set_is_replaced_at_once(tmp_path: Path) -> None:
    made(tmp_path / "a", [[1], [1]])
    before = files(tmp_path)
    with pytest.raises(RuntimeError), new_dataset(tmp_path / "a") as temporary:
        (temporary / "half").write_text("")
        raise RuntimeError
    assert files(tmp_path) == before
    made(tmp_path / "a", [[1]])
    assert read_split(tmp_path / "a", "train")[0].total_groups == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_other_files_are_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "thesis.txt").write_text("")
    with pytest.raises(DataError, match="holds thesis.txt, which is no part of a data set"):
        made(tmp_path / "a", [[1]])
    with pytest.raises(DataError, match="is a file"):
        made(tmp_path / "a" / "thesis.txt", [[1]])
    assert (tmp_path / "a" / "thesis.txt").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="Cannot write"):
        made(tmp_path / "file" / "a", [[1]])


def changed(folder: Path, **metadata: Any) -> Path:
    made(folder, [[1, 1], [2]])
    file = folder / "train" / "dataset.json"
    values = json.loads(file.read_text()) | metadata
    file.write_text(json.dumps({key: value for key, value in values.items() if value != "gone"}))
    return folder


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"seq_len": "gone"}, "has no 'seq_len'"),
        ({"seq_len": 4}, r"the shapes \(4, 3\) and \(4, 3\), and seq_len is 4"),
        ({"vocab_size": 0}, "'vocab_size' is 0"),
        ({"total_groups": True}, "'total_groups' is True"),
        ({"num_puzzle_identifiers": 2}, "puzzle_identifiers has 3, and num_puzzle_identifiers is 2"),
        ({"sets": ["../other"]}, "'sets' is"),
        ({"sets": ["other"]}, "There is no file .*other__inputs.npy"),
    ],
)
def test_metadata_that_contradict_the_arrays_are_refused(metadata: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read_split(changed(tmp_path / "a", **metadata), "train")


def test_unknown_metadata_are_kept(tmp_path: Path) -> None:
    metadata, _ = read_split(changed(tmp_path / "a", colour="blue"), "train")
    assert metadata.others == {"colour": "blue"}
    assert metadata.as_json()["colour"] == "blue"


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("puzzle_indices", [0, 1, 2], "puzzle_indices should rise from 0 to 4"),
        ("puzzle_indices", [0, 2, 1, 4], "puzzle_indices should rise"),
        ("puzzle_indices", [0, 1, 4], "3 puzzle_identifiers and 2 puzzles"),
        ("group_indices", [0, 3, 3], "a group without puzzles"),
        ("puzzle_identifiers", [1, 2, -1], "puzzle_identifiers has -1"),
        ("inputs", [[1, 2, 3]] * 3, "the shapes"),
        ("inputs", [[0.5, 2, 3]] * 4, "holds float64"),
    ],
)
def test_arrays_that_contradict_each_other_are_refused(name: str, values: Any, message: str, tmp_path: Path) -> None:
    made(tmp_path / "a", [[1, 1], [2]])
    np.save(tmp_path / "a" / "train" / f"all__{name}.npy", np.array(values))
    with pytest.raises(DataError, match=message):
        read_split(tmp_path / "a", "train")


def test_objects_in_arrays_are_not_read(tmp_path: Path) -> None:
    made(tmp_path / "a", [[1]])
    np.save(tmp_path / "a" / "train" / "all__labels.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="cannot be read as an array of numbers"):
        read_split(tmp_path / "a", "train")


def test_names_that_are_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "identifiers.json").write_text('["<blank>", "a", "<blank>", "a"]')
    (tmp_path / "test_puzzles.json").write_text("[]")
    with pytest.raises(DataError, match="has the name 'a' twice"):
        read_identifiers(tmp_path)
    with pytest.raises(DataError, match="is not a JSON object of tasks"):
        read_test_puzzles(tmp_path)
    with pytest.raises(DataError, match="There is no file"):
        read_test_puzzles(tmp_path / "elsewhere")
