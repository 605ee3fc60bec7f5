"""What the tests on the real stack share: a tiny model, and engines, of which one at most is alive."""

from __future__ import annotations

import os

# verl chooses its platform when it is first imported, by whichever test.
os.environ.setdefault("VERL_PLATFORM", "cpu")

from collections.abc import Iterator  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import pytest  # noqa: E402


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist looks for the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where tests run in several processes, those of a file run in one, and all that share the engine in another."""
    for item in items:
        shares = "lora_engine" in getattr(item, "fixturenames", ())
        item.add_marker(pytest.mark.xdist_group("engine" if shares else item.path.name))


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
