"""The benchmarks' own arithmetic: a simulation that knows its limits, a table that is kept as it was printed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def lanes(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """benchmarks/lanes.py, imported as it imports its neighbours when it is run."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import lanes

    yield lanes
    for name in ("lanes", "table"):
        sys.modules.pop(name, None)


def test_lanes_that_only_sample_scale_without_loss(lanes: ModuleType) -> None:
    timings = lanes.Timings(lane_Q=(4.0,), driver=1e-9, start_up=0.0)
    walls = {n: lanes.simulated(timings, 64, n)[0] for n in (1, 4, 64)}
    assert walls[1] == pytest.approx(256.0) and walls[4] == pytest.approx(64.0) and walls[64] == pytest.approx(4.0)


def test_a_driver_that_does_everything_lets_no_lane_help(lanes: ModuleType) -> None:
    timings = lanes.Timings(lane_Q=(1e-9,), driver=2.0, start_up=0.0)
    for n in (1, 8):
        wall, busy = lanes.simulated(timings, 16, n)
        assert wall == pytest.approx(32.0) and busy == pytest.approx(32.0)


def test_start_up_is_paid_once(lanes: ModuleType) -> None:
    timings = lanes.Timings(lane_Q=(1.0, 3.0), driver=0.1, start_up=30.0)
    for n in (1, 3, 200):
        wall, busy = lanes.simulated(timings, 100, n)
        assert busy == pytest.approx(10.0) and wall >= 30.0 + 10.0 / 8
    assert lanes.simulated(timings, 100, 200) == lanes.simulated(timings, 100, 100), "a lane without a question does nothing"


def test_the_timings_of_a_run(lanes: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"parallel_problems": 1}')
    lines = [
        {"kind": "question", "seconds": {"sample": 2.0, "update": 1.0, "judge": 0.5}},
        {"kind": "question", "seconds": {"sample": 1.0, "save": 0.5}},
        {"kind": "attempt", "seconds": {"start_up": 20.0, "total": 25.5}},
    ]
    (tmp_path / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert lanes.measured(tmp_path) == lanes.Timings(lane_Q=(3.0, 1.5), driver=0.5, start_up=20.0)
    (tmp_path / "config.json").write_text('{"parallel_problems": 4}')
    with pytest.raises(SystemExit, match="several questions in flight"):
        lanes.measured(tmp_path)


def test_a_table_is_kept_as_printed(
    lanes: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = sys.modules["table"]
    monkeypatch.setattr(table, "RESULTS", tmp_path / "results")
    table.show("Some title", ["a", "b"], [["1", "2"]], "A note.", save=True)
    (kept,) = (tmp_path / "results").iterdir()
    assert capsys.readouterr().out.startswith(kept.read_text()) and "| 1 | 2 |" in kept.read_text()
