"""One training on all questions (ttrl): an error in it, in an evaluation or in a save loses as little as it must, also after a kill."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from stand_in import Faults, Planned, StandIn, StandInPolicy, attempt, config_for, results, rollouts

from sttrl.errors import DivergedError, EngineError, JournalError, OutOfMemoryError, StepError
from sttrl.ledger.journal import Journal, read_finished, read_journal, read_lines
from sttrl.questions.answers import Judge
from sttrl.questions.records import poll_from_json
from sttrl.types import Objective, TrainGroup, UpdateStats

SMALL = {"adaptation_method": "ttrl", "steps": None, "epochs": 3, "train_batch_size": 2, "eval_every": 2, "checkpoint_every": 1}
EVALUATIONS = 4
"""Samples that the base polls of four questions take; the votes of a step take two."""


class Killed(BaseException):
    """The end of a process, in the middle of what it did."""


@pytest.fixture
def diverging(monkeypatch: pytest.MonkeyPatch) -> None:
    update = StandInPolicy.update

    async def diverge(policy: StandInPolicy, groups: Sequence[TrainGroup], objective: Objective) -> UpdateStats:
        if policy.version == 2:
            raise DivergedError("The loss is nan; the update was not applied.", "Lower --lr.")
        return await update(policy, groups, objective)

    monkeypatch.setattr(StandInPolicy, "update", diverge)


def kill_at_line(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The process ends before this line of the journal is written, counted from 1."""
    append, count = Journal.append, 0

    def killed(journal: Journal, kind: str, **record: Any) -> None:
        nonlocal count
        count += 1
        if count == number:
            raise Killed
        append(journal, kind, **record)

    monkeypatch.setattr(Journal, "append", killed)


def small(folder: Path, **changes: Any) -> Any:
    return config_for(folder, **{**SMALL, "val_samples": 3, "n_votes": 6, "n_train": 6, "ties": "first", **changes})


@pytest.mark.usefixtures("diverging")
@pytest.mark.parametrize("checkpoint_every", [1, 10])
def test_a_training_that_diverged_stays_so_wherever_it_is_killed(checkpoint_every: int, tmp_path: Path, judge: Judge) -> None:
    attempt(small(tmp_path / "whole", checkpoint_every=checkpoint_every), StandIn(), judge)
    whole = [json.loads(line) for line in results(tmp_path / "whole").splitlines()]
    assert [(r["status"], r["answer_source"], list(r["polls"])) for r in whole] == [("diverged", "base", ["base"])] * 4
    assert not (tmp_path / "whole" / "adapters").exists(), "half a training is no result"
    lines = len(list(read_lines(tmp_path / "whole")))
    ended = next(n for n, record in enumerate(read_lines(tmp_path / "whole"), 1) if record["kind"] == "ended")
    for number in [*range(2, ended, 3), *range(ended, lines + 1)]:
        config = small(tmp_path / f"killed_{number}", checkpoint_every=checkpoint_every)
        with pytest.MonkeyPatch.context() as monkeypatch:
            kill_at_line(monkeypatch, number)
            with pytest.raises(Killed):
                attempt(config, StandIn(), judge)
        attempt(config, StandIn(), judge)
        assert results(tmp_path / f"killed_{number}") == results(tmp_path / "whole"), number


def run_with(tmp_path: Path, judge: Judge, place: tuple[str, int], error: Planned, said: list[str] | None = None) -> list[Any]:
    """The finished questions of a run that meets an error, in the order of the data set."""
    attempt(small(tmp_path / "run"), StandIn(Faults({place: error})), judge, said=said)
    return list(read_finished(tmp_path / "run", poll_from_json))


ERRORS = [StepError("The sampler failed: a shape."), OutOfMemoryError("The sampler ran out of memory."), RuntimeError("a bug")]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_in_a_poll_of_the_base_loses_one_question(error: Exception, tmp_path: Path, judge: Judge) -> None:
    found = run_with(tmp_path, judge, ("sample", 2), error)
    bad = [q.record for q in found if q.record.status != "done"]
    assert len(found) == 4 and len(bad) == 1
    assert bad[0].status == ("oom" if isinstance(error, OutOfMemoryError) else "failed") and str(error).rstrip(".") in bad[0].error
    assert (bad[0].answer, bad[0].polls, bad[0].steps) == (None, {}, 0), "what cannot be polled is not trained on"
    assert all(set(q.record.polls) == {"base", "adapted", "vote_same_tokens"} for q in found if q.record.status == "done")
    attempt(small(tmp_path / "run"), StandIn(), judge)
    assert [q.record.status for q in read_finished(tmp_path / "run", poll_from_json)].count("done") == 3, (
        "a finished question is not done again"
    )


@pytest.mark.parametrize("number", range(4))
def test_killed_after_a_question_was_lost_the_training_is_the_same(number: int, tmp_path: Path, judge: Judge) -> None:
    error = StepError("The sampler failed: a shape.")
    attempt(small(tmp_path / "whole"), StandIn(Faults({("sample", 2): error})), judge)
    lines = len(list(read_lines(tmp_path / "whole")))
    with pytest.MonkeyPatch.context() as monkeypatch:
        kill_at_line(monkeypatch, lines * (number + 2) // 6)
        with pytest.raises(Killed):
            attempt(small(tmp_path / "run"), StandIn(Faults({("sample", 2): error})), judge)
    attempt(small(tmp_path / "run"), StandIn(), judge)
    assert results(tmp_path / "run") == results(tmp_path / "whole")


def test_an_error_in_an_evaluation_in_between_is_said_and_loses_no_question(tmp_path: Path, judge: Judge) -> None:
    said: list[str] = []
    place = EVALUATIONS + 2 * 2 + 1  # after the base polls and two steps
    found = run_with(tmp_path, judge, ("sample", place), ERRORS[0], said)
    assert [q.record.status for q in found] == ["done"] * 4
    assert sum("was not evaluated after step 2: The sampler failed: a shape." in line for line in said) == 1
    assert sorted(len([e for e in q.evaluations if e.step == 2]) for q in found) == [0, 1, 1, 1]


@pytest.mark.parametrize("further", [0, 1], ids=["adapted", "vote_same_tokens"])
def test_an_error_in_a_last_poll_loses_one_question(further: int, tmp_path: Path, judge: Judge) -> None:
    place = EVALUATIONS + 6 * 2 + 2 * EVALUATIONS + 1 + further
    found = run_with(tmp_path, judge, ("sample", place), ERRORS[0])
    assert sorted(q.record.status for q in found) == ["done"] * 3 + ["failed"]
    (bad,) = (q.record for q in found if q.record.status == "failed")
    assert bad.answer_source == "base" and bad.answer is not None and ("adapted" in bad.polls) == bool(further)


def test_a_lost_engine_is_no_end_of_the_training(tmp_path: Path, judge: Judge) -> None:
    attempt(small(tmp_path / "whole"), StandIn(), judge)
    for place in [("update", 3), ("sample", 2), ("sample", 30)]:
        config = small(tmp_path / f"run_{place[0]}_{place[1]}")
        with pytest.raises(EngineError):
            attempt(config, StandIn(Faults({place: EngineError("The sampler died.")})), judge)
        attempt(config, StandIn(), judge)
        assert results(config.run.output_dir / str(config.run.run_name)) == results(tmp_path / "whole")


def test_an_adapter_of_all_that_was_half_written_is_completed(tmp_path: Path, judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    save, saved = StandInPolicy.save, []

    async def torn(policy: StandInPolicy, folder: Path) -> None:
        saved.append(folder.name)
        if saved.count("all") == 1 and folder.name == "all":
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "adapter_config.json").write_text("{}")
            raise Killed
        await save(policy, folder)

    monkeypatch.setattr(StandInPolicy, "save", torn)
    config = small(tmp_path / "run", parallel_problems=4)
    with pytest.raises(Killed):
        attempt(config, StandIn(), judge)
    attempt(config, StandIn(), judge)
    assert [path.name for path in (tmp_path / "run" / "adapters").iterdir()] == ["all"]
    assert [path.name for path in (tmp_path / "run" / "adapters" / "all").iterdir()] == ["delta.json"]
    assert saved.count("all") == 2, "once an attempt, however many questions are in flight"


def test_an_adapter_of_all_that_cannot_be_saved_is_said_and_the_answers_stand(
    tmp_path: Path, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, said = StandInPolicy.save, list[str]()

    async def refuse(policy: StandInPolicy, folder: Path) -> None:
        if folder.name == "all":
            raise StepError("The learner failed: a shape.")
        await save(policy, folder)

    monkeypatch.setattr(StandInPolicy, "save", refuse)
    attempt(small(tmp_path / "run"), StandIn(), judge, said=said)
    assert [q.record.status for q in read_finished(tmp_path / "run", poll_from_json)] == ["done"] * 4
    assert any(line.endswith("adapters/all was not saved: The learner failed: a shape.") for line in said)


def test_every_attempt_has_a_number_of_its_own(tmp_path: Path, judge: Judge) -> None:
    for number in range(3):
        lost = StandIn(Faults({("sample", (12, 3, 5)[number]): EngineError("The sampler died.")}))
        with pytest.raises(EngineError):
            attempt(small(tmp_path / "run"), lost, judge)
    attempt(small(tmp_path / "run"), StandIn(), judge)
    assert {q.record.attempt for q in read_finished(tmp_path / "run", poll_from_json)} == {4}
    assert [r["attempt"] for r in read_lines(tmp_path / "run") if r["kind"] == "resumed"] == [2, 3, 4]


def test_steps_of_an_earlier_try_are_void_when_the_training_ends_before_them(tmp_path: Path) -> None:
    """A state at step 0, steps 0 to 2 made, killed; made again, and the second try ends after step 1."""
    with Journal(tmp_path) as journal:
        for record in (a_step(0), a_step(1), a_step(2)):
            journal.append("step", id="q", **record)
        journal.append("step", id="q", **a_step(0))
        journal.append("ended", step=1, status="diverged", error="The loss is nan.")
    content = read_journal(tmp_path, poll_from_json)
    assert content.ended is not None and content.ended.step == 1
    assert [step.step for step in content.steps["q"]] == [0]


def a_step(number: int) -> dict[str, Any]:
    return {
        "step": number, "version": number, "ballots": None, "election": None, "majority": None, "reward_G": [], "gate": None,
        "tokens_sampled": 0, "tokens_trained": 0, "update": None, "seconds": {},
    }  # fmt: skip


@pytest.mark.parametrize("mode", [SMALL, {"continuous": True}], ids=["ttrl", "continuous"])
@pytest.mark.parametrize("damage", ["gone", "torn"])
def test_a_state_that_cannot_be_read_is_one_line(damage: str, mode: dict[str, Any], tmp_path: Path, judge: Judge) -> None:
    config = config_for(tmp_path / "run", **{**mode, "ties": "first"})
    with pytest.raises(EngineError):
        attempt(config, StandIn(Faults({("update", 4): EngineError("The learner died.")})), judge)
    for file in (tmp_path / "run" / "state").rglob("*.json"):
        file.unlink() if damage == "gone" else file.write_text("[0.1, ")
    with pytest.raises(JournalError, match=r"Cannot read .*run/state/.*Restore it, or start over") as caught:
        attempt(config, StandIn(), judge)
    assert "\n" not in str(caught.value)


def test_rollouts_of_a_base_poll_that_are_gone_end_nothing(tmp_path: Path, judge: Judge) -> None:
    with pytest.raises(EngineError):
        attempt(small(tmp_path / "run"), StandIn(Faults({("update", 3): EngineError("The learner died.")})), judge)
    for file in (tmp_path / "run" / "rollouts").iterdir():
        file.unlink()
    attempt(small(tmp_path / "run"), StandIn(), judge)
    assert [q.record.status for q in read_finished(tmp_path / "run", poll_from_json)] == ["done"] * 4
    assert len(rollouts(tmp_path / "run")) == 4
