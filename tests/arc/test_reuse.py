"""``--reuse``: a second run of the same policy takes what the first has searched and scored."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from arc_stand_in import ArcStandIn, arc_attempt, arc_config
from test_arc_runs import results_of, two_tests

from sttrl.arc.records import record_from_json
from sttrl.arc.reuse import check_same
from sttrl.errors import UsageError
from sttrl.ledger.journal import read_finished


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set, and a run of it with an adapter for each task."""
    folder = tmp_path_factory.mktemp("reuse")
    arc_attempt(run_config(folder, "first", adaptation_method="ttt"))
    return folder


def run_config(home: Path, name: str, **changes: Any) -> Any:
    if changes["adaptation_method"] != "ttt":
        changes = {"ttt_rows": 80, **changes}  # the default
    return arc_config(home / name, **{"dataset": str(two_tests(home / "data")), "views": 4, "score_views": 3, "min_prob": 0.05, **changes})


def polls(folder: Path, stage: str) -> dict[str, Any]:
    return {found.record.id: found.record.polls[stage] for found in read_finished(folder, record_from_json)}


def done(home: Path, name: str, **changes: Any) -> tuple[Path, ArcStandIn]:
    engine = ArcStandIn()
    arc_attempt(run_config(home, name, **changes), engine)
    return home / name, engine


def test_another_selection_needs_no_engine_for_the_base(home: Path) -> None:
    plain, _ = done(home, "plain", adaptation_method="none", selection="kgmon")
    again, engine = done(home, "again", adaptation_method="none", selection="kgmon", reuse=home / "first")
    assert not engine.requests
    before, after = polls(plain, "base"), polls(again, "base")
    assert {name: poll.tests for name, poll in after.items()} == {name: poll.tests for name, poll in before.items()}
    assert all(poll.requests == poll.tokens == 0 for poll in after.values()) and all(poll.tokens for poll in before.values())
    assert (again / "submission.json").read_bytes() == (plain / "submission.json").read_bytes()


def test_more_views_cost_only_what_is_new(home: Path) -> None:
    plain, whole = done(home, "more", adaptation_method="none", views=6, score_views=5)
    again, engine = done(home, "more_again", adaptation_method="none", views=6, score_views=5, reuse=home / "first")
    before, after = polls(plain, "base"), polls(again, "base")
    assert {name: poll.tests for name, poll in after.items()} == {name: poll.tests for name, poll in before.items()}
    assert 0 < len(engine.requests) < len(whole.requests) / 2
    assert all(0 < after[name].scored_tokens < poll.scored_tokens for name, poll in before.items())


def test_another_threshold_searches_again_and_keeps_the_scores(home: Path) -> None:
    plain, whole = done(home, "lower", adaptation_method="none", min_prob=0.2)
    again, engine = done(home, "lower_again", adaptation_method="none", min_prob=0.2, reuse=home / "first")
    assert engine.requests == whole.requests
    before, after = polls(plain, "base"), polls(again, "base")
    assert all(poll.scored_tokens == 0 < before[name].scored_tokens for name, poll in after.items())
    assert {name: poll.tests for name, poll in after.items()} == {name: poll.tests for name, poll in before.items()}


def test_a_task_that_the_other_run_has_not_finished_is_done_here(home: Path, tmp_path: Path) -> None:
    part, _ = done(home, "part", adaptation_method="ttt", ids=("two",))
    again, engine = done(home, "rest", adaptation_method="none", reuse=part)
    assert engine.requests and sorted(result["id"] for result in results_of(again)) == ["one", "two"]
    assert polls(again, "base")["two"].requests == 0 < polls(again, "base")["one"].requests


def test_guesses_reach_the_views_that_are_not_known(home: Path) -> None:
    plain, _ = done(home, "guessed", adaptation_method="none", views=6, search_guess="lowest_nll")
    again, engine = done(home, "guessed_again", adaptation_method="none", views=6, search_guess="lowest_nll", reuse=home / "first")
    assert engine.requests and any(request.given_T for request in engine.requests)
    assert {n: [t.candidates for t in p.tests] for n, p in polls(again, "base").items()} == {
        n: [t.candidates for t in p.tests] for n, p in polls(plain, "base").items()
    }


@pytest.mark.parametrize(
    ("changes", "what"),
    [({"model": "other"}, "its --model is"), ({"codec": "chat"}, "its --codec is auto"), ({"dtype": "bfloat16"}, "its --dtype is auto")],
)
def test_another_policy_is_refused(changes: dict[str, str], what: str, home: Path) -> None:
    with pytest.raises(UsageError, match=what):
        arc_attempt(run_config(home, "refused", adaptation_method="none", reuse=home / "first", **changes), ArcStandIn())


def test_other_tasks_and_a_newer_model_are_refused(home: Path, tmp_path: Path) -> None:
    before = json.loads((home / "first" / "config.json").read_text())
    with pytest.raises(UsageError, match="a run of other tasks"):
        check_same(home / "first", before, before, "another", None)
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.safetensors").write_bytes(b"")
    os.utime(model / "model.safetensors", (0, 0))
    check_same(home / "first", before, before, before["dataset_revision"], model)
    os.utime(model / "model.safetensors")
    with pytest.raises(UsageError, match="newer than that run"):
        check_same(home / "first", before, before, before["dataset_revision"], model)


def test_another_revision_of_the_model_is_refused(home: Path, tmp_path: Path) -> None:
    before = json.loads((home / "first" / "config.json").read_text()) | {"model_revision": "a" * 40}
    check_same(home / "first", before, before, before["dataset_revision"], tmp_path / ("a" * 40))
    with pytest.raises(UsageError, match="it has revision a+ of the model, not b+"):
        check_same(home / "first", before, before, before["dataset_revision"], tmp_path / ("b" * 40))


def test_adapted_policies_are_reused_with_their_adapters_only(home: Path) -> None:
    stored = {"adaptation_method": "stored", "adapters": home / "first"}
    again, engine = done(home, "stored_again", **stored, selection="kgmon", reuse=home / "first")
    assert not engine.requests, "all views of both policies are known"
    assert {name: poll.requests for name, poll in polls(again, "adapted").items()} == {"one": 0, "two": 0}
    other = shutil.copytree(home / "first", home / "copied")
    _, engine = done(home, "stored_elsewhere", adaptation_method="stored", adapters=other, reuse=home / "first")
    assert engine.requests, "other adapters: only the base is known"
