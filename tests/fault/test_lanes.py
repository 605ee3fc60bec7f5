"""Several lanes: questions go to the one that has room, and a lane that dies gives its questions back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from stand_in import Faults, StandIn, attempt, config_for, results, rollouts

from sttrl.errors import EngineError, LaneLostError, OutOfMemoryError
from sttrl.ledger.journal import read_lines
from sttrl.questions.answers import Judge
from sttrl.run.seats import Seats


class Lane(StandIn):
    """A stand-in that counts, closes more than once, and answers nothing after its death."""

    def __init__(self, dies_at: int | None = None) -> None:
        super().__init__(Faults({("sample", dies_at): EngineError("The sampler died.", "Run again.")} if dies_at else {}))
        self.served: set[str] = set()
        self.most = self.closed = 0

    def fork(self, name: str, delta: Any) -> Any:
        assert not self.closed, "a lost lane is asked for nothing"
        self.served |= {name} if name.startswith("q") else set()
        self.most = max(self.most, len({each for each in (*self.open, name) if each.startswith("q")}))
        return super().fork(name, delta)

    async def close(self) -> None:
        self.closed += 1


def whole(tmp_path: Path, judge: Judge) -> str:
    """What one lane makes of the same questions."""
    attempt(config_for(tmp_path / "whole", limit=8), StandIn(), judge)
    return results(tmp_path / "whole")


@pytest.mark.parametrize("each", [1, 2])
def test_lanes_share_the_questions_and_change_nothing(each: int, tmp_path: Path, judge: Judge) -> None:
    lanes = [Lane() for _ in range(3)]
    attempt(config_for(tmp_path / "run", limit=8, lanes=3, parallel_problems=each), lanes, judge)
    assert results(tmp_path / "run") == whole(tmp_path, judge)
    assert rollouts(tmp_path / "run") == rollouts(tmp_path / "whole")
    assert [lane.most for lane in lanes] == [each] * 3
    assert sum(len(lane.served) for lane in lanes) == 8


@pytest.mark.parametrize("each", [1, 3])
@pytest.mark.parametrize("dies_at", [1, 4, 7])
def test_a_lost_lane_gives_its_questions_back(dies_at: int, each: int, tmp_path: Path, judge: Judge) -> None:
    lanes, said = [Lane(dies_at), Lane()], list[str]()
    attempt(config_for(tmp_path / "run", limit=8, lanes=2, parallel_problems=each), lanes, judge, said=said)
    assert results(tmp_path / "run") == whole(tmp_path, judge) and rollouts(tmp_path / "run") == rollouts(tmp_path / "whole")
    moved = [line for line in said if "goes to another lane. Lane 1 of 2 is lost: The sampler died." in line]
    assert 1 <= len(moved) <= each and lanes[0].closed == 1 and lanes[1].closed == 0
    lines = list(read_lines(tmp_path / "run"))
    ended = [line["id"] for line in lines if line["kind"] == "question"]
    assert len(ended) == len(set(ended)) == 8, "nothing is done twice"


def test_when_the_last_lane_dies_the_run_ends_and_resumes(tmp_path: Path, judge: Judge) -> None:
    config = config_for(tmp_path / "run", limit=8, lanes=2)
    with pytest.raises(EngineError, match="The sampler died") as caught:
        attempt(config, [Lane(6), Lane(20)], judge)
    assert not isinstance(caught.value, LaneLostError)
    done = len(results(tmp_path / "run").splitlines())
    assert 0 < done < 8
    attempt(config, [Lane(), Lane()], judge)
    assert results(tmp_path / "run") == whole(tmp_path, judge)


def test_out_of_memory_costs_a_question_and_no_lane(tmp_path: Path, judge: Judge) -> None:
    class Full(Lane):
        def __init__(self) -> None:
            super().__init__()
            self.faults = Faults({("update", 1): OutOfMemoryError("The learner ran out of memory.", "Use fewer samples.")})

    lanes: Sequence[Lane] = [Full(), Lane()]
    attempt(config_for(tmp_path / "run", limit=6, lanes=2), lanes, judge)
    assert [json.loads(line)["status"] for line in results(tmp_path / "run").splitlines()].count("oom") == 1
    assert [lane.closed for lane in lanes] == [0, 0]


def test_who_waits_for_a_seat_learns_that_no_lane_is_left() -> None:
    async def two() -> tuple[BaseException | None, BaseException | None]:
        seats = Seats([StandIn()], 1)

        async def first() -> None:
            async with seats.take():
                await asyncio.sleep(0)
                raise EngineError("It died.")

        async def second() -> None:
            async with seats.take():
                raise AssertionError("there is no lane")

        found = await asyncio.gather(first(), second(), return_exceptions=True)
        return found[0], found[1]

    died, waited = asyncio.run(two())
    assert str(died) == "It died." and str(waited).startswith("No lane is left.")
