"""Two real lanes on one machine: they share the questions, and one of them is killed while it works."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from live_engine import EngineHouse, at_home, living, settings_for
from method_runs import settled

from sttrl.engine.cluster import spread
from sttrl.engine.lanes import Lane, RayEngine
from sttrl.engine.models import load_tokenizer
from sttrl.engine.reaper import family
from sttrl.engine.verl.worker_group import Workers
from sttrl.engine.vllm.records import PolicyKey
from sttrl.engine.vllm.sampler import Sampler
from sttrl.errors import EngineError
from sttrl.ledger.folder import claim
from sttrl.ledger.journal import Journal, read_finished
from sttrl.questions.answers import Judge
from sttrl.questions.kind import Questions
from sttrl.run.plan import make_plan
from sttrl.run.runner import Runner
from sttrl.run.seats import Seats
from sttrl.types import DeltaSpec

LIMIT = 6


def nodes(*resources: int, kind: str = "GPU") -> list[dict[str, Any]]:
    """Nodes as Ray lists them."""
    return [{"NodeID": str(i), "NodeManagerAddress": f"10.0.0.{i}", "Alive": True, "Resources": {kind: n}} for i, n in enumerate(resources)]


@pytest.mark.parametrize(
    ("settings", "needed"),
    [
        ({}, 1),
        ({"lanes": 4}, 4),
        ({"gpus_per_lane": 2}, 2),
        ({"lanes": 2, "learner_ranks": 2, "gpus_per_lane": 3, "separate_reference": True}, 10),
    ],
    ids=str,
)
def test_too_few_gpus_are_an_error_and_no_wait(settings: dict[str, Any], needed: int, tmp_path: Path) -> None:
    wanted = settings_for(tmp_path, device="cuda", **settings)
    assert len(spread(wanted, nodes(needed))) == wanted.lanes
    with pytest.raises(EngineError, match=f"need {needed}, each lane on one node, and Ray has {needed - 1}"):
        spread(wanted, nodes(needed - 1))


def test_a_lane_is_on_one_node_and_lanes_share_a_node_no_more_than_they_must(tmp_path: Path) -> None:
    def used(lanes: int, *resources: int, **settings: Any) -> list[tuple[str, int]]:
        kind = "GPU" if settings.get("device") == "cuda" else "CPU"
        return [(seat.node, seat.lanes) for seat in spread(settings_for(tmp_path, lanes=lanes, **settings), nodes(*resources, kind=kind))]

    assert used(2, 4, 4) == [("0", 1), ("1", 1)]
    assert used(3, 2, 8) == [("1", 3)] * 3
    assert used(2, 1, 3, 2, device="cuda", gpus_per_lane=2) == [("1", 1), ("2", 1)]
    with pytest.raises(EngineError, match="2 lanes of 2 GPUs need 4, each lane on one node, and Ray has 1 \\+ 3"):
        used(2, 1, 3, device="cuda", gpus_per_lane=2)


@pytest.mark.parametrize("packs", [True, False])
def test_a_model_that_cannot_be_packed_is_told(packs: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def described() -> dict[str, Any]:
        return {"pid": os.getpid(), "packs": packs}

    said = list[str]()
    lane = at_home(Lane(settings_for(tmp_path), None, said.append), tmp_path)
    workers = Workers[Any]("learner", SimpleNamespace(execute_all=lambda *_: [described()]))
    monkeypatch.setattr("sttrl.engine.lanes.start_workers", lambda *_: workers)
    asyncio.run(lane._start_workers("learner"))
    assert ["again for every response" in line for line in said] == ([] if packs else [True])


def test_what_kept_a_learner_from_starting_is_one_line_and_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The sampler may fail first: nobody then asks what became of the learner, and asyncio would print it with its traceback."""

    def fail(*_: Any) -> Any:
        raise RuntimeError("size mismatch:\n  [12, 64]\n  [128, 64]") from KeyError("shape")

    async def end() -> EngineError:
        lane = at_home(Lane(settings_for(tmp_path), None), tmp_path)
        lane.learner_ready = asyncio.create_task(lane._start_workers("learner"))
        lane.critic_ready = asyncio.create_task(lane._start_workers("critic"))
        await asyncio.wait([lane.critic_ready])
        with pytest.raises(EngineError) as caught:
            await lane.learner()
        await lane.close()
        del lane
        gc.collect()
        return caught.value

    monkeypatch.setattr("sttrl.engine.lanes.start_workers", fail)
    error = asyncio.run(end())
    assert str(error) == (
        "The learner did not start: RuntimeError: size mismatch: [12, 64] [128, 64]. The rest is in logs/ in the run folder."
    )
    assert not [record for record in caplog.records if "never retrieved" in record.getMessage()]


def test_a_caller_that_is_cancelled_does_not_end_the_start_of_the_learner(tmp_path: Path) -> None:
    async def both() -> str:
        lane, ready = Lane(settings_for(tmp_path), None), asyncio.Event()

        async def start() -> Any:
            await ready.wait()
            return "workers"

        lane.learner_ready = asyncio.create_task(start())
        hasty, patient = asyncio.create_task(lane.learner()), asyncio.create_task(lane.learner())
        await asyncio.sleep(0)
        hasty.cancel()
        await asyncio.wait([hasty])
        ready.set()
        return str(await patient)

    assert asyncio.run(both()) == "workers"


def test_requests_of_the_base_let_a_waiting_policy_go_first(tmp_path: Path) -> None:
    """Else those that come without end keep every other policy out."""

    async def order() -> list[str]:
        sampler, done = Sampler(settings_for(tmp_path)), list[str]()

        async def swap(key: PolicyKey) -> None:
            sampler.resident = key.weights

        sampler._swap = swap  # type: ignore[method-assign]

        async def ask(name: str, key: PolicyKey, until: asyncio.Event) -> None:
            async with sampler._holding(key):
                await until.wait()
                done.append(name)

        base, fork = PolicyKey("base", 0, None), PolicyKey("fork", 1, "folder")
        first, others = asyncio.Event(), asyncio.Event()
        others.set()
        tasks = []
        for name, key, until in (("base", base, first), ("fork", fork, others), ("base again", base, others)):
            tasks.append(asyncio.create_task(ask(name, key, until)))
            await asyncio.sleep(0.01)
        assert done == [], "the base is resident and has a request in flight; the fork waits, and so does the base's next request"
        first.set()
        await asyncio.gather(*tasks)
        return done

    assert asyncio.run(order()) == ["base", "fork", "base again"]


def test_ranks_meet_in_a_file_of_their_lane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """verl finds a free port seconds before it is used; two lanes have found the same one."""
    groups = list[dict[str, Any]]()
    monkeypatch.setattr("verl.single_controller.ray.RayWorkerGroup", lambda **given: groups.append(given))
    monkeypatch.setattr("ray.remote", lambda kind: kind)
    for name in ("a", "b"):
        for role in ("learner", "critic"):
            with pytest.raises(EngineError, match="execute_all"):  # of no group
                asyncio.run(at_home(Lane(settings_for(tmp_path), None), tmp_path / name)._start_workers(role))
    places = [group["worker_env"]["DIST_INIT_METHOD"] for group in groups]
    assert places == [f"file://{tmp_path}/{name}/{role}.meeting" for name in ("a", "b") for role in ("learner", "critic")]


@pytest.mark.slow
@pytest.mark.long
def test_a_killed_lane_gives_its_questions_to_the_other(tiny_model: Path, engine_house: EngineHouse, tmp_path: Path) -> None:
    engine_house.close()
    settings = settings_for(tiny_model, lanes=2, max_forks=2)
    config = settled(tiny_model, output_dir=tmp_path, limit=LIMIT, lanes=2, parallel_problems=2, deterministic=False)
    plan = make_plan(config, print)
    problems, parts = plan.problems, plan.parts
    folder, said, killed = tmp_path / "run", list[str](), list[int]()

    async def run() -> list[psutil.Process]:
        lanes = [RayEngine(settings, load_tokenizer(tiny_model)) for _ in range(2)]
        started: list[psutil.Process] = []

        def watch(line: str) -> None:
            said.append(line)
            if line.startswith("[1/") and not killed:
                killed.append(lanes[0].lane.pids[0])
                os.kill(killed[0], signal.SIGKILL)

        try:
            await asyncio.gather(*(lane.start() for lane in lanes))
            for lane in lanes:
                await lane.lane.learner()
            started += [p for lane in lanes for p in family(lane.lane.pids)]
            async with Judge() as judge:
                with Journal(folder) as journal:
                    claim(folder, config)
                    runner = Runner(
                        config,
                        kind=partial(Questions, config, judge),
                        seats=Seats(lanes, config.in_flight),
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
        return started

    started = asyncio.run(run())
    assert {f.record.id: f.record.status for f in read_finished(folder)} == {p.id: "done" for p in problems} and len(problems) == LIMIT
    assert killed and 1 <= sum("goes to another lane. Lane 1 of 2 is lost" in line for line in said) <= 2
    assert parts is not None and parts.settings.lanes == 2 and len({p.pid for p in started}) >= 4
    assert not living(started), "no process is left"


@pytest.mark.parametrize("asked", ["open_fork", "close_fork"])
def test_a_caller_who_is_cancelled_while_a_fork_is_opened_or_closed_leaves_no_fork(asked: str, tmp_path: Path) -> None:
    held, done = asyncio.Event(), list[str]()

    async def use(engine: RayEngine) -> None:
        async with engine.fork("one", DeltaSpec(kind="lora")):
            assert engine.forks == {"one"}

    async def cancelled() -> frozenset[str]:
        released = asyncio.Event()

        async def ask(method: str) -> None:
            if method == asked:
                held.set()
                await released.wait()
            done.append(method)

        engine = RayEngine(settings_for(tmp_path, samples=False), None)
        # As with Ray, what was asked goes on if the caller is cancelled.
        group = SimpleNamespace(execute_all=lambda _, method, *arguments: [asyncio.shield(ask(method))])
        engine.lane.learner_ready = asyncio.create_task(asyncio.sleep(0, Workers[Any]("learner", group)))
        user = asyncio.create_task(use(engine))
        await held.wait()
        user.cancel()
        released.set()
        await asyncio.wait([user])
        while engine.forks:
            await asyncio.sleep(0)
        return engine.forks

    assert asyncio.run(asyncio.wait_for(cancelled(), 60)) == frozenset()
    assert done == ["open_fork", "close_fork"]
