"""TTRL-Guard in whole runs on the stand-in engine: weights, bonuses and skipped updates come from the journal, also after a kill."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
from stand_in import StandIn, attempt, config_for
from test_training import Killed, kill_at_line

from sttrl.ledger.journal import read_finished, read_lines
from sttrl.ledger.records import FinishedQuestion
from sttrl.questions.answers import Judge
from sttrl.questions.records import poll_from_json
from sttrl.types import TrainGroup

GUARD: dict[str, Any] = {
    "guard": ("frs", "mps", "rcsu"), "guard_window": 2, "guard_share": 0.25, "guard_skip": 0.6, "limit": 8, "steps": 5, "n_votes": 12,
    "n_train": 12, "val_samples": 1, "ties": "first", "temp": 2.0,
}  # fmt: skip
METHODS: dict[str, dict[str, Any]] = {
    "sttrl": {},
    "ttrl": {"adaptation_method": "ttrl", "steps": None, "epochs": 4, "train_batch_size": 8, "checkpoint_every": 2},
}


def finished(folder: Path, judge: Judge, **settings: Any) -> tuple[FinishedQuestion, ...]:
    attempt(config_for(folder, **{**GUARD, **settings}), StandIn(), judge)
    return read_finished(folder, poll_from_json)


@pytest.mark.parametrize("method", METHODS)
def test_weights_bonuses_and_skips_of_a_run(tmp_path: Path, judge: Judge, updates: list[TrainGroup], method: str) -> None:
    """Every update against a computation from the journal: GRPO by hand, times the weight, plus the bonus of the minorities."""
    finished(tmp_path / "run", judge, **METHODS[method])
    steps = [record for record in read_lines(tmp_path / "run") if record["kind"] == "step"]
    taught = [step for step in steps if step["update"]]
    assert len(taught) == len(updates) > 5
    before: dict[str, Any] = {}
    seen = Counter[str]()
    groups = iter(updates)
    for step in steps:
        election, classes = step["election"], step["ballots"]["class_G"]
        flipped = step["id"] in before and before[step["id"]] != election["answer"]
        before[step["id"]] = election["answer"]
        seen["flipped"] += flipped
        if flipped:
            assert step["weight"] == pytest.approx(0.5 * (0.7 if election["majority_ratio"] > 0.6 else 1))
        else:
            assert step["weight"] in (1.0, 0.85)
        seen["risk"] += step["gate"] == "risk"
        if not step["update"]:
            continue
        rewards = step["reward_G"]
        advantages = [step["weight"] * (r - fmean(rewards)) / (stdev(rewards) + 1e-6) for r in rewards]
        unit = fmean(map(abs, advantages))
        others = {c: n for c, n in Counter(classes).items() if c not in (None, election["winner"]) and n >= 3} if flipped else {}
        share = {c: 0.3 * n / sum(others.values()) for c, n in others.items()}
        seen["bonus"] += bool(share)
        none = 0.05 * fmean(share.values()) if share else 0.0
        expected = [a + unit * (none if c is None else share.get(c, 0.0)) for a, c in zip(advantages, classes, strict=True)]
        assert [row.advantage_T and row.advantage_T[0] for row in next(groups).row_G] == pytest.approx(expected)
    assert min(seen["flipped"], seen["bonus"], seen["risk"]) > 0, seen
    if method == "ttrl":
        assert max(Counter(step["step"] for step in steps if step["gate"] == "risk").values()) <= 2, "a quarter of eight questions"


def test_without_its_parts_nothing_is_weighed_or_skipped(tmp_path: Path, judge: Judge) -> None:
    only = finished(tmp_path / "mps", judge, guard=("mps",), guard_window=5, guard_share=0.7, guard_skip=0.7)
    assert {(step.weight, step.gate) for question in only for step in question.steps} == {(None, None)}


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_run_goes_on_as_if_it_had_not_been(tmp_path: Path, judge: Judge, method: str) -> None:
    own = {**METHODS[method], "limit": 4}
    whole = finished(tmp_path / "whole", judge, **own)
    assert any(step.weight != 1.0 for question in whole for step in question.steps)
    for number in range(2, len(list(read_lines(tmp_path / "whole"))) + 1, 4):
        with pytest.MonkeyPatch.context() as monkeypatch:
            kill_at_line(monkeypatch, number)
            with pytest.raises(Killed):
                finished(tmp_path / f"killed_{number}", judge, **own)
        for one, other in zip(whole, finished(tmp_path / f"killed_{number}", judge, **own), strict=True):
            assert one.record.polls == other.record.polls, number
            assert [(s.gate, s.weight, s.update) for s in one.steps] == [(s.gate, s.weight, s.update) for s in other.steps]
