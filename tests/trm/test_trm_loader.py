"""Batches: from any position, for any number of processes, of several data sets, of some tasks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trm_data_sets import made

from sttrl.errors import DataError, UsageError
from sttrl.trm.data.format import BLANK
from sttrl.trm.data.loader import IGNORED_LABEL, Batch, Batches
from sttrl.trm.data.noise import GridNoise
from sttrl.trm.data.orders import OrderName, Position
from sttrl.trm.data.sources import merged_identifiers


def same(one: Batch, other: Batch) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


GROUPS = [[3, 3], [2, 1, 4], [5], [1, 1]]


@pytest.mark.parametrize("order", ["original", "fork"])
@pytest.mark.parametrize("folders", [1, 2])
def test_training_goes_on_from_every_position(order: OrderName, folders: int, tmp_path: Path) -> None:
    paths = [made(tmp_path / name, GROUPS) for name in "ab"[:folders]]
    batches = Batches(paths, "train", seed=5, global_batch_size=4, epochs_per_iteration=2, order=order)
    drawn = list(islice(batches.train(), 20))
    assert drawn[-1][0].iteration > 1
    for number, (position, _) in enumerate(drawn[:-1]):
        again = Position(**json.loads(json.dumps(asdict(position))))
        after, batch = next(batches.train(again))
        assert (after, same(batch, drawn[number + 1][1])) == (drawn[number + 1][0], True)


@pytest.mark.parametrize("order", ["original", "fork"])
def test_an_iteration_takes_one_variant_of_every_group_in_each_epoch(order: OrderName, tmp_path: Path) -> None:
    batches = Batches([made(tmp_path / "a", [[1, 1], [1, 1, 1], [1]])], "train", seed=0, global_batch_size=3, order=order)
    for _, batch in islice(batches.train(), 10):
        assert sorted(batches.task_of_identifier()[batch["puzzle_identifiers"]]) == [0, 1, 2]


def test_another_seed_gives_another_order(tmp_path: Path) -> None:
    folder = made(tmp_path / "a", GROUPS)
    one, other = (list(islice(Batches([folder], "train", seed=seed, global_batch_size=4).train(), 8)) for seed in (1, 2))
    assert not all(same(batch, twin) for (_, batch), (_, twin) in zip(one, other, strict=True))


def test_the_parts_of_the_ranks_make_the_whole_batch(tmp_path: Path) -> None:
    folder = made(tmp_path / "a", GROUPS)

    def parts(**ranks: int) -> Batches:
        return Batches([folder], "train", seed=3, global_batch_size=6, epochs_per_iteration=4, **ranks)

    whole, ranks = parts(), [parts(rank=rank, ranks=3) for rank in range(3)]
    for (_, batch), *shares in islice(zip(whole.train(), *(part.train() for part in ranks), strict=True), 6):
        assert same(batch, {name: np.concatenate([share[1][name] for share in shares]) for name in batch})
    for (_, batch, effective), *tests in zip(whole.test(), *(part.test() for part in ranks), strict=True):
        assert same(batch, {name: np.concatenate([share[1][name] for share in tests]) for name in batch})
        assert {share[2] for share in tests} == {effective}


def test_the_last_batch_of_an_evaluation_is_filled_with_padding(tmp_path: Path) -> None:
    *_, (_, batch, effective) = Batches([made(tmp_path / "a", [[3], [2]])], "test", seed=0, global_batch_size=4).test()
    assert effective == 1
    assert (
        (batch["inputs"][1:] == 0).all() and (batch["labels"][1:] == IGNORED_LABEL).all() and (batch["puzzle_identifiers"][1:] == 0).all()
    )


def test_an_evaluation_can_be_cut_to_some_variants_and_examples(tmp_path: Path) -> None:
    folder = made(tmp_path / "a", [[2, 2, 2], [3, 1]])

    def rows(**limits: int) -> list[int]:
        batches = Batches([folder], "test", seed=0, global_batch_size=50, **limits)
        return [int(token) for _, batch, effective in batches.test() for token in batch["inputs"][:effective, 0]]

    assert rows() == list(range(1, 11))
    assert rows(max_augmentations=0) == [1, 2, 7, 8, 9]
    assert rows(max_augmentations=1) == [1, 2, 3, 4, 7, 8, 9, 10]
    assert rows(max_augmentations=0, max_examples_per_puzzle=1) == [1, 7]


def test_puzzles_of_two_data_sets_share_a_row_if_and_only_if_they_have_the_same_name(tmp_path: Path) -> None:
    folders = [made(tmp_path / "a", [[1, 1]], ["x", "y"]), made(tmp_path / "b", [[1, 1]], ["y", "z"], first=11)]
    assert merged_identifiers(folders) == [BLANK, "x", "y", "z"]
    batches = Batches(folders, "test", seed=0, global_batch_size=2)
    assert {name: batch["puzzle_identifiers"].tolist() for name, batch, _ in batches.test()} == {"all": [1, 2], "all1": [2, 3]}
    assert (batches.metadata.num_puzzle_identifiers, batches.metadata.total_groups, batches.metadata.sets) == (4, 2, ("all", "all1"))


def test_training_on_two_data_sets_mixes_them(tmp_path: Path) -> None:
    folders = [made(tmp_path / "a", [[1]] * 30), made(tmp_path / "b", [[1]] * 30, first=41)]
    batches = Batches(folders, "train", seed=0, global_batch_size=3)
    first = [int(batch["inputs"].max()) > 40 for _, batch in islice(batches.train(), 20)]
    assert 2 < sum(first[:10]) < 8, "half of the 20 batches are from each data set, and neither comes first"
    inputs = [token for _, batch in islice(batches.train(), 20) for token in batch["inputs"][:, 0].tolist()]
    assert sorted(inputs) == [*range(1, 31), *range(41, 71)]


def test_an_evaluation_uses_the_rows_of_the_table_that_was_trained(tmp_path: Path) -> None:
    folder = made(tmp_path / "b", [[1, 1]], ["y", "z"])
    trained = [BLANK, "w", "z", "y"]
    (_, batch, _), = Batches([folder], "test", seed=0, global_batch_size=2, identifiers=trained).test()  # fmt: skip
    assert batch["puzzle_identifiers"].tolist() == [3, 2]
    with pytest.raises(DataError, match=r"1 of its puzzles have no row in the puzzle table \(z\)"):
        Batches([folder], "test", seed=0, global_batch_size=2, identifiers=[BLANK, "y"])


def refused(expected: type[Exception], match: str, folders: Sequence[Path], **flags: Any) -> None:
    with pytest.raises(expected, match=match):
        next(Batches(folders, "train", **{"seed": 0, "global_batch_size": 2, **flags}).train())


def test_what_cannot_be_read_is_said_in_one_line(tmp_path: Path) -> None:
    folder = made(tmp_path / "a", GROUPS)
    refused(UsageError, "2 processes share it", [folder], global_batch_size=3, ranks=2)
    refused(DataError, "fills no batch of 100 examples in 2 epochs", [folder], global_batch_size=100, epochs_per_iteration=2)
    refused(DataError, "vocab_size 90, and .* has 80", [folder, made(tmp_path / "b", GROUPS, vocabulary=80)])
    refused(DataError, "inputs, row .* has a token outside 0 to 4", [made(tmp_path / "c", [[20]], vocabulary=5)])
    refused(DataError, "has no train split", [tmp_path])


def test_some_tasks_alone_or_all_but_some_are_used(tmp_path: Path) -> None:
    folder = made(tmp_path / "a", [[1, 2], [3], [4]], ["x", "x|||t1|||0123456789", "y", "z"])

    def tokens(**tasks: Any) -> tuple[set[int], set[int]]:
        train = Batches([folder], "train", seed=0, global_batch_size=1, **tasks)
        test = Batches([folder], "test", seed=0, global_batch_size=4, **tasks)
        found = {int(token) for _, batch in islice(train.train(), 60) for token in batch["inputs"][:, 0]}
        return found, {int(token) for _, batch, size in test.test() for token in batch["inputs"][:size, 0]}

    for tasks, rows in (
        ({"only_tasks": ["x", "z"]}, {1, 2, 3, 7, 8, 9, 10}),
        ({"without_tasks": ["x", "nowhere"]}, {4, 5, 6, 7, 8, 9, 10}),
        ({"only_tasks": ["x", "y"], "without_tasks": ["x"]}, {4, 5, 6}),
    ):
        train, test = tokens(**tasks)
        assert test == rows and train <= rows and len(train) > len(rows) // 2
    metadata = Batches([folder], "train", seed=0, global_batch_size=1, only_tasks=["x"]).metadata
    assert (metadata.total_groups, metadata.total_puzzles, metadata.mean_puzzle_examples, metadata.num_puzzle_identifiers) == (1, 2, 1.5, 5)
    refused(DataError, "1 of the tasks are not in the train split: w", [folder], only_tasks=["w", "x"])
    refused(DataError, "No task of the train split is left", [folder], without_tasks=["x", "y", "z"])


def test_shuffled_identities_are_those_of_other_tasks(tmp_path: Path) -> None:
    batches = Batches([made(tmp_path / "a", [[1, 1], [1], [1, 1, 1], [1]])], "test", seed=0, global_batch_size=4)
    shuffled, tasks = batches.shuffled_identities(seed=1), batches.task_of_identifier()
    assert shuffled[0] == 0
    assert (tasks[shuffled[1:]] != tasks[1:]).all() and (tasks[shuffled[1:]] >= 0).all()
    assert not np.array_equal(shuffled, batches.shuffled_identities(seed=2))


def test_noise_changes_some_cells_of_the_commonest_colour_and_no_label(tmp_path: Path) -> None:
    folder = made(tmp_path / "a", [[1]] * 40, first=1)

    def batches(**flags: Any) -> list[Batch]:
        return [batch for _, batch in islice(Batches([folder], "train", seed=0, global_batch_size=20, **flags).train(), 4)]

    plain, noisy = batches(), batches(noise=GridNoise(probability=0.5, fraction=0.7))
    changed = 0
    for one, other in zip(plain, noisy, strict=True):
        assert np.array_equal(one["labels"], other["labels"])
        cells = (one["inputs"] != other["inputs"]).sum(axis=1)
        assert set(cells.tolist()) <= {0, 2} and other["inputs"].min() >= 1 and other["inputs"].max() < 90
        assert not cells[one["inputs"][:, 0] < 2].any()
        changed += int((cells > 0).sum())
    assert 20 < changed < 60
    for part, whole in zip(batches(noise=GridNoise(probability=0.5, fraction=0.7), rank=1, ranks=2), noisy, strict=True):
        assert np.array_equal(part["inputs"], whole["inputs"][10:])
    with pytest.raises(UsageError, match="grid_noise_prob is 2"):
        GridNoise(probability=2)
