"""Two real lanes on one machine: they share the questions, and one of them is killed while it works."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import psutil
import pytest
from live_engine import EngineHouse, settings_for
from method_runs import settled

from sttrl import launch
from sttrl.answers import Judge
from sttrl.engine.lanes import RayEngine
from sttrl.engine.models import load_tokenizer
from sttrl.run.folder import claim
from sttrl.run.journal import Journal, read_finished
from sttrl.run.runner import Runner

pytestmark = pytest.mark.slow
LIMIT = 6


def test_a_killed_lane_gives_its_questions_to_the_other(tiny_model: Path, engine_house: EngineHouse, tmp_path: Path) -> None:
    engine_house.close()
    settings = settings_for(tiny_model, lanes=2, max_forks=2)
    config = settled(tiny_model, output_dir=tmp_path, limit=LIMIT, lanes=2, parallel_problems=2, deterministic=False)
    table, chosen = launch.selection(config)
    problems, _, parts = launch.prepare(config, table, chosen, set())
    folder, said, killed = tmp_path / "run", list[str](), list[int]()

    async def run() -> list[int]:
        lanes = [RayEngine(settings, load_tokenizer(tiny_model)) for _ in range(2)]
        await asyncio.gather(*(lane.start() for lane in lanes))
        for lane in lanes:
            await lane.lane.learner()
        pids = [
            p.pid for lane in lanes for pid in lane.lane.pids for p in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True))
        ]

        def watch(line: str) -> None:
            said.append(line)
            if line.startswith("[1/") and not killed:
                killed.append(lanes[0].lane.pids[0])
                os.kill(killed[0], signal.SIGKILL)

        try:
            async with Judge() as judge:
                with Journal(folder) as journal:
                    claim(folder, config)
                    runner = Runner(
                        config,
                        engines=lanes,
                        judge=judge,
                        journal=journal,
                        folder=folder,
                        attempt=1,
                        progress=watch,
                        track=lambda record: None,
                    )
                    await runner.run(problems, 0)
        finally:
            for lane in lanes:
                await lane.close()
        return pids

    pids = asyncio.run(run())
    assert {f.record.id: f.record.status for f in read_finished(folder)} == {p.id: "done" for p in problems} and len(problems) == LIMIT
    assert killed and 1 <= sum("goes to another lane. Lane 1 of 2 is lost" in line for line in said) <= 2
    assert parts.settings.lanes == 2 and len(set(pids)) >= 4
    assert not [pid for pid in pids if psutil.pid_exists(pid)], "no process is left"
