"""Which tasks are done again, and what is made of both runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_kind import ONE, TWO, recorded, with_candidates

from sttrl.arc.unsure import confidence, selection_of_both
from sttrl.config import RunConfig
from sttrl.errors import UsageError
from sttrl.ledger.journal import Journal
from sttrl.ledger.records import QuestionRecord
from sttrl.report.kinds import KIND_REPORTS, POOLS
from sttrl.run.kind import KINDS
from sttrl.run.retry import pooled_folder, retry_of, unsure


def task(name: str, *found: int, **changes: Any) -> QuestionRecord:
    """A finished task of four views; the first attempt at each test input was found under so many of them."""
    tests = [with_candidates(*((ONE, TWO) if count else ())) for count in found]
    tests = [
        replace(test, candidates=[replace(c, search_nll={str(n): 1.0 for n in range(count)}) for c in test.candidates])
        for test, count in zip(tests, found, strict=True)
    ]
    values: dict[str, Any] = {
        "id": name, "index": 0, "attempt": 1, "status": "done", "stop": "steps", "error": None, "answer": None, "answer_source": "adapted",
        "polls": {"adapted": recorded(*tests)}, "steps": 1, "tokens_sampled": 0, "tokens_trained": 0, "tokens_evaluated": 0,
    }  # fmt: skip
    return QuestionRecord(**{**values, **changes})


def test_the_least_sure_test_input_decides() -> None:
    assert [confidence(task("a", *found)) for found in ((4,), (4, 1), (4, 0))] == [1.0, 0.25, 0.0]
    assert confidence(task("a", 4, answer_source=None)) == 0.0


def test_a_share_of_the_tasks_is_chosen_and_at_least_one() -> None:
    tasks = [task("d", 2), task("c", 4), task("b", 1), task("a", 2)]
    assert unsure(tasks, 0.1, confidence) == ("b",)
    assert unsure(tasks, 0.5, confidence) == ("b", "a"), "of equally sure tasks the first by id, and all in the order of the data set"
    assert unsure(tasks, 1.0, confidence) == ("d", "c", "b", "a")


def test_the_retry_has_another_seed_and_a_folder_of_its_own(tmp_path: Path) -> None:
    config = RunConfig.of(dataset="arc-demo", adaptation_method="ttt", output_dir=tmp_path, run_name="mine", retry_unsure=0.5, limit=3)
    with Journal(tmp_path / "mine") as journal:
        for record in (task("a", 4), task("b", 1)):
            journal.question(record)
    again = retry_of(config, 2, 0.0)
    assert again is not None and again == config.changed(ids=("b",), limit=None, seed=1, run_name="mine-retry0.5", retry_unsure=None)
    assert pooled_folder(config) == tmp_path / "mine-pooled0.5"
    assert retry_of(config.changed(retry_unsure=None), 2, 0.0) is None
    assert retry_of(config, 3, 0.0) is None, "a task is left"


def test_the_retry_has_what_is_left_of_the_time(tmp_path: Path) -> None:
    config = RunConfig.of(
        dataset="arc-demo", output_dir=tmp_path, run_name="mine", retry_unsure=0.5, time_limit=100.0, adaptation_method="ttt"
    )
    with Journal(tmp_path / "mine") as journal:
        journal.question(task("a", 4))
    again = retry_of(config, 1, 60.0)
    assert again is not None and again.arc.time_limit == 40.0
    assert retry_of(config, 1, 100.0) is None


def test_the_selection_of_both_is_the_runs_own_and_fair() -> None:
    assert selection_of_both(RunConfig.of(dataset="arc-demo", selection="kgmon")) == "kgmon"
    assert selection_of_both(RunConfig.of(dataset="arc-demo", selection="mul_aug_prob")) == "mul_aug_prob_3"


def test_a_share_above_one_is_refused() -> None:
    with pytest.raises(UsageError, match="--retry_unsure is 1.5"):
        RunConfig.of(dataset="arc-demo", retry_unsure=1.5)


def test_every_kind_that_does_problems_again_can_choose_from_both_runs() -> None:
    assert {name for name, kind in KINDS.items() if kind.again is not None} == set(POOLS) <= set(KIND_REPORTS)
