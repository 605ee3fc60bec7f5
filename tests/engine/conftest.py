"""A learner in the test's own process: one rank over gloo, no Ray."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from live_engine import LiveEngine, settings_for
from method_runs import settled

import sttrl.engine.lanes
from sttrl import cli


@pytest.fixture(scope="session")
def local_learner(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """Makes a `Learner` in float32, with changes to the settings."""
    import torch
    from torch import distributed

    from sttrl.engine.verl.critic import Critic
    from sttrl.engine.verl.learner import Learner
    from sttrl.engine.verl.worker_group import alone

    rank = alone(tmp_path_factory.mktemp("ranks") / "meeting")

    def make(role: type[Learner | Critic] = Learner, **changes: Any) -> Any:
        # Ray's workers inherit this process's environment, so the rank is there for a moment only.
        with pytest.MonkeyPatch.context() as patch:
            for name, value in rank.items():
                patch.setenv(name, value)
            return role(settings_for(tiny_model, **changes))

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # what is this small loses more to waking threads than they do
    yield make
    torch.set_num_threads(threads)
    if distributed.is_initialized():
        distributed.destroy_process_group()


@pytest.fixture(scope="session")
def lora_learner(local_learner: Callable[..., Any]) -> Any:
    """A learner of LoRA forks."""
    return local_learner()


@pytest.fixture(scope="session")
def full_learner(local_learner: Callable[..., Any]) -> Any:
    """A learner of forks with full weights."""
    return local_learner(adapter=None)


@pytest.fixture(scope="session", params=["lora", "full"])
def critic(local_learner: Callable[..., Any], request: pytest.FixtureRequest) -> Any:
    """A critic of each kind of fork."""
    from sttrl.engine.verl.critic import Critic

    return local_learner(Critic, **({} if request.param == "lora" else {"adapter": None}))


@pytest.fixture
def keep_alive(monkeypatch: pytest.MonkeyPatch) -> Callable[[LiveEngine], None]:
    """Puts an engine that is there already in the place of every new one that `sttrl.run.workshop` asks for."""

    def use(live: LiveEngine) -> None:
        engine = live.engine

        class Alive:
            def __new__(cls, *_: Any) -> Any:
                return engine

        async def nothing() -> None:
            engine.lane.turn = asyncio.Lock()  # of this run's event loop

        monkeypatch.setattr(sttrl.engine.lanes, "RayEngine", Alive)
        monkeypatch.setattr(engine, "start", nothing)
        monkeypatch.setattr(engine, "close", nothing)

    return use


@pytest.fixture
def do_run(tiny_model: Path, lora_engine: LiveEngine, keep_alive: Callable[[LiveEngine], None]) -> Callable[..., Path]:
    """`sttrl.cli.run` on the engine that most tests share; returns the run folder."""
    keep_alive(lora_engine)

    def run(dataset: Path | str, output_dir: Path, **changes: Any) -> Path:
        cli.run(settled(tiny_model, dataset=str(dataset), output_dir=output_dir, **changes))
        return output_dir / "run"

    return run
