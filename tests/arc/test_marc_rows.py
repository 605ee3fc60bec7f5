"""`--train_form marc`: the set that marc trains on for a task, as rows of ttt and of finetune."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from arc_stand_in import CODEC, TOKENIZER, ArcStandIn, arc_attempt, arc_config, handed_in, text_of
from hypothesis import given
from hypothesis import strategies as st
from test_arc_runs import results_of, two_tests
from test_finetune import finetuning

from sttrl.arc.problem import Scribe
from sttrl.arc.rows import ChosenRows
from sttrl.arc.tasks import Pair, Puzzle, Task
from sttrl.arc.training_set import puzzles_of
from sttrl.arc.views import marc
from sttrl.arc.views.draws import SeededDice
from sttrl.arc.views.key import View
from sttrl.config.arc import ArcTrainingSettings
from sttrl.errors import UsageError
from sttrl.ledger.journal import read_lines
from sttrl.types import DeltaSpec

MARC = ArcTrainingSettings(train_form="marc")


def task(demos: int) -> Task:
    pairs = tuple(Pair(input=((number, 0, 3), (0, 5, number)), output=((number,), (9,))) for number in range(1, demos + 1))
    return Task(id="t", demos=pairs, tests=(((7, 7),),))


def rows(demos: int, count: int = 250, limit: int = 4096, seed: int = 3) -> list[Puzzle]:
    return list(puzzles_of(task(demos), count, MARC, Scribe(CODEC, TOKENIZER, limit, "last"), seed))


def longest(puzzle: Puzzle) -> int:
    return len(TOKENIZER(CODEC.write(puzzle).text, add_special_tokens=False)["input_ids"])


def test_a_set_is_leave_one_out_topped_up_with_leave_two_out() -> None:
    found = rows(4)
    assert len(found) == len(set(found)) == 250
    shown = [len(puzzle.demos) for puzzle in found]
    assert shown == sorted(shown, reverse=True) and {3, 2} == set(shown), "the head of leave-two-out follows"
    assert all(puzzle.answer is not None for puzzle in found)
    cut = rows(4, count=20)
    assert len(cut) == 20 and {len(puzzle.demos) for puzzle in cut} == {3}
    assert len(rows(2)) < 250, "there are no more"


def test_where_no_leave_one_out_row_fits_all_of_leave_two_out_are_taken() -> None:
    smallest = min(longest(puzzle) for puzzle in rows(4) if len(puzzle.demos) == 3)
    found = rows(4, count=20, limit=smallest - 1)
    assert len(found) > 20 and {len(puzzle.demos) for puzzle in found} == {2}
    assert all(longest(puzzle) < smallest for puzzle in found), "no demonstration is dropped to make a row fit"
    assert rows(4, limit=5) == []


def test_no_more_rows_are_written_than_are_needed() -> None:
    looked: list[Puzzle] = []

    def fits(puzzle: Puzzle) -> bool:
        looked.append(puzzle)
        return len(looked) % 2 == 0

    found = marc.adaptation_set(task(4).demos, fits, SeededDice(3), 120)
    first = [puzzle for puzzle in found if len(puzzle.demos) == 3]
    assert len(found) == 120 and 0 < len(first) < 120 and looked[-1] == found[-1]


def test_one_demonstration_is_asked_without_others() -> None:
    assert {len(puzzle.demos) for puzzle in rows(1)} == {0} and len(rows(1)) > 20


@given(st.frozensets(st.integers(0, 9)), st.integers(0, 1000))
def test_a_colour_map_is_a_bijection(used: frozenset[int], seed: int) -> None:
    view = marc.colours_preferring_unused(used, SeededDice(seed))
    (row,) = view.apply((tuple(range(10)),))
    assert sorted(row) == list(range(10)) and row[0] == 0
    assert view.invert((row,)) == (tuple(range(10)),)


def test_rows_depend_on_the_seed_alone_and_not_on_the_hashes_of_python() -> None:
    code = (
        "import hashlib; from sttrl.arc.tasks import Pair; from sttrl.arc.views import marc; from sttrl.arc.views.draws import SeededDice;"
        "demos = [Pair(input=((n, 0, 3), (0, 5, n)), output=((n,), (9,))) for n in (1, 2, 4, 7)];"
        "found = [marc.adaptation_set(demos[:n], lambda puzzle: True, SeededDice(n), 100) for n in (2, 3, 4)];"
        "print(hashlib.sha256(repr(found).encode()).hexdigest(), hash('x'))"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).resolve().parents[2],
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout.split()
        for seed in ("0", "1")
    ]
    assert said[0][0] == said[1][0] and said[0][1] != said[1][1]
    assert rows(3) == rows(3) != rows(3, seed=4)


def small(folder: Path, data: Path, **changes: Any) -> Any:
    return arc_config(folder, **{"dataset": str(data), "train_form": "marc", "ttt_rows": 6, "views": 8, "train_loss": "answer", **changes})


def test_a_run_trains_on_the_set_and_knows_no_solution(tmp_path: Path) -> None:
    two_tests(tmp_path / "data")
    arc_attempt(small(tmp_path / "run", tmp_path / "data"))
    assert [len(result["steps"]) for result in results_of(tmp_path / "run")] == [6, 6]
    (tmp_path / "data" / "own_solutions.json").unlink()
    arc_attempt(small(tmp_path / "blind", tmp_path / "data"))
    assert handed_in(tmp_path / "run") == handed_in(tmp_path / "blind")


def test_one_adapter_for_all_tasks_takes_the_rows_that_there_are(tmp_path: Path) -> None:
    two_tests(tmp_path / "data")
    engine = ArcStandIn()
    arc_attempt(small(tmp_path / "run", tmp_path / "data", scope="dataset", ttt_batch=4, limit=2), engine)
    assert [len(result["steps"]) for result in results_of(tmp_path / "run")] != [0, 0]


def test_a_fine_tuning_draws_a_puzzle_of_the_set_for_each_row(tmp_path: Path) -> None:
    chosen = ChosenRows(finetuning(tmp_path / "run", train_form="marc", train_loss="answer"))
    chosen.build(TOKENIZER, 4096)
    training = chosen.training
    assert training is not None
    drawn = [[training.row(number, epoch) for number in range(12)] for epoch in (0, 1)]
    texts = [text_of(row.token_T) for every in drawn for row in every if row is not None]
    assert len(texts) == 24 and len(set(texts)) > 18
    assert [training.row(number, 0) for number in range(12)] == drawn[0]


def test_prompts_are_marcs(tmp_path: Path) -> None:
    two_tests(tmp_path / "data")
    arc_attempt(small(tmp_path / "run", tmp_path / "data", view_form="marc", search="greedy", score_views=0, selection="marc", ttt_rows=1))
    lines = [json.loads(line) for line in (tmp_path / "run" / "rollouts" / "one.jsonl").read_text().splitlines()]
    keys = [View.read(line["view"]) for line in lines if line["poll"] == "base"]
    assert {view.order(2) for view in keys} == {(0,), (1,)}, "each prompt lacks one of the two demonstrations"
    assert Counter(view.vote_group for view in keys) == {"Identity": 2} | dict.fromkeys(
        ("Transpose", "Flip0", "Flip1", "Rot270", "Rot180"), 1
    )


def test_colours_are_no_choice_of_marcs_rows(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--train_colours any does nothing"):
        small(tmp_path / "run", tmp_path, train_colours="any")
    with pytest.raises(UsageError, match="--views 2 does nothing"):
        small(tmp_path / "run", tmp_path, view_form="marc", views=2)


def test_the_schedule_of_one_adapter_is_over_the_rows_that_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deltas, fork = list[DeltaSpec](), ArcStandIn.fork
    monkeypatch.setattr(ArcStandIn, "fork", lambda self, name, delta: deltas.append(delta) or fork(self, name, delta))
    config = arc_config(tmp_path / "run", scope="dataset", train_form="marc", ttt_rows=5000, ttt_batch=50, ids=("5582e5ca", "6150a2bd"))
    arc_attempt(config)
    steps = {line["step"] for line in read_lines(tmp_path / "run") if line["kind"] == "step"}
    planned = [delta.total_steps for delta in deltas if delta.kind == "lora"]
    assert planned == [len(steps)] and 0 < len(steps) < 2 * 5000 / 50, "marc's set has fewer rows"
