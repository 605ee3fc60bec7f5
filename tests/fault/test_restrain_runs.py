"""RESTRAIN in whole runs on the stand-in engine: the weight of a question is that of its first vote, also after a kill."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from stand_in import StandIn, attempt, config_for
from test_training import Killed, kill_at_line

from sttrl.ledger.journal import read_finished, read_lines
from sttrl.ledger.records import FinishedQuestion
from sttrl.questions.answers import Judge
from sttrl.questions.records import poll_from_json
from sttrl.types import TrainGroup

RESTRAIN: dict[str, Any] = {
    "reward": "restrain", "adv_estimator": "reinforce", "restrain_min_share": 0.4, "limit": 6, "steps": 3, "n_votes": 12, "n_train": 12,
    "val_samples": 1, "ties": "first", "temp": 0.6,
}  # fmt: skip
METHODS: dict[str, dict[str, Any]] = {
    "sttrl": {},
    "ttrl": {"adaptation_method": "ttrl", "steps": None, "epochs": 3, "train_batch_size": 2, "checkpoint_every": 2},
}


def finished(folder: Path, judge: Judge, **settings: Any) -> tuple[FinishedQuestion, ...]:
    attempt(config_for(folder, **{**RESTRAIN, **settings}), StandIn(), judge)
    return read_finished(folder, poll_from_json)


def largest_share(classes: list[int | None]) -> float:
    return max(classes.count(c) for c in set(classes) - {None}) / len(classes)


@pytest.mark.parametrize("method", METHODS)
def test_a_run_learns_and_punishes_with_the_weight_of_the_first_vote(
    tmp_path: Path, judge: Judge, updates: list[TrainGroup], method: str
) -> None:
    questions = finished(tmp_path / "run", judge, **METHODS[method])
    steps = [record for record in read_lines(tmp_path / "run") if record["kind"] == "step"]
    for question in questions:
        first = question.steps[0].ballots
        assert first and len(question.steps) > 1
        weight = math.exp(-(((largest_share(first.class_G) - 1) / 0.25) ** 2) / 2)
        assert [step.weight for step in question.steps] == pytest.approx([weight] * len(question.steps))
    taught = [step for step in steps if step["update"]]
    low = [step for step in taught if largest_share(step["ballots"]["class_G"]) < 0.4]
    assert low and all(set(step["reward_G"]) == {-1.0} for step in low), "where no answer is frequent, all are punished"
    assert len(low) < len(taught) == len(updates)
    for step, group in zip(taught, updates, strict=True):
        assert [row.advantage_T and row.advantage_T[0] for row in group.row_G] == pytest.approx(
            [step["weight"] * r for r in step["reward_G"]]
        )


def test_the_weight_can_be_left_out(tmp_path: Path, judge: Judge) -> None:
    for question in finished(tmp_path / "run", judge, restrain_prompt_weight=False, limit=2):
        assert {step.weight for step in question.steps} == {None}


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_run_goes_on_as_if_it_had_not_been(tmp_path: Path, judge: Judge, method: str) -> None:
    own = {**METHODS[method], "limit": 3}
    whole = finished(tmp_path / "whole", judge, **own)
    for number in range(2, len(list(read_lines(tmp_path / "whole"))) + 1, 3):
        with pytest.MonkeyPatch.context() as monkeypatch:
            kill_at_line(monkeypatch, number)
            with pytest.raises(Killed):
                finished(tmp_path / f"killed_{number}", judge, **own)
        resumed = finished(tmp_path / f"killed_{number}", judge, **own)
        for one, other in zip(whole, resumed, strict=True):
            assert one.record.polls == other.record.polls, number
            assert [(s.reward_G, s.weight, s.update) for s in one.steps] == [(s.reward_G, s.weight, s.update) for s in other.steps]
