"""A stopwatch that adds up seconds by activity, and a policy that times its calls with one."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from sttrl.engine.base import JUST_LOGPROBS, Policy
from sttrl.types import Measure, Objective, Request, Rollout, TokenStats, TrainGroup, UpdateStats


class Stopwatch:
    """Wall seconds by activity, in total or since `since_last` was last called."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self.reported: dict[str, float] = {}

    @contextmanager
    def on(self, activity: str) -> Iterator[None]:
        """Time a block."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.spent[activity] += time.perf_counter() - started

    def total(self) -> dict[str, float]:
        """All seconds so far, by activity."""
        return {name: round(value, 4) for name, value in self.spent.items()}

    def since_last(self) -> dict[str, float]:
        """The seconds since the last call, by activity."""
        new = {name: round(value - self.reported.get(name, 0.0), 4) for name, value in self.spent.items()}
        self.reported = dict(self.spent)
        return {name: value for name, value in new.items() if value}


def added(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Sum of several readings."""
    total: dict[str, float] = defaultdict(float)
    for part in parts:
        for name, value in part.items():
            total[name] += value
    return dict(total)


class TimedPolicy:
    """A policy whose calls are timed by activity."""

    def __init__(self, policy: Policy, watch: Stopwatch) -> None:
        self.policy, self.watch = policy, watch

    @property
    def version(self) -> int:
        """See `Policy.version`."""
        return self.policy.version

    async def sample(self, requests: Sequence[Request]) -> tuple[Rollout, ...]:
        """See `Policy.sample`."""
        with self.watch.on("sample"):
            return await self.policy.sample(requests)

    async def score(
        self, groups: Sequence[TrainGroup], measure: Measure = JUST_LOGPROBS, at: Literal["policy", "base"] = "policy"
    ) -> tuple[tuple[TokenStats, ...], ...]:
        """See `Policy.score`."""
        with self.watch.on("score"):
            return await self.policy.score(groups, measure, at)

    async def values(self, groups: Sequence[TrainGroup]) -> tuple[tuple[tuple[float, ...], ...], ...]:
        """See `Policy.values`."""
        with self.watch.on("score"):
            return await self.policy.values(groups)

    async def update(self, groups: Sequence[TrainGroup], objective: Objective) -> UpdateStats:
        """See `Policy.update`."""
        with self.watch.on("update"):
            return await self.policy.update(groups, objective)

    async def save(self, folder: Path) -> None:
        """See `Policy.save`."""
        with self.watch.on("save"):
            await self.policy.save(folder)

    async def checkpoint(self, folder: Path) -> None:
        """See `Policy.checkpoint`."""
        with self.watch.on("save"):
            await self.policy.checkpoint(folder)

    async def restore(self, folder: Path) -> None:
        """See `Policy.restore`."""
        await self.policy.restore(folder)

    async def load(self, folder: Path) -> None:
        """See `Policy.load`."""
        with self.watch.on("load"):
            await self.policy.load(folder)
