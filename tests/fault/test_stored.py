"""Answers from adapters that another run has kept, on the stand-in engine."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from arc_stand_in import ArcStandIn, arc_attempt, arc_config, handed_in
from stand_in import Faults
from test_arc_runs import HALF_TURN, results_of

from sttrl.config import RunConfig
from sttrl.engine.learned import adapter_folders, kept_shape
from sttrl.errors import StepError, UsageError

SHAPE = """{"r": 4, "lora_alpha": 8, "use_rslora": true, "target_modules": ["v_proj", "q_proj"], "modules_to_save": null}"""


def stored(folder: Path, source: Path, **changes: Any) -> RunConfig:
    return arc_config(folder, **{"adaptation_method": "stored", "adapters": source, "ttt_rows": 80, **changes})


def test_the_adapters_of_a_run_give_its_answers_again(tmp_path: Path) -> None:
    chosen = {"ids": (HALF_TURN, "66e6c45b")}
    arc_attempt(arc_config(tmp_path / "first", **chosen))
    arc_attempt(stored(tmp_path / "again", tmp_path / "first", **chosen))
    assert handed_in(tmp_path / "first") == handed_in(tmp_path / "again")
    first, again = results_of(tmp_path / "first"), results_of(tmp_path / "again")
    assert [result["stop"] for result in again] == ["stored", "stored"]
    assert [result["polls"] for result in first] == [result["polls"] for result in again]
    assert (tmp_path / "again" / "adapters" / HALF_TURN / "delta.json").exists(), "a run keeps what it used"


def test_a_task_without_an_adapter_is_answered_by_the_base_or_by_the_one_for_all(tmp_path: Path) -> None:
    arc_attempt(arc_config(tmp_path / "first", ids=(HALF_TURN,)))
    chosen = {"ids": (HALF_TURN, "66e6c45b")}
    arc_attempt(stored(tmp_path / "some", tmp_path / "first" / "adapters", **chosen))
    one, other = results_of(tmp_path / "some")
    assert (one["stop"], other["stop"]) == ("stored", "no_adapter")
    assert other["polls"]["adapted"] == other["polls"]["base"]
    shutil.copytree(tmp_path / "first" / "adapters" / HALF_TURN, tmp_path / "first" / "adapters" / "all")
    arc_attempt(stored(tmp_path / "all", tmp_path / "first", **chosen))
    assert [result["stop"] for result in results_of(tmp_path / "all")] == ["stored", "stored"]


def test_an_adapter_that_cannot_be_loaded_costs_its_task_only(tmp_path: Path) -> None:
    chosen = {"ids": (HALF_TURN, "66e6c45b")}
    arc_attempt(arc_config(tmp_path / "first", **chosen))

    def refuse() -> None:
        raise StepError("adapter_model.safetensors is damaged.", "Give another.")

    arc_attempt(stored(tmp_path / "again", tmp_path / "first", **chosen), ArcStandIn(Faults({("load", 1): refuse})))
    one, other = results_of(tmp_path / "again")
    assert (one["status"], one["answer_source"], other["status"]) == ("failed", "base", "done")


def test_the_shape_of_the_adapters_is_read_from_their_files(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / "adapters" / name).mkdir(parents=True)
        (tmp_path / "adapters" / name / "adapter_config.json").write_text(SHAPE)
        (tmp_path / "adapters" / name / "adapter_model.safetensors").write_bytes(b"")
    assert [folder.name for folder in adapter_folders(tmp_path)] == ["a", "b"]
    shape = kept_shape(tmp_path)
    assert shape is not None and (shape.rank, shape.alpha, shape.rank_stabilised) == (4, 8, True)
    assert shape.targets == ("q_proj", "v_proj") and shape.trainable_modules == ()


def test_what_makes_no_sense_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--adaptation_method stored needs adapters"):
        RunConfig.of(adaptation_method="stored")
    for flags in ({"lr": 0.1}, {"lora_rank": 4}, {"lora_targets": ("q_proj",)}, {"optimizer": "adamw_8bit"}):
        with pytest.raises(UsageError, match=f"--{next(iter(flags))} .* does nothing with --adaptation_method stored"):
            RunConfig.of(adaptation_method="stored", adapters=tmp_path, dataset="arc-demo", **flags)
    with pytest.raises(UsageError, match="--adapters .* does nothing with --adaptation_method ttt"):
        RunConfig.of(adapters=tmp_path, adaptation_method="ttt", dataset="arc-demo")
    with pytest.raises(UsageError, match="holds no adapters"):
        kept_shape(tmp_path)
