"""SCRL and DDRL in whole runs on the stand-in engine: SCRL learns where nobody wins the vote."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from stand_in import StandIn, attempt, config_for

from sttrl.ledger.journal import read_finished, read_lines
from sttrl.ledger.records import StepRecord
from sttrl.questions.answers import Judge
from sttrl.questions.records import poll_from_json
from sttrl.types import TrainGroup

SETTINGS: dict[str, Any] = {"limit": 12, "steps": 2, "n_votes": 12, "n_train": 12, "val_samples": 1}


def first_steps(folder: Path, judge: Judge, **settings: Any) -> dict[str, tuple[StepRecord, str]]:
    """The first step of each question of a run, and why the question stopped."""
    attempt(config_for(folder, **SETTINGS, **settings), StandIn(), judge)
    return {f.record.id: (f.steps[0], str(f.record.stop)) for f in read_finished(folder, poll_from_json)}


def test_scrl_learns_where_nobody_wins(tmp_path: Path, judge: Judge) -> None:
    ttrl, scrl = (first_steps(tmp_path / reward, judge, reward=reward) for reward in ("agreement", "scrl"))
    tied = {id for id, (step, _) in scrl.items() if step.election.winner is None}
    assert tied and {id for id, (step, _) in ttrl.items() if step.election.winner is None} == tied, "the same samples vote"
    assert {ttrl[id][1] for id in tied} == {"tie"} and not any(ttrl[id][0].update for id in tied)
    learnt = {id for id in tied if scrl[id][0].update}
    assert learnt and "tie" not in {stop for _, stop in scrl.values()}
    assert all(set(scrl[id][0].reward_G) == {0.0, -1.0} for id in learnt), "only negatives taught"


def test_a_gate_of_the_user_s_holds_for_scrl_too(tmp_path: Path, judge: Judge) -> None:
    gated = first_steps(tmp_path / "run", judge, reward="scrl", min_margin=0.05)
    tied = [step for step, _ in gated.values() if step.election.winner is None and len(set(step.reward_G)) > 1]
    assert tied and all(step.gate == "margin" and step.update is None for step in tied)


@pytest.mark.parametrize("method", ["sttrl", "ttrl"])
def test_ddrl_trains_on_a_balanced_half_with_fixed_advantages(tmp_path: Path, judge: Judge, updates: list[TrainGroup], method: str) -> None:
    """Of 12 samples 6 are trained on: 3 winners at 1, and losers at -1 as far as there are any."""
    chosen = {"adaptation_method": method, "train_samples": "balanced", "adv_estimator": "dae", "n_train": 6, "ties": "first"}
    attempt(config_for(tmp_path / "run", **{**SETTINGS, **chosen}), StandIn(), judge)
    taught = [record for record in read_lines(tmp_path / "run") if record["kind"] == "step" and record["update"]]
    assert len(taught) == len(updates) > 5
    for record, group in zip(taught, updates, strict=True):
        winners = int(sum(record["reward_G"]))
        positive = min(winners, 3) + max(0, 6 - min(winners, 3) - (12 - winners))
        assert len(group.row_G) == 6
        signs = Counter(x for row in group.row_G for x in set(row.advantage_T or ()))
        assert signs == Counter({1.0: positive, -1.0: 6 - positive}), record["reward_G"]
