"""What every fault test uses: one judge, its worker idle, and an fsync that costs nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import pytest
from stand_in import InlineJudge, StandInPolicy

from sttrl.questions.answers import Judge
from sttrl.types import Objective, TrainGroup, UpdateStats


@pytest.fixture(scope="session")
def judge() -> Iterator[Judge]:
    """The real judge; the answers of the stand-in are plain numbers, which need no worker."""
    judge = InlineJudge()
    yield judge
    judge.close_sync()


@pytest.fixture(autouse=True)
def free_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill loses nothing that was written, synced or not; waiting for the disk thousands of times shows nothing."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def updates(monkeypatch: pytest.MonkeyPatch) -> list[TrainGroup]:
    """The groups of every update of the stand-in, in order."""
    seen: list[TrainGroup] = []
    plain = StandInPolicy.update

    async def update(policy: StandInPolicy, groups: Sequence[TrainGroup], objective: Objective) -> UpdateStats:
        seen.extend(groups)
        return await plain(policy, groups, objective)

    monkeypatch.setattr(StandInPolicy, "update", update)
    return seen
