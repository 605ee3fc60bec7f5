"""Pools of runs: they choose as a run would, count every run's finds, never look at solutions, and refuse what does not fit."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from arc_files import A, save, task
from arc_stand_in import ArcStandIn, arc_attempt, arc_config, handed_in
from stand_in import Faults

from sttrl import cli
from sttrl.arc.candidates import Find, candidates_of, with_experts
from sttrl.arc.grids import Grid
from sttrl.arc.pool import Place, Searched, Source, default_selection, joined, pool_of, possible_selections, unequally_scored
from sttrl.arc.pool_runs import searched as searched_in
from sttrl.arc.pool_runs import tests_of as found_in
from sttrl.arc.records import CandidateRecord, TestRecord, grid_text, record_from_json
from sttrl.arc.selections import SELECTIONS
from sttrl.ledger.journal import JOURNAL, read_finished

TURNED = [[6, 5], [4, 3]]
DOUBLED = [[[2, 2, 8, 8], [2, 2, 8, 8]], [[9, 9], [9, 9]]]
RICH: dict[str, Any] = {"views": 4, "min_prob": 0.05, "most_candidates": 3, "ttt_rows": 1, "score_views": 2}
ONE, TWO, THREE = ((1,),), ((2,),), ((3,),)


@pytest.fixture(autouse=True, scope="module")
def free_fsync() -> Any:
    """Waiting for the disk shows nothing here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of two tasks with three test inputs, and three runs of it: ``full``, ``other`` with another seed, and ``part``."""
    folder = tmp_path_factory.mktemp("pool")
    data_set(folder / "data")
    arc_attempt(arc_config(folder / "full", dataset=str(folder / "data"), **RICH))
    arc_attempt(arc_config(folder / "other", dataset=str(folder / "data"), **RICH, seed=7))
    arc_attempt(arc_config(folder / "part", dataset=str(folder / "data"), **RICH, seed=8, ids=("two",)))
    return folder


def data_set(folder: Path) -> Path:
    """Two tasks: half a turn, and one with two test inputs, doubled."""
    turned = [{"input": [[1, 2], [3, 4]], "output": [[4, 3], [2, 1]]}, {"input": [[5, 6], [0, 0]], "output": [[0, 0], [6, 5]]}]
    doubled = [{"input": [[1, 2]], "output": [[1, 1, 2, 2], [1, 1, 2, 2]]}, {"input": [[7]], "output": [[7, 7], [7, 7]]}]
    tasks = {
        "one": task({"input": [[3, 4], [5, 6]]}, train=turned),
        "two": task({"input": [[2, 8]]}, {"input": [[9]]}, train=doubled),
    }
    save(folder / "own_challenges.json", tasks)
    save(folder / "own_solutions.json", {"one": [TURNED], "two": DOUBLED})
    return folder


def pool(out: Path, *arguments: object) -> dict[str, Any]:
    """The submission that the command writes."""
    assert cli.main(["pool", *map(str, arguments), "--out", str(out)]) == 0
    return handed_in(out)


def refused(capsys: pytest.CaptureFixture[str], *arguments: object, code: int) -> str:
    """The one line that the command ends on."""
    capsys.readouterr()
    assert cli.main(list(map(str, arguments))) == code
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and said.err.startswith("error: ")
    return said.err


@pytest.mark.parametrize("selection", ["first", "kgmon", "marc", "probsum_likeliest_shape"])
def test_one_run_is_selected_again_as_a_run_with_that_selection_does(selection: str, home: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arc_attempt(arc_config(run, dataset=str(home / "data"), **RICH, selection=selection))
    pool(tmp_path / "out", home / "full", "--selection", selection)
    assert (tmp_path / "out" / "submission.json").read_bytes() == (run / "submission.json").read_bytes()


def test_a_run_with_marcs_prompts_is_selected_again_in_its_own_order(home: Path, tmp_path: Path) -> None:
    chosen = {**RICH, "dataset": str(home / "data"), "view_form": "marc", "views": 8}
    for name, selection in (("first", "marc"), ("other", "first")):
        arc_attempt(arc_config(tmp_path / name, **chosen, selection=selection))
    pool(tmp_path / "out", tmp_path / "first", "--selection", "first")
    assert (tmp_path / "out" / "submission.json").read_bytes() == (tmp_path / "other" / "submission.json").read_bytes()


def test_the_candidates_of_every_run_are_in_the_pool(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    submission = pool(tmp_path, home / "full", home / "other", home / "part")
    assert {name: len(outputs) for name, outputs in submission.items()} == {"one": 1, "two": 2}
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == [f"1  {home / 'full'}", f"2  {home / 'other'}", f"3  {home / 'part'}", "pool: mul_all_prob, adapted policies"]
    rows = {line.split()[0]: line.split()[1:] for line in lines[5:10]}
    assert [rows[name][0] for name in ("1", "2", "3", "pool")] == ["2", "2", "1", "2"]
    assert lines[5].split() == ["tasks", "candidates", "kaggle", "per_task_mean", "all_or_nothing", "attempt_1", "oracle"]
    grids = {
        (q.record.id, k, c.grid)
        for name in ("full", "other", "part")
        for q in finished(home / name)
        for k, test in enumerate(q.record.polls["adapted"].tests)
        for c in test.candidates
    }
    assert rows["pool"][1] == str(len(grids))
    assert "/3" in rows["pool"][3] and "/2" in rows["pool"][5], "all test outputs, and all tasks"
    assert lines[-1] == f"{tmp_path / 'submission.json'}: 3 test inputs of 2 tasks"


def finished(folder: Path) -> Any:
    return read_finished(folder, record_from_json)


def test_scores_are_those_of_each_run_s_own_submission(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool(tmp_path, home / "full", home / "part")
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    for number, name in (("1", "full"), ("2", "part"), ("pool", tmp_path)):
        cells = next(row for row in rows if row[:1] == [number] and len(row) > 3)
        assert cli.main(["score", str(home / name / "submission.json"), str(home / "data" / "own_solutions.json")]) == 0
        printed = [line.split() for line in capsys.readouterr().out.splitlines()[:4]]
        assert [cells[place].split("/")[0] for place in (4, 6, 8, 10)] == [row[row.index("/") - 1] for row in printed]


def test_an_unfinished_run_is_pooled_as_far_as_it_is(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = shutil.copytree(home / "full", tmp_path / "run")
    lines = (run / JOURNAL).read_bytes().splitlines(keepends=True)
    end = next(number for number, line in enumerate(lines) if json.loads(line)["kind"] == "question")
    (run / JOURNAL).write_bytes(b"".join(lines[: end + 2]) + lines[-1][:40])
    submission = pool(tmp_path / "out", run)
    assert submission["two"] == [{"attempt_1": [[0]], "attempt_2": [[0]]}] * 2
    assert submission["one"] == pool(tmp_path / "again", home / "full")["one"]
    assert "2 without an answer; " in capsys.readouterr().out


def test_the_base_can_be_pooled_and_stands_in_for_what_was_not_adapted(home: Path, tmp_path: Path) -> None:
    base = pool(tmp_path / "base", home / "full", "--stage", "base", "--selection", "mul_aug_prob")
    records = {question.record.id: question.record for question in finished(home / "full")}
    for name, record in records.items():
        assert [entry["attempt_1"] for entry in base[name]] == [[list(row) for row in t.attempts[0]] for t in record.polls["base"].tests]
    failed = tmp_path / "failed"
    arc_attempt(arc_config(failed, dataset=str(home / "data"), **RICH), ArcStandIn(Faults({("update", 1): broken})))
    again = pool(tmp_path / "out", failed, "--selection", "mul_aug_prob")
    assert again == handed_in(failed) and again["one"] == base["one"]
    nothing = records["one"].__class__(**{**vars(records["one"]), "answer_source": None, "polls": {}})
    assert found_in(nothing, "adapted") == found_in(nothing, "base") == []


def broken() -> None:
    from sttrl.errors import StepError

    raise StepError("the update failed")


@pytest.mark.parametrize("labels", ["shuffled", "deleted", "broken"])
def test_solutions_change_nothing_in_the_submission(labels: str, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = pool(tmp_path / "plain", home / "full", home / "other")
    solutions = home / "data" / "own_solutions.json"
    kept = solutions.read_text()
    try:
        solutions.unlink() if labels == "deleted" else save(solutions, "{" if labels == "broken" else {"one": [A], "two": DOUBLED[::-1]})
        capsys.readouterr()
        assert pool(tmp_path / "out", home / "full", home / "other") == plain
        said = capsys.readouterr().out
        assert ("no labels: " in said) == ("kaggle" not in said) == (labels != "shuffled")
    finally:
        solutions.write_text(kept)


def test_runs_of_other_tasks_are_refused(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    demo = tmp_path / "demo"
    arc_attempt(arc_config(demo, limit=1))
    said = refused(capsys, "pool", home / "full", demo, "--out", tmp_path / "out", code=2)
    assert f"{home / 'full'} ({home / 'data'}) and {demo} (arc-demo) are runs of different tasks" in said
    said = refused(capsys, "pool", demo, "--dataset", home / "data", "--out", tmp_path / "out", code=3)
    assert f"does not have the tasks of {demo}" in said
    assert not (tmp_path / "out").exists()


def test_the_tasks_that_a_run_trained_on_do_not_matter(home: Path, tmp_path: Path) -> None:
    trained = tmp_path / "trained"
    report = arc_attempt(arc_config(trained, dataset=str(home / "data"), **RICH, train_dataset=("arc-demo",)))
    assert "submission.json: 3 test inputs of 2 tasks" in report.table
    assert pool(tmp_path / "out", home / "full", trained)["one"] == handed_in(home / "full")["one"]
    assert pool(tmp_path / "out", trained, "--selection", "mul_aug_prob") == handed_in(trained)


def test_what_cannot_be_pooled_is_one_clear_line(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert "is given twice" in refused(capsys, "pool", home / "full", home / "x" / ".." / "full", "--out", out, code=2)
    assert "is a run folder" in refused(capsys, "pool", home / "full", "--out", home / "part", code=2)
    assert "is not a run folder" in refused(capsys, "pool", tmp_path / "none", "--out", out, code=2)
    assert "pool needs a run folder" in refused(capsys, "pool", "--out", out, code=2)
    assert "--out" in refused(capsys, "pool", home / "full", code=2)
    assert "--selection" in refused(capsys, "pool", home / "full", "--out", out, "--selection", "best", code=2)
    questions = shutil.copytree(home / "full", tmp_path / "questions")
    config = json.loads((questions / "config.json").read_text())
    save(questions / "config.json", {**config, "kind": "questions"})
    assert "is not a run of ARC tasks" in refused(capsys, "pool", questions, "--out", out, code=2)
    (questions / JOURNAL).unlink()
    save(questions / "config.json", config)
    assert "is not a run folder" in refused(capsys, "pool", questions, "--out", out, code=2)
    assert not out.exists()


def test_a_selection_that_needs_what_a_run_lacks_is_refused(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare = tmp_path / "bare"
    arc_attempt(arc_config(bare, dataset=str(home / "data"), **{**RICH, "score_views": 0}, selection="majority"))
    said = refused(capsys, "pool", home / "full", bare, "--selection", "kgmon", "--out", tmp_path / "out", code=2)
    assert "--selection kgmon needs the product of experts" in said and str(bare) in said and "probsum" in said
    pool(tmp_path / "out", home / "full", bare)
    assert "pool: probsum, adapted policies" in capsys.readouterr().out


def searched(*finds: tuple[str, Grid, float], experts: dict[Grid, dict[str, float]] | None = None, most: int = 9) -> Searched:
    candidates = candidates_of([Find(view=view, grid=grid, nll=nll) for view, grid, nll in finds])
    nlls = [(experts or {}).get(candidate.grid, {}) for candidate in candidates]
    return Searched(candidates=with_experts(candidates, nlls), eligible=frozenset(c.grid for c in candidates[:most]))


def test_candidates_come_in_the_order_in_which_the_run_found_them() -> None:
    def record(grid: Grid, score: float | None, **nlls: float) -> CandidateRecord:
        return CandidateRecord(grid=grid_text(grid), score=score, search_nll=nlls, expert_nll={"rt": 1.0})

    ranked = [record(ONE, 4.0, rt=0.3), record(((9,),), 3.0), record(TWO, 2.0, rt=0.2, tp=0.9), record(THREE, None, tp=1.5)]
    found = searched_in(TestRecord(candidates=ranked, tied=[], unreadable={}, cut={}), {"tp": 0, "rt": 1}, 2)
    assert [(c.grid, [find.view for find in c.find_F]) for c in found.candidates] == [(TWO, ["tp", "rt"]), (THREE, ["tp"]), (ONE, ["rt"])]
    assert found.eligible == {TWO, ONE}, "found under most views, then the likeliest"
    assert [find.group for find in found.candidates[0].find_F] == ["Transpose", "Rot270"]


def source(name: str, found: Searched, **more: Any) -> Source:
    place: Place = ("one", 0)
    return Source(name=name, tasks=1, found={place: found}, answers={}, **more)


def test_the_same_view_of_two_runs_counts_twice() -> None:
    first = searched(("", ONE, 0.5), ("tp", ONE, 0.5), ("", TWO, 0.1), experts={ONE: {"": 1.0}, TWO: {"": 2.0}})
    second = searched(("", TWO, 0.1), ("tp", TWO, 0.3), ("", THREE, 0.1), experts={TWO: {"": 0.5}, THREE: {"": 0.5}})
    found = joined([first, None, second])
    assert [(c.grid, [find.view for find in c.find_F], c.expert_nll) for c in found.candidates] == [
        (ONE, ["0:", "0:tp"], {"0:": 1.0}),
        (TWO, ["0:", "2:", "2:tp"], {"0:": 2.0, "2:": 0.5}),
        (THREE, ["2:"], {"2:": 0.5}),
    ]
    assert pool_of([source("a", first), source("b", second)], "majority").answers["one", 0] == (TWO, ONE)


def test_a_candidate_that_no_run_has_scored_is_no_attempt_but_its_finds_count() -> None:
    first = searched(("", ONE, 0.5), ("", TWO, 0.9), experts={ONE: {"": 1.0}}, most=1)
    second = searched(("", TWO, 0.9), ("", THREE, 2.0), experts={TWO: {"": 3.0}}, most=1)
    pooled = pool_of([source("a", first), source("b", second)], "majority")
    assert pooled.answers["one", 0] == (TWO, ONE)
    assert [c.grid for c in pooled.found["one", 0].candidates] == [ONE, TWO, THREE], "the oracle knows all"


def test_sums_without_a_bonus_are_unfair_to_what_many_runs_found_and_the_table_says_so() -> None:
    both, alone = {"": 0.2}, {"": 0.3}
    first = searched(("", ONE, 0.2), ("", TWO, 0.4), experts={ONE: both, TWO: alone})
    second = searched(("", ONE, 0.2), experts={ONE: both})
    sources = [source("a", first), source("b", second)]
    assert pool_of(sources, "mul_aug_prob").answers["one", 0] == (TWO, ONE)
    assert unequally_scored(pool_of(sources, None)) == 1
    assert default_selection(sources) == "mul_all_prob" and pool_of(sources, None).answers["one", 0] == (ONE, TWO)
    assert possible_selections(sources) == tuple(SELECTIONS)
    assert possible_selections([source("c", searched(("", ONE, 0.1)), has_nlls=False)]) == ("first", "majority", "marc")


def predicted(*grids: Any, inverter: str | None = None, formatter: str = "") -> list[dict[str, Any]]:
    return [{"output": grid, "inverter": inverter, "formatter": formatter} for grid in grids]


def test_predictions_of_marc_are_voted_on_and_scored(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = save(
        tmp_path / "all_predictions.json",
        {
            "two-1-0": predicted([[9, 9], [9, 9]]),
            "one-0-10": predicted(A, inverter="Transpose()"),
            "one-0-2": predicted(TURNED, A, TURNED),
            "two-1-1": predicted([[]], [[10]], [[1, 2], [3]], None, "x", inverter="Flip(0)"),
        },
    )
    submission = pool(tmp_path / "out", file, "--dataset", home / "data")
    assert submission["one"] == [{"attempt_1": A, "attempt_2": TURNED}], "named by the group of the transposed view three times"
    assert submission["two"] == [{"attempt_1": [[0]], "attempt_2": [[0]]}, {"attempt_1": [[9, 9], [9, 9]], "attempt_2": [[9, 9], [9, 9]]}]
    said = capsys.readouterr().out
    assert "pool: marc\n" in said and "1: 5 predictions are no grids and do not vote." in said
    assert refused(capsys, "pool", file, "--out", tmp_path / "no", code=2).startswith("error: Predictions do not say which tasks")
    assert "needs probabilities" in refused(capsys, "pool", file, home / "full", "--selection", "probsum", "--out", tmp_path / "no", code=2)


def test_predictions_and_runs_can_be_pooled(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unseen = [[7, 7, 7]]
    file = save(tmp_path / "all_predictions.json", {f"two-0-{prompt}": predicted(unseen) for prompt in range(40)})
    submission = pool(tmp_path / "out", home / "full", file, "--selection", "majority")
    assert submission["two"][0]["attempt_1"] == unseen and submission["one"] != [{"attempt_1": [[0]], "attempt_2": [[0]]}]
    assert "2  " + str(file) in capsys.readouterr().out


def test_ids_are_compared_whole_and_many_test_inputs_do_not_collide(tmp_path: Path) -> None:
    ids = ("a", "a-1", "ba", "a-1-0")
    save(tmp_path / "data.json", {id: task(*({"input": [[n % 10]]} for n in range(12))) for id in ids})
    grids = {(id, test): [[place % 10, place // 10]] for place, (id, test) in enumerate((id, test) for id in ids for test in range(12))}
    file = save(tmp_path / "all.json", {f"{id}-{test}-0": predicted(grid) for (id, test), grid in grids.items()})
    submission = pool(tmp_path / "out", file, "--dataset", tmp_path / "data.json")
    assert {(id, k): entry["attempt_1"] for id, entries in submission.items() for k, entry in enumerate(entries)} == grids


def test_the_order_of_the_file_does_not_matter(home: Path, tmp_path: Path) -> None:
    keys = {f"one-0-{prompt}": predicted([[prompt]]) for prompt in range(12)}
    first = save(tmp_path / "first.json", keys)
    second = save(tmp_path / "second.json", dict(reversed(keys.items())))
    assert pool(tmp_path / "a", first, "--dataset", home / "data") == pool(tmp_path / "b", second, "--dataset", home / "data")


def test_a_reply_is_read_as_its_formatter_wrote_and_mapped_back(home: Path, tmp_path: Path) -> None:
    words = predicted(
        "The output:\n```\nRed Blue\nBlack Gray\n```", inverter="Rotate(270)", formatter="(grid_representer=WordGridRepresenter())"
    )
    diff = predicted(" + [[1 -2]\n [0 3]]#", inverter="Flip(1)", formatter="DiffExampleRepresenter(output_footer='#')")
    file = save(tmp_path / "all.json", {"two-0-0": words, "one-0-0": diff, "two-1-0": predicted("[[4 5]]#")})
    submission = pool(tmp_path / "out", file, "--dataset", home / "data")
    assert submission["two"][0]["attempt_1"] == [[0, 2], [5, 1]], "a quarter clockwise"
    assert submission["one"][0]["attempt_1"] == [[1, 5], [8, 6]], "the query [[3, 4], [5, 6]] was asked mirrored, [[4, 3], [6, 5]]"
    assert submission["two"][1]["attempt_1"] == [[4, 5]]


HOSTILE = "__import__('pathlib').Path('{}').touch()"
WRONG: dict[str, Any] = {
    "is not JSON": "{",
    "no JSON object": [],
    "one-0 is not <task>-<test input>-<prompt>": {"one-0": predicted(A)},
    "no test input 1 of task on.": {"on-0-0": predicted(A)},
    "no test input 2 of task one": {"one-1-0": predicted(A)},
    "one-0-0 is not a list": {"one-0-0": {}},
    "prediction 2 is not an object with an output": {"one-0-0": [*predicted(A), {"grid": A}]},
    "unknown inverter 'Chain([])'": {"one-0-0": predicted(A, inverter="Chain([])")},
    "unknown inverter '7'": {"one-0-0": [{"output": A, "inverter": 7}]},
}


@pytest.mark.parametrize("message", WRONG)
def test_a_broken_file_of_predictions_is_one_clear_line(
    message: str, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = save(tmp_path / "all.json", WRONG[message])
    said = refused(capsys, "pool", file, "--dataset", home / "data", "--out", tmp_path / "out", code=3)
    assert message in said and str(file) in said


def test_nothing_in_a_file_of_predictions_is_executed(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trap = HOSTILE.format(tmp_path / "sprung")
    save(tmp_path / "all.json", {"one-0-0": [*predicted(trap, formatter=trap), *predicted(A, formatter=trap)]})
    assert pool(tmp_path / "out", tmp_path / "all.json", "--dataset", home / "data")["one"][0]["attempt_1"] == A
    save(tmp_path / "all.json", {"one-0-0": predicted(A, inverter=trap)})
    refused(capsys, "pool", tmp_path / "all.json", "--dataset", home / "data", "--out", tmp_path / "out", code=3)
    assert not (tmp_path / "sprung").exists()


def test_the_data_set_of_the_runs_is_read_as_they_name_it(home: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(home / "data", tmp_path / "moved")
    assert pool(tmp_path / "a", home / "full", "--dataset", moved) == pool(tmp_path / "b", home / "full")
