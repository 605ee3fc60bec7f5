"""Whole runs, from data file to report, on one engine that stays alive: labels change nothing, a continuous run goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from live_engine import everything

from sttrl.data.arithmetic import arithmetic_rows
from sttrl.errors import EngineError
from sttrl.questions.kind import Questions

pytestmark = pytest.mark.slow


def question_file(folder: Path, labels: list[str] | None) -> Path:
    folder.mkdir()
    rows = [dict(row) for row in arithmetic_rows()[:3]]
    for number, row in enumerate(rows):
        del row["answer"]
        row |= {} if labels is None else {"answer": labels[number]}
    (folder / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "sums.jsonl"


def test_labels_change_nothing(do_run: Callable[..., Path], tmp_path: Path) -> None:
    right = [str(row["answer"]) for row in arithmetic_rows()[:3]]
    labels = {"right": right, "shuffled": right[1:] + right[:1], "none": None}
    runs = {name: do_run(question_file(tmp_path / name, given), tmp_path / f"out_{name}") for name, given in labels.items()}
    found = {name: everything(folder) for name, folder in runs.items()}
    assert (
        len([f for f in found["right"] if f.startswith("adapters")]) == 3
        and len([f for f in found["right"] if f.startswith("rollouts")]) == 3
    )
    assert found["right"] == found["shuffled"] == found["none"]
    summaries = {name: json.loads((folder / "summary.json").read_text()) for name, folder in runs.items()}
    assert summaries["right"]["base"] is not None and summaries["none"]["base"] is None, "the labels were there, and were not"


def steps_of(folder: Path) -> list[dict[str, Any]]:
    return [record for line in (folder / "journal.jsonl").read_text().splitlines() if (record := json.loads(line))["kind"] == "step"]


def test_a_continuous_run_goes_on_to_the_byte(do_run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = do_run("arithmetic-demo", tmp_path / "whole", continuous=True, answer_kind=None)
    alone = do_run("arithmetic-demo", tmp_path / "alone", answer_kind=None)
    versions = [step["version"] for step in steps_of(whole) if step["update"]]
    assert versions == list(range(len(versions))) and len(versions) > 3, "each question starts where the last one ended"
    assert everything(whole) != everything(alone)

    evaluate, calls = Questions.evaluate, []

    async def lost(kind: Questions, stage: Any, *rest: Any) -> Any:
        calls.append(stage)
        if calls.count("adapted") == 2:
            raise EngineError("The sampler died.", "")
        return await evaluate(kind, stage, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Questions, "evaluate", lost)
        with pytest.raises(EngineError, match="died"):
            do_run("arithmetic-demo", tmp_path / "broken", continuous=True, answer_kind=None)
    broken = tmp_path / "broken" / "run"
    before = (broken / "journal.jsonl").read_bytes()
    assert [json.loads(line)["kind"] for line in before.splitlines()].count("question") == 1
    do_run("arithmetic-demo", tmp_path / "broken", continuous=True, answer_kind=None)
    assert (broken / "journal.jsonl").read_bytes().startswith(before)
    assert everything(broken) == everything(whole)
