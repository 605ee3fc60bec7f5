"""How far lanes scale: a simulation with the timings of a real run.

    python benchmarks/lanes.py RUN [--questions 500] [--lanes 1 2 4 8 16 32 64] [--lanes_per_node 8] [--save]

``RUN`` is a run folder with one question in flight. Each simulated question takes the seconds of one of its questions, drawn at
random. What a lane does (sampling, updating, saving) runs beside other lanes; what the one driver does (judging, votes, journal: the
rest of the wall time) waits for its turn. Lanes start together. Network and storage are not in the model.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from table import show

LANE_WORK = ("sample", "update", "save", "score")
PIECES = 8
"""A question asks for the driver this many times."""


@dataclass(frozen=True)
class Timings:
    """Seconds: ``lane_Q`` of each measured question on its lane, ``driver`` of a question on the driver, ``start_up``."""

    lane_Q: tuple[float, ...]
    driver: float
    start_up: float


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("run", type=Path, help="a run folder with one question in flight")
    parser.add_argument("--questions", type=int, default=500)
    parser.add_argument("--lanes", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--lanes_per_node", type=int, default=8)
    parser.add_argument("--save", action="store_true", help="also keep the table under benchmarks/results")
    given = parser.parse_args()
    timings = measured(given.run)
    alone = simulated(timings, given.questions, 1)[0]
    rows = []
    for lanes in given.lanes:
        wall, busy = simulated(timings, given.questions, lanes)
        tail = max(timings.lane_Q) / wall
        shares = {"driver": busy / wall, "start-up": timings.start_up / wall, "the last questions": tail}
        worst = max(shares, key=lambda name: shares[name])
        nodes = -(-lanes // given.lanes_per_node)
        speed = alone / wall
        limit = f"{worst} ({shares[worst]:.0%} of the wall time)" if speed / lanes < 0.95 else "lanes"
        figures = f"{speed:.1f}x", f"{speed / lanes:.0%}", f"{busy / wall:.0%}"
        rows.append([str(lanes), str(nodes), f"{given.questions / wall * 3600:.0f}", *figures, limit])
    mean = sum(timings.lane_Q) / len(timings.lane_Q)
    notes = (
        f"Simulated from {len(timings.lane_Q)} questions of {given.run.name}: {mean:.1f} s a question on its lane, "
        f"{timings.driver * 1000:.0f} ms on the driver, start-up {timings.start_up:.0f} s; {given.questions} questions. The driver alone "
        f"would do {3600 / timings.driver:.0f} questions an hour. Every lane is as fast as the measured one, alone on its machine."
    )
    columns = ["lanes", "nodes", "questions an hour", "speed-up", "efficiency", "driver busy", "what limits it"]
    show("Lanes, simulated", columns, rows, notes, given.save)


def measured(folder: Path) -> Timings:
    """The timings of a run. Ends the program where it had several questions in flight."""
    if json.loads((folder / "config.json").read_text(encoding="utf-8")).get("parallel_problems", 1) != 1:
        sys.exit(f"{folder} had several questions in flight; give a run with one.")
    lines = [json.loads(line) for line in (folder / "journal.jsonl").read_text(encoding="utf-8").splitlines()]
    questions = [line["seconds"] for line in lines if line["kind"] == "question"]
    attempts = [line["seconds"] for line in lines if line["kind"] == "attempt"]
    lane_Q = tuple(sum(seconds.get(name, 0.0) for name in LANE_WORK) for seconds in questions)
    wall = sum(attempt["total"] - attempt["start_up"] for attempt in attempts)
    return Timings(lane_Q, max(1e-4, (wall - sum(lane_Q)) / len(lane_Q)), attempts[0]["start_up"])


def simulated(timings: Timings, questions: int, lanes: int) -> tuple[float, float]:
    """(wall seconds, seconds that the driver was busy)."""
    draw = random.Random(0)
    work = [draw.choice(timings.lane_Q) for _ in range(questions)]
    events: list[tuple[float, int, int]] = []
    driver_free = busy = wall = 0.0
    piece = timings.driver / PIECES
    left: Sequence[float] = work

    def begin(at: float, lane: int, question: int) -> None:
        heapq.heappush(events, (at + left[question] / PIECES, lane, question * PIECES))

    for lane in range(min(lanes, questions)):
        begin(timings.start_up, lane, lane)
    following = min(lanes, questions)
    while events:
        now, lane, place = heapq.heappop(events)
        driver_free = max(driver_free, now) + piece
        busy += piece
        question, done = divmod(place, PIECES)
        if done + 1 < PIECES:
            heapq.heappush(events, (driver_free + left[question] / PIECES, lane, place + 1))
        elif following < questions:
            begin(driver_free, lane, following)
            following += 1
        wall = max(wall, driver_free)
    return wall, busy


if __name__ == "__main__":
    main()
