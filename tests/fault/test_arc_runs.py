"""Whole runs of ARC tasks on the stand-in engine: what they leave, killed at any moment, without labels, out of time, by every method."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from arc_stand_in import END_TOKEN, ArcPolicy, ArcStandIn, arc_attempt, arc_config, handed_in
from pages import held
from stand_in import Faults
from test_kill import KILLED, Instants, check_nothing_twice

from sttrl.arc.datasets import DEMO_FOLDER
from sttrl.arc.submission import read_submission
from sttrl.config import RunConfig
from sttrl.errors import StepError
from sttrl.ledger.journal import read_lines

ALL = ("5582e5ca", "6150a2bd", "66e6c45b", "d037b0a7", "d631b094", "e9afcf9a")
MISSING = [[0]]
HALF_TURN = "6150a2bd"
"""The task of the demo that the model of the stand-in can solve: half a turn."""

TURNED = [[6, 5], [4, 3]]
DOUBLED = [[[2, 2, 8, 8], [2, 2, 8, 8]], [[9, 9], [9, 9]]]


def data_set(folder: Path, solutions: bool = True) -> Path:
    """The demo as a data set of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in DEMO_FOLDER.glob("arc-demo_*.json"):
        if solutions or not file.stem.endswith("solutions"):
            shutil.copy(file, folder)
    return folder


def two_tests(folder: Path) -> Path:
    """Two tasks: one with two test inputs, doubled, and one with half a turn."""
    folder.mkdir(parents=True, exist_ok=True)
    doubled = [
        {"input": [[1, 2]], "output": [[1, 1, 2, 2], [1, 1, 2, 2]]},
        {"input": [[7], [0]], "output": [[7, 7], [7, 7], [0, 0], [0, 0]]},
    ]
    turned = [{"input": [[1, 2], [3, 4]], "output": [[4, 3], [2, 1]]}, {"input": [[5, 6], [0, 0]], "output": [[0, 0], [6, 5]]}]
    tasks = {
        "one": {"train": turned, "test": [{"input": [[3, 4], [5, 6]]}]},
        "two": {"train": doubled, "test": [{"input": [[2, 8]]}, {"input": [[9]]}]},
    }
    (folder / "own_challenges.json").write_text(json.dumps(tasks))
    (folder / "own_solutions.json").write_text(json.dumps({"one": [TURNED], "two": DOUBLED}))
    return folder


def results_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def outcome(folder: Path) -> dict[str, bytes]:
    """What must be the same byte for byte."""
    files = [folder / "submission.json", folder / "results.jsonl", *sorted((folder / "rollouts").glob("[!.]*"))]
    return {file.name: file.read_bytes() for file in files}


def test_a_whole_run_leaves_everything(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    report = arc_attempt(arc_config(folder, ids=(HALF_TURN, "66e6c45b")))
    kinds = [record["kind"] for record in read_lines(folder)]
    assert kinds == [*(["begin"] + ["step"] * 3 + ["question"]) * 2]
    submission = handed_in(folder)
    assert tuple(submission) == ALL, "every task of the file"
    for name, outputs in submission.items():
        assert (outputs == [{"attempt_1": MISSING, "attempt_2": MISSING}]) == (name not in (HALF_TURN, "66e6c45b"))
    assert submission[HALF_TURN][0]["attempt_1"] == [[0, 0, 4], [0, 8, 6], [5, 3, 6]]
    first, second = results_of(folder)
    assert [first["id"], second["id"]] == [HALF_TURN, "66e6c45b"] and set(first["polls"]) == {"base", "adapted"}
    assert first["polls"]["base"]["attempts"] != first["polls"]["adapted"]["attempts"]
    assert [step["trained"] for step in first["steps"]] == [True] * 3
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["base"]["attempt_1"], summary["adapted"]["attempt_1"]) == (0.0, 0.5)
    assert summary["vote_same_tokens"] is None
    assert "kaggle" in report.table and "no labels" not in report.table
    details = held((folder / "report.html").read_text()).details[0]
    assert len(details) == 2 and True in attempts_right(details) and all(detail["parts"]["demos"] for detail in details)
    assert (folder / "adapters" / HALF_TURN / "delta.json").exists()


@pytest.mark.parametrize("chosen", [{"limit": 1}, {"ids": (ALL[0],)}], ids=["limit", "ids"])
def test_the_submission_is_whole_from_the_first_moment(chosen: dict[str, Any], tmp_path: Path) -> None:
    folder, seen = tmp_path / "run", []

    def look() -> None:
        seen.append(read_submission(folder / "submission.json"))

    arc_attempt(arc_config(folder, **chosen), ArcStandIn(Faults({("fork", 1): look, ("sample", 2): look, ("update", 2): look})))
    assert len(seen) == 3
    for submission in seen:
        assert tuple(submission) == ALL
        assert all(attempts == (((0,),), ((0,),)) for inputs in submission.values() for attempts in inputs)
    assert [name for name, (entry,) in handed_in(folder).items() if entry["attempt_1"] != MISSING] == [ALL[0]]


MODES: dict[str, dict[str, Any]] = {
    "problem": {},
    "in_flight": {"parallel_problems": 2},
    "dataset": {"scope": "dataset", "checkpoint_every": 2},
    "ttrl": {
        "adaptation_method": "ttrl", "ttt_rows": 80, "epochs": 2, "train_batch_size": 2, "eval_every": 1, "checkpoint_every": 1,
        "n_votes": 4, "n_train": 4, "reward": "demonstrations",
    },
}  # fmt: skip


def small(folder: Path, data: Path, mode: str) -> RunConfig:
    return arc_config(folder, **{"dataset": str(data), "ttt_rows": 2, "views": 1, "score_views": 1, **MODES[mode]})


def killed(config: RunConfig, instant: int) -> bool:
    """Run in a child that is killed at the instant; True where it came that far."""
    child = os.fork()
    if child == 0:
        try:
            arc_attempt(config, watched(Instants(last=instant), pytest.MonkeyPatch()))
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, KILLED)
    return status == KILLED


def watched(instants: Instants, monkeypatch: pytest.MonkeyPatch) -> ArcStandIn:
    """An engine whose calls are instants, as those of the file system are."""
    instants.install(monkeypatch)
    faults = Faults()
    at = faults.at

    def at_and_tick(kind: str) -> None:
        at(kind)
        instants.tick()

    faults.at = at_and_tick  # type: ignore[method-assign]
    return ArcStandIn(faults)


@pytest.mark.parametrize("mode", MODES)
def test_killed_at_any_instant_it_hands_in_the_same(mode: str, tmp_path: Path) -> None:
    data, instants = two_tests(tmp_path / "data"), Instants()
    arc_attempt(small(tmp_path / "whole", data, mode))
    with pytest.MonkeyPatch.context() as monkeypatch:
        arc_attempt(small(tmp_path / "count", data, mode), watched(instants, monkeypatch))
    for instant in range(1, instants.count + 1, max(3, instants.count // 12)):
        config = small(tmp_path / f"killed_{instant}", data, mode)
        assert killed(config, instant)
        arc_attempt(config)
        check_nothing_twice(tmp_path / f"killed_{instant}")
        assert outcome(tmp_path / f"killed_{instant}") == outcome(tmp_path / "whole"), instant
        shutil.rmtree(tmp_path / f"killed_{instant}")


def test_a_submission_that_is_gone_comes_back_with_the_report(tmp_path: Path) -> None:
    config = arc_config(tmp_path / "run", limit=2)
    arc_attempt(config)
    before = handed_in(tmp_path / "run")
    (tmp_path / "run" / "submission.json").unlink()
    arc_attempt(config)
    assert handed_in(tmp_path / "run") == before


@pytest.fixture
def by_labels(tmp_path: Path) -> Iterator[dict[str, Path]]:
    """The demo with its solutions, with others' solutions, and without any."""
    folders = {name: data_set(tmp_path / name / "data", solutions=name != "none") for name in ("true", "shuffled", "none")}
    path = folders["shuffled"] / "arc-demo_solutions.json"
    solutions = json.loads(path.read_text())
    path.write_text(json.dumps(dict(zip(solutions, [*list(solutions.values())[1:], next(iter(solutions.values()))], strict=True))))
    yield folders


def attempts_right(details: list[dict[str, Any]]) -> set[bool | None]:
    """What the page says of the first attempts at the test inputs."""
    sides = [side for detail in details for test in detail["parts"]["tests"] for side in test["sides"]]
    return {side["attempts"][0]["right"] for side in sides if side["attempts"]}


@pytest.mark.parametrize("mode", [{}, {"scope": "dataset"}], ids=["problem", "dataset"])
def test_labels_change_nothing(by_labels: dict[str, Path], mode: dict[str, Any]) -> None:
    tables = {}
    for name, data in by_labels.items():
        tables[name] = arc_attempt(arc_config(data.parent / "run", dataset=str(data), **mode)).table
    same = [outcome(data.parent / "run") for data in by_labels.values()]
    assert same[0] == same[1] == same[2]
    assert "no labels: there is no " in tables["none"] and "no labels" not in tables["true"]
    pages = {name: held((data.parent / "run" / "report.html").read_text()) for name, data in by_labels.items()}
    right = {name: attempts_right(page.details[0]) for name, page in pages.items()}
    assert True in right["true"] and right["shuffled"] == {False} and right["none"] == {None}
    assert any("nothing says which attempts are right" in remark for remark in pages["none"].runs[0]["remarks"])


def test_every_test_input_has_attempts_of_its_own(tmp_path: Path) -> None:
    arc_attempt(arc_config(tmp_path / "run", dataset=str(two_tests(tmp_path / "data"))))
    submission = handed_in(tmp_path / "run")
    assert [entry["attempt_1"] for entry in submission["two"]] == DOUBLED
    assert [entry["attempt_1"] for entry in submission["one"]] == [TURNED]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["adapted"]["kaggle"] == 1.0


METHODS: dict[str, dict[str, Any]] = {
    "demonstrations": {"adaptation_method": "sttrl", "steps": 4, "reward": "demonstrations"},
    "vote": {"adaptation_method": "sttrl", "steps": 2, "ties": "first"},
    "energy": {"adaptation_method": "sttrl", "steps": 2, "voting_function": "energy"},
    "few flips": {"adaptation_method": "sttrl", "steps": 4, "ties": "first", "max_flip_rate": 0.1},
    "ttrl": {"adaptation_method": "ttrl", "epochs": 2, "ties": "first"},
    "ttft": {"adaptation_method": "ttft", "steps": 2, "ties": "first"},
    "memo": {"adaptation_method": "memo", "steps": 2},
    "continuous": {"adaptation_method": "ttt", "ttt_rows": 3, "continuous": True},
    "dataset": {"adaptation_method": "ttt", "ttt_rows": 3, "scope": "dataset", "ttt_batch": 2, "ttt_epochs": 2},
    "none": {"adaptation_method": "none"},
}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_answers(name: str, tmp_path: Path) -> None:
    engine = ArcStandIn()
    settings = {"ttt_rows": 80, "n_votes": 6, "n_train": 6, **METHODS[name]}
    arc_attempt(arc_config(tmp_path / "run", dataset=str(two_tests(tmp_path / "data")), **settings), engine)
    results = results_of(tmp_path / "run")
    assert [result["status"] for result in results] == ["done", "done"], [record.get("error") for record in read_lines(tmp_path / "run")]
    assert all(result["answer"] for result in results)
    assert bool(engine.faults.calls["update"]) == (name != "none")
    assert (name == "none") == all(set(result["polls"]) == {"base"} for result in results)
    assert max(request.sampling.max_tokens for request in engine.requests) <= 932, "no more than the largest grid"


def test_rewards_of_held_out_demonstrations_teach_the_rule(tmp_path: Path) -> None:
    settings = {"adaptation_method": "sttrl", "steps": 6, "reward": "demonstrations", "ttt_rows": 80, "n_votes": 16, "n_train": 16}
    arc_attempt(arc_config(tmp_path / "run", dataset=str(two_tests(tmp_path / "data")), **settings))
    one, two = results_of(tmp_path / "run")
    assert one["polls"]["adapted"]["attempts"][0][0] == "65/43" and one["polls"]["base"]["attempts"][0][0] != "65/43"
    assert [attempts[0] for attempts in two["polls"]["adapted"]["attempts"]] == ["2288/2288", "99/99"]


def test_one_adapter_of_all_tasks_is_saved_once(tmp_path: Path) -> None:
    arc_attempt(arc_config(tmp_path / "run", scope="dataset", ttt_batch=4, limit=3))
    assert [path.name for path in (tmp_path / "run" / "adapters").iterdir()] == ["all"]
    kinds = [record["kind"] for record in read_lines(tmp_path / "run")]
    assert kinds.count("trained") == 1 and kinds.count("evaluation") == 3, "the base alone is evaluated before the training"


def test_a_task_that_fails_keeps_its_answer_of_the_base(tmp_path: Path) -> None:
    engine = ArcStandIn(Faults({("update", 1): StepError("The learner failed: a shape.")}))
    arc_attempt(arc_config(tmp_path / "run", limit=2), engine)
    failed, done = results_of(tmp_path / "run")
    assert (failed["status"], failed["answer_source"], done["status"]) == ("failed", "base", "done")
    assert handed_in(tmp_path / "run")[failed["id"]][0]["attempt_1"] != MISSING


class Clock:
    """Seconds that pass with the calls of the engine: ``cost[kind]`` each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **cost: float) -> None:
        self.time, self.cost = 0.0, cost
        at = Faults.at

        def passing(faults: Faults, kind: str) -> None:
            self.time += self.cost.get(kind, 0.0)
            at(faults, kind)

        monkeypatch.setattr(Faults, "at", passing)

    def __call__(self) -> float:
        return self.time


def answered(folder: Path) -> list[str]:
    return [name for name, inputs in handed_in(folder).items() if any(entry["attempt_1"] != MISSING for entry in inputs)]


def test_tasks_that_no_time_is_left_for_are_left_to_a_later_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, said = tmp_path / "run", list[str]()
    clock = Clock(monkeypatch, update=10.0)
    arc_attempt(arc_config(folder, time_limit=35.0), said=said, now=clock)
    left = 6 - len(results_of(folder))
    assert 0 < left < 6
    assert said[-1] == f"time is up: {left} problems are left; the same command with more time does them"
    assert tuple(handed_in(folder)) == ALL and len(answered(folder)) == 6 - left
    before = (folder / "results.jsonl").read_text()
    arc_attempt(arc_config(folder, time_limit=1e6), said=said, now=clock)
    assert (folder / "results.jsonl").read_text().startswith(before)
    assert len(answered(folder)) == 6 and "time is up" not in said[-1]


def test_what_the_adapted_policy_had_no_time_to_find_is_answered_by_the_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, update=10.0)
    arc_attempt(arc_config(tmp_path / "run", ids=(HALF_TURN,), task_time_limit=5.0), now=clock)
    (result,) = results_of(tmp_path / "run")
    assert result["polls"]["adapted"]["attempts"] == [[]] and result["polls"]["base"]["attempts"] != [[]]
    assert answered(tmp_path / "run") == [HALF_TURN]


def test_adapting_stops_in_time_for_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, update=10.0)
    arc_attempt(arc_config(tmp_path / "run", ids=(HALF_TURN,), ttt_rows=50, task_time_limit=100.0), now=clock)
    (result,) = results_of(tmp_path / "run")
    assert result["stop"] == "time" and len(result["steps"]) == 7, "70 % of the seconds"
    assert answered(tmp_path / "run") == [HALF_TURN]


@pytest.mark.parametrize("method", ["sttrl", "memo", "ttft"])
def test_every_method_stops_in_time(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, update=80.0)
    settings = {"adaptation_method": method, "ttt_rows": 80, "steps": 9, "n_votes": 6, "n_train": 6}
    settings |= {"reward": "demonstrations"} if method == "sttrl" else {} if method == "memo" else {"ties": "first"}
    arc_attempt(arc_config(tmp_path / "run", ids=(HALF_TURN,), task_time_limit=100.0, **settings), now=clock)
    (result,) = results_of(tmp_path / "run")
    assert result["stop"] == "time" and len(result["steps"]) == 1


def test_a_search_that_is_out_of_time_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, sample=30.0)
    arc_attempt(arc_config(tmp_path / "run", ids=(HALF_TURN,), adaptation_method="none", ttt_rows=80, task_time_limit=100.0), now=clock)
    (question,) = (record for record in read_lines(tmp_path / "run") if record["kind"] == "question")
    assert question["polls"]["base"]["tests"][0]["cut"]["time"] > 0


def test_every_search_has_a_limit_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, sample=30.0)
    whole = arc_config(tmp_path / "whole", ids=(HALF_TURN,), ttt_rows=1, min_prob=0.02)
    arc_attempt(whole, now=clock)
    arc_attempt(whole.changed(run_name="run", search_time_limit=20.0), now=clock)
    polls = {name: results_of(tmp_path / name)[0]["polls"] for name in ("whole", "run")}
    (question,) = (record for record in read_lines(tmp_path / "run") if record["kind"] == "question")
    for stage in ("base", "adapted"):
        assert question["polls"][stage]["tests"][0]["cut"]["time"] > 0, "the first batch took more than 20 s"
        assert polls["run"][stage]["candidates"][0] < polls["whole"][stage]["candidates"][0]
        assert polls["run"][stage]["attempts"] != [[]], "what was found is kept"


def test_a_training_of_all_tasks_ends_in_time_and_every_task_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, said = tmp_path / "run", list[str]()
    clock = Clock(monkeypatch, update=10.0)
    arc_attempt(arc_config(folder, scope="dataset", ttt_rows=50, time_limit=100.0), said=said, now=clock)
    assert "the training is out of time after 7 of 300 steps" in said
    assert [(result["stop"], result["answer_source"]) for result in results_of(folder)] == [("time", "adapted")] * 6
    assert answered(folder) == list(ALL)


def test_a_training_of_all_tasks_goes_on_while_none_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, folder, said = tmp_path / "whole", tmp_path / "run", list[str]()
    arc_attempt(arc_config(whole, scope="dataset", limit=2, checkpoint_every=100))
    clock = Clock(monkeypatch, update=10.0)
    config = arc_config(folder, scope="dataset", limit=2, time_limit=15.0)
    for seconds in (15.0, 5.0):
        arc_attempt(config.changed(time_limit=seconds), said=said, now=clock)
        assert results_of(folder) == [] and "2 problems are left" in said[-1]
        assert tuple(handed_in(folder)) == ALL and not answered(folder)
    arc_attempt(config.changed(time_limit=None), said=said, now=clock)
    assert outcome(folder) == outcome(whole)


def test_after_a_training_what_no_time_is_left_for_is_answered_by_the_same_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, said, versions = tmp_path / "run", list[str](), set[int]()
    clock, score = Clock(monkeypatch, update=10.0), ArcPolicy.score

    async def slow(policy: ArcPolicy, *args: Any, **options: Any) -> Any:
        clock.time += 20.0 if policy.version else 0.0
        versions.add(policy.version)
        return await score(policy, *args, **options)

    monkeypatch.setattr(ArcPolicy, "score", slow)
    config = arc_config(folder, scope="dataset", ttt_rows=50, time_limit=100.0)
    arc_attempt(config, said=said, now=clock)
    done = len(results_of(folder))
    assert 0 < done < 6 and f"{6 - done} problems are left" in said[-1]
    arc_attempt(config.changed(time_limit=1e6), said=said, now=clock)
    assert [result["stop"] for result in results_of(folder)] == ["time"] * 6 and versions == {0, 7}


def test_earlier_attempts_leave_more_time_for_each_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, update=10.0)
    config = arc_config(tmp_path / "run", time_limit=1e6)
    with pytest.MonkeyPatch.context() as inner:
        inner.setattr("sttrl.arc.kind.Arc.time_is_up", lambda arc: len(arc.time.done) >= 5)
        arc_attempt(config, now=clock)
    assert len(results_of(tmp_path / "run")) == 5
    arc_attempt(config.changed(time_limit=60.0), now=clock)
    assert results_of(tmp_path / "run")[-1]["stop"] == "steps", "the last task has all of the time: three updates are 30 s of 42 s"


def test_a_search_that_is_cut_says_what_was_cut(tmp_path: Path) -> None:
    report = arc_attempt(arc_config(tmp_path / "run", ids=(HALF_TURN,), search_requests=1))
    (question,) = (record for record in read_lines(tmp_path / "run") if record["kind"] == "question")
    cut = question["polls"]["base"]["tests"][0]["cut"]
    assert set(cut) == {"requests"} and cut["requests"] >= 2, "one a view"
    assert "cut by requests" in report.table
    uncut = arc_attempt(arc_config(tmp_path / "uncut", ids=(HALF_TURN,)))
    assert "cut by" not in uncut.table


def test_the_end_token_of_the_stand_in_is_the_codec_s() -> None:
    assert END_TOKEN == 14
