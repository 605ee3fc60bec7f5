"""What an adaptation trains on, for how long, and under which name; a folder that is replaced while the program is killed."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from trm_runs import trained

from sttrl.errors import UsageError
from sttrl.ledger import files
from sttrl.ledger.files import make_folder, recover_folder, settle_folder
from sttrl.trm.adapt import Wish, adapt, config_for, settings_of
from sttrl.trm.checkpoints import find_checkpoint
from sttrl.trm.config import read_config
from sttrl.trm.data.arguments import BuildDemo
from sttrl.trm.data.demo import build_rules
from sttrl.trm.opened import check_parts
from sttrl.trm.ranks import Ranks
from sttrl.trm.task_data import built_tasks, read_subset
from sttrl.trm.weights import read_weights


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The rules, and the held-out ones: 4 tasks with 4 demonstrations each."""
    return build_rules(BuildDemo(output_dir=tmp_path_factory.mktemp("data"), pairs=2, demos=4, tests=2))


@pytest.fixture(scope="module")
def run(data: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(data[0], tmp_path_factory.mktemp("run"), "max_steps=2")


def wish_for(run: Path, data: Path, out: Path, *settings: str, **changes: Any) -> Wish:
    whole = Wish(checkpoint=run, data=str(data), mode="full", steps=40, chunk=None, num_aug=0, out=out, config=None, settings=settings)
    return replace(whole, **changes)


@pytest.mark.parametrize("batch", [None, 2, 64])
def test_the_trunk_is_frozen_for_a_quarter_of_the_steps_whatever_the_batch(
    run: Path, data: tuple[Path, Path], tmp_path: Path, batch: int | None
) -> None:
    settings = () if batch is None else (f"global_batch_size={batch}",)
    wish = wish_for(run, data[1], tmp_path, *settings, mode="embeddings_then_full")
    config = config_for(wish, settings_of(wish, find_checkpoint(run)), data[1], {"tasks": ()})
    assert config.global_batch_size == (batch or 8) and config.max_steps == 40
    total = config.total_steps(16, 1.0)
    assert total >= 40 and config.frozen_steps(total) == 10


def test_bad_settings_are_found_before_anything_is_written(run: Path, tmp_path: Path) -> None:
    (tmp_path / "task.json").write_text(json.dumps({"train": [{"input": [[1]], "output": [[2]]}], "test": [{"input": [[1]]}]}))
    for change, words in (({"steps": 0}, "--steps is 0"), ({"chunk": 0}, "--chunk is 0"), ({"settings": ("rate=1",)}, "no setting 'rate'")):
        with pytest.raises(UsageError, match=words):
            adapt(wish_for(run, tmp_path / "task.json", tmp_path / "out", **change), lambda line: None)
    assert not (tmp_path / "out").exists()


def test_the_last_chunk_has_the_tasks_that_are_left(run: Path, data: tuple[Path, Path], tmp_path: Path) -> None:
    said: list[str] = []
    adapted = adapt(wish_for(run, data[1], tmp_path, steps=1, chunk=3), said.append)
    tasks = [json.loads((folder / "config.json").read_text())["tasks"] for folder in adapted.folders]
    assert [len(each) for each in tasks] == [3, 1]
    alone = adapt(wish_for(run, data[1], tmp_path / "alone", steps=1, chunk=4), said.append)
    assert len(json.loads((alone.folders[0] / "config.json").read_text())["tasks"]) == 4


def test_another_task_of_the_same_name_is_not_answered_from_the_first_ones_folder(tmp_path: Path) -> None:
    def written(place: Path, colour: int) -> Path:
        make_folder(place)
        pair = {"input": [[colour]], "output": [[colour, colour]]}
        (place / "task.json").write_text(json.dumps({"train": [pair, pair], "test": [{"input": [[3]]}]}))
        return place / "task.json"

    one, other = (read_subset(str(written(tmp_path / name, colour))) for name, colour in (("a", 1), ("b", 2)))
    folder = tmp_path / "data"
    said: list[str] = []
    assert built_tasks(one, folder, 1, said.append) == built_tasks(one, folder, 1, said.append) and len(said) == 1
    with pytest.raises(UsageError, match="other tasks"):
        built_tasks(other, folder, 1, said.append)


def test_an_adapter_holds_the_weights_that_were_evaluated(run: Path, data: tuple[Path, Path], tmp_path: Path) -> None:
    wish = wish_for(run, data[1], tmp_path, "ema=true", "ema_rate=0.5", "lr=1e-2", mode="lora", steps=3)
    folder = adapt(wish, lambda line: None).folders[0]
    whole, own = (
        {name.removeprefix("_orig_mod."): value for name, value in read_weights(folder / file).items()}
        for file in ("step_3.safetensors", "step_3_lora.safetensors")
    )
    assert own and all(torch.equal(value, whole[name]) for name, value in own.items())


def test_processes_and_parts_must_share_a_batch() -> None:
    config = read_config(None, ["global_batch_size=12", "gradient_accumulation=4"])
    check_parts(config, Ranks())
    with pytest.raises(UsageError, match="each of 2 processes has 6"):
        check_parts(config, Ranks(count=2))


@pytest.mark.parametrize("kill_at", [1, 2])
def test_a_folder_survives_a_kill_while_it_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill_at: int) -> None:
    """The old content or the new one is there after `recover_folder`, whole."""

    def folder(name: str, text: str) -> Path:
        make_folder(tmp_path / name)
        (tmp_path / name / "file").write_text(text)
        return tmp_path / name

    target, new = folder("state", "old"), folder(".state.new", "new")
    calls = 0

    def replaced(source: Path, place: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == kill_at:
            raise KeyboardInterrupt
        shutil.move(source, place)

    monkeypatch.setattr(files.os, "replace", replaced)
    with pytest.raises(KeyboardInterrupt):
        settle_folder(new, target)
    monkeypatch.undo()
    recover_folder(target)
    assert (target / "file").read_text() == "old"
    settle_folder(folder(".state.new", "new"), target)
    assert (target / "file").read_text() == "new" and sorted(os.listdir(tmp_path)) == ["state"]
