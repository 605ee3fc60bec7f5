"""What the tests on the real stack share: a tiny model, and engines, of which one at most is alive in a process."""

from __future__ import annotations

import os

# verl chooses its platform when it is first imported, by whichever test.
os.environ.setdefault("VERL_PLATFORM", "cpu")

from collections.abc import Iterator  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

# An example may take as long as a busy machine needs.
settings.register_profile("sttrl", deadline=None)
settings.load_profile("sttrl")

SHARE_AN_ENGINE = ("test_engine_lora.py", "test_engine_lora_runs.py", "test_engine_methods.py")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Where tests run in several processes, those of a file run in one, and so do the files that share an engine."""
    from xdist.scheduler import LoadScopeScheduling

    class ByEngine(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "engine" if file.endswith(SHARE_AN_ENGINE) else file

    return ByEngine(config, log)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tiny model."""
    from tiny_model import make_tiny_model

    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "tiny")


@pytest.fixture(scope="session")
def engine_house() -> Iterator[Any]:
    """Where engines are asked for; see `live_engine.EngineHouse`."""
    from live_engine import EngineHouse

    house = EngineHouse()
    yield house
    house.close()


@pytest.fixture
def lora_engine(engine_house: Any, tiny_model: Path) -> Any:
    """The engine that most tests share: LoRA, float32, one learner rank."""
    from live_engine import settings_for

    return engine_house.get(settings_for(tiny_model))


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A stand-in of the hub on this machine, which huggingface_hub talks to; see `hub_stand_in.StandIn`."""
    from hub_stand_in import hub

    for name in ("HF_HUB_OFFLINE", "HF_TOKEN", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with hub() as here:
        monkeypatch.setenv("HF_ENDPOINT", here.address)
        yield here
