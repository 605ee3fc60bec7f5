"""The cluster that lanes share: a start that failed is not tried again by the lanes that wait for it, but by whoever comes later."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from sttrl.engine import cluster
from sttrl.engine.cluster import Cluster
from sttrl.errors import EngineError


def test_lanes_that_wait_share_a_failure_and_the_next_start_tries_again(monkeypatch: pytest.MonkeyPatch) -> None:
    starts, waits, shared = list[int](), threading.Event(), Cluster()

    def start_ray(cpus: int) -> bool:
        starts.append(cpus)
        if len(starts) == 1:
            assert waits.wait(60)
            raise EngineError("Ray did not start.", "Run again.")
        raise EngineError("Ray did not start again.", "Run again.")

    monkeypatch.setattr(cluster, "ray", SimpleNamespace(is_initialized=lambda: False))
    monkeypatch.setattr(cluster, "start_ray", start_ray)
    monkeypatch.setattr(cluster, "bundles", lambda settings: 1)
    said = list[str]()

    def join() -> None:
        settings: Any = SimpleNamespace(lanes=2)
        with pytest.raises(EngineError) as caught:
            shared.join(settings)
        said.append(caught.value.message)

    lanes = [threading.Thread(target=join) for _ in range(2)]
    for lane in lanes:
        lane.start()
    while shared.coming != 1 or not starts:
        threading.Event().wait(0.01)
    waits.set()
    for lane in lanes:
        lane.join(60)
    assert said == ["Ray did not start."] * 2 and len(starts) == 1
    join()
    assert said[-1] == "Ray did not start again." and len(starts) == 2
