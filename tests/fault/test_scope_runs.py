"""SCOPE in whole runs on the stand-in engine: other labels than the elected one are rewarded, and a killed run goes on as it would have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from stand_in import Faults, StandIn, attempt, config_for, results

from sttrl.ledger.journal import read_finished
from sttrl.questions.answers import Judge
from sttrl.questions.records import poll_from_json

SETTINGS: dict[str, Any] = {
    "limit": 6, "steps": 2, "n_votes": 16, "n_train": 16, "val_samples": 1, "ties": "first", "reward": "scope", "scope_votes": 4,
    "voting_function": "confidence", "confidence": "step_mean",
}  # fmt: skip


@pytest.mark.parametrize("kind", ["step_mean", "step_surprisal"])
def test_other_labels_than_the_elected_one_are_rewarded(tmp_path: Path, judge: Judge, kind: str) -> None:
    attempt(config_for(tmp_path / "run", **{**SETTINGS, "confidence": kind, "scope_quality": 0.2}), StandIn(), judge)
    steps = [step for question in read_finished(tmp_path / "run", poll_from_json) for step in question.steps]
    assert steps and all(set(step.reward_G) <= {0.0, 1.0} for step in steps)
    other = 0
    for step in steps:
        assert step.ballots and step.election
        rewarded = {c for c, r in zip(step.ballots.class_G, step.reward_G, strict=True) if r}
        assert None not in rewarded
        other += bool(rewarded - {step.election.winner})
    assert other > len(steps) // 2 and sum(step.update is not None for step in steps) > 5


def test_a_run_that_failed_goes_on_as_it_would_have(tmp_path: Path, judge: Judge) -> None:
    attempt(config_for(tmp_path / "whole", **SETTINGS), StandIn(), judge)
    config = config_for(tmp_path / "killed", **SETTINGS)
    with pytest.raises(KeyboardInterrupt):
        attempt(config, StandIn(Faults(plan={("sample", 7): KeyboardInterrupt()})), judge)
    attempt(config, StandIn(), judge)
    whole, again = (read_finished(tmp_path / name, poll_from_json) for name in ("whole", "killed"))
    assert {q.record.id: [s.reward_G for s in q.steps] for q in whole} == {q.record.id: [s.reward_G for s in q.steps] for q in again}
    assert results(tmp_path / "whole") == results(tmp_path / "killed")
