"""A policy and its critic step together or not at all: a fork as a lane has it, its workers in the test's own process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from learner_tools import OPEN, batch, same, spec, state
from live_engine import at_home, settings_for

from sttrl.engine.lanes import Fork, Lane
from sttrl.engine.verl.worker_group import Role, Workers
from sttrl.errors import DivergedError, OutOfMemoryError
from sttrl.types import TrainGroup

ROLES: tuple[Role, Role] = ("learner", "critic")


class InProcess:
    """verl's worker group of one rank, without a process of its own."""

    def __init__(self, worker: Any) -> None:
        self.worker = worker

    def execute_all(self, method_name: str, *arguments: Any) -> Sequence[Awaitable[Any]]:
        async def call() -> Any:
            assert method_name == "ask"
            return getattr(self.worker, arguments[0])(*arguments[1:])

        return [call()]


@pytest.fixture(params=["lora", "full"])
def workers(request: pytest.FixtureRequest, local_learner: Callable[..., Any]) -> Iterator[tuple[Any, Any]]:
    """A learner and a critic of each kind of fork, with an open fork."""
    from sttrl.engine.verl.critic import Critic

    learner = request.getfixturevalue(f"{request.param}_learner")
    critic = local_learner(Critic, adapter=learner.settings.adapter)
    for worker in (learner, critic):
        worker.open_fork("fork", spec(request.param, lr=0.01))
    yield learner, critic
    for worker in (learner, critic):
        worker.close_fork("fork")


def ppo_group() -> TrainGroup:
    """Responses with advantages, values and returns."""
    group = batch().group
    return replace(group, row_G=tuple(replace(r, value_T=(0.0,) * len(r.token_T), return_T=r.advantage_T) for r in group.row_G))


def on_a_lane(model: Path, folder: Path, workers: tuple[Any, Any], work: Callable[[Fork], Awaitable[None]]) -> None:
    """Do something with the fork on a lane of these workers."""

    async def run() -> None:
        lane = at_home(Lane(settings_for(model, critic=True), tokenizer=None), folder)

        async def ready(role: Role, worker: Any) -> Workers[Any]:
            return Workers(role, InProcess(worker))

        lane.learner_ready, lane.critic_ready = (
            asyncio.create_task(ready(role, worker)) for role, worker in zip(ROLES, workers, strict=True)
        )
        try:
            await work(Fork(lane, "fork", spec()))
        finally:
            await lane.close()

    asyncio.run(run())


@contextmanager
def refusing(worker: Any, error: Exception) -> Iterator[None]:
    """Every training pass of a worker from its second one on is refused."""
    honest, calls = worker.engine.forward_backward_batch, []

    def refused(*arguments: Any, **options: Any) -> Any:
        if not options.get("forward_only"):
            calls.append(1)
            if len(calls) > 1:
                raise error
        return honest(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker.engine, "forward_backward_batch", refused)
        yield
    assert len(calls) > 1


def files(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


@pytest.mark.parametrize("error", [DivergedError("The loss is nan."), MemoryError(), ValueError("a column is missing")])
@pytest.mark.parametrize("refuses", [0, 1], ids=["policy", "critic"])
def test_where_one_is_refused_neither_has_stepped(
    workers: tuple[Any, Any], refuses: int, error: Exception, tiny_model: Path, tmp_path: Path
) -> None:
    """Nor is there anything of the step in what a resumed run reads."""
    objective, data = replace(OPEN, ppo_epochs=2), [ppo_group()]

    async def work(fork: Fork) -> None:
        await fork.update(data, objective)
        before = [state(worker, "fork") for worker in workers]
        await fork.checkpoint(tmp_path / "before")
        with refusing(workers[refuses], error), pytest.raises((DivergedError, OutOfMemoryError, ValueError)):
            await fork.update(data, objective)
        assert fork.version == 1
        assert all(same(state(worker, "fork"), was) for worker, was in zip(workers, before, strict=True))
        await fork.checkpoint(tmp_path / "after")
        assert files(tmp_path / "after") == files(tmp_path / "before")
        stats = await fork.update(data, objective)
        assert fork.version == 2 and stats.value_loss is not None
        assert not any(same(state(worker, "fork"), was) for worker, was in zip(workers, before, strict=True))

    on_a_lane(tiny_model, tmp_path, workers, work)
