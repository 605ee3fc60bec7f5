"""SPINE in whole runs on the stand-in engine: the mask of the settings reaches every update of the learner."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from stand_in import StandIn, StandInPolicy, attempt, config_for

from sttrl.ledger.journal import read_finished
from sttrl.questions.answers import Judge
from sttrl.questions.records import poll_from_json
from sttrl.types import Forking, Objective, TrainGroup, UpdateStats


@pytest.mark.parametrize("method", ["sttrl", "ttrl"])
def test_the_mask_reaches_every_update(tmp_path: Path, judge: Judge, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    seen: list[Objective] = []
    plain = StandInPolicy.update

    async def update(policy: StandInPolicy, groups: Sequence[TrainGroup], objective: Objective) -> UpdateStats:
        seen.append(objective)
        return await plain(policy, groups, objective)

    monkeypatch.setattr(StandInPolicy, "update", update)
    own: dict[str, Any] = {"adaptation_method": method, "forking_tokens": "top", "entropy_band": "quantiles", "entropy_high_coef": 0.25}
    attempt(config_for(tmp_path / "run", ties="first", **own), StandIn(), judge)
    expected = Forking(rule="top", share=0.2, band="quantiles", low_coef=0.01, high_coef=0.25)
    assert len(seen) > 3 and all(objective.forking == expected for objective in seen)
    assert all(question.record.status == "done" for question in read_finished(tmp_path / "run", poll_from_json))
