"""ARC data sets: every layout, labels kept apart, and the named data sets."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from arc_files import DEMOS, A, B, C, data_folder, fault_lines, pairs, read, save, task
from fake_hub import FakeHub
from hypothesis import given
from hypothesis import strategies as st

from sttrl.arc.check import check
from sttrl.arc.datasets import ARC_DATASETS, is_arc
from sttrl.arc.flat import FlatPairs, draw_tasks
from sttrl.arc.grids import as_grid
from sttrl.arc.labels import read_labels
from sttrl.arc.sources import ArcSpec, read_tasks, warnings
from sttrl.arc.tasks import Task, fingerprint
from sttrl.errors import DataError


@pytest.mark.parametrize("suffix", [".json", ".json.gz"])
def test_a_kaggle_pair_of_files(tmp_path: Path, suffix: str) -> None:
    file = save(tmp_path / f"x_challenges{suffix}", {"b": task({"input": A}, {"input": B}), "a": task({"input": C})})
    save(tmp_path / f"x_solutions{suffix}", {"a": [B], "b": [C, A]})
    data = read(file)
    assert (data.name, data.layout, data.outputs) == ("x", "kaggle", 3)
    assert data.tasks == (
        Task(id="a", demos=DEMOS, tests=(as_grid(C),)),
        Task(id="b", demos=DEMOS, tests=(as_grid(A), as_grid(B))),
    )
    labels = read_labels(ArcSpec(dataset=str(file)))
    assert labels.solutions == {"a": (as_grid(B),), "b": (as_grid(C), as_grid(A))}
    assert read(tmp_path).tasks == data.tasks  # the folder stands for its only challenges file


def test_a_folder_of_task_files(tmp_path: Path) -> None:
    save(tmp_path / "b.json", task({"input": A, "output": B}))
    save(tmp_path / "a.json.gz", task({"input": C}))
    data = read(tmp_path)
    assert data.layout == "task folder"
    assert [found.id for found in data.tasks] == ["a", "b"]
    labels = read_labels(ArcSpec(dataset=str(tmp_path)))
    assert labels.solutions == {"a": None, "b": (as_grid(B),)}
    assert read(tmp_path / "b.json").layout == "task file"


def test_the_highest_revision_of_a_collection_counts(tmp_path: Path) -> None:
    save(tmp_path / "data" / "x" / "t.json", task({"input": A, "output": A}))
    save(tmp_path / "data" / "x" / "t_v2.json", task({"input": A, "output": B}))
    save(tmp_path / "data" / "x" / "t_v10.json", task({"input": B, "output": C}))
    save(tmp_path / "data" / "y" / "u_v3.json", task({"input": C, "output": C}))
    save(tmp_path / "data" / "w.json", task({"input": C, "output": C}))
    data = read(tmp_path)
    assert data.layout == "collection"
    assert [(found.id, found.tests) for found in data.tasks] == [("t", (as_grid(B),)), ("u", (as_grid(C),)), ("w", (as_grid(C),))]
    assert read_labels(ArcSpec(dataset=str(tmp_path))).solutions["t"] == (as_grid(C),)


def test_flat_pairs_in_the_order_of_the_file(tmp_path: Path) -> None:
    save(tmp_path / "a.json", pairs(5))
    data, labels = read(tmp_path), read_labels(ArcSpec(dataset=str(tmp_path)))
    assert data.layout == "flat pairs"
    assert [pair.input for pair in data.tasks[0].demos] == [((0,),), ((1,),), ((2,),)]
    assert data.tasks[0].tests == (((3,),),)
    assert labels.solutions == {"a": (((4, 3),),)}


def test_re_arc_with_sizes_and_a_seed(tmp_path: Path) -> None:
    for name in "ab":
        save(tmp_path / "tasks" / f"{name}.json", pairs(9))
    save(tmp_path / "metadata.json", {name: {"pso_difficulties": [0.1, 0.9] * 4 + [0.5]} for name in "ab"})
    rule = FlatPairs(sizes=(1, 2), tasks_per_file=3, seed=7, drop_easiest=0.5)
    spec = ArcSpec(dataset=str(tmp_path), flat=rule)
    data, labels = read_tasks(spec), read_labels(spec)
    assert data.layout == "re-arc"
    assert [found.id for found in data.tasks] == ["a-0", "a-1", "a-2", "b-0", "b-1", "b-2"]
    assert [len(found.demos) for found in data.tasks] == [1, 2, 1, 1, 2, 1]
    for found in data.tasks:
        numbers = [pair.input[0][0] for pair in found.demos] + [found.tests[0][0][0]]
        assert set(numbers) <= {1, 3, 5, 7, 8} and len(set(numbers)) == len(numbers)
        assert labels.solutions[found.id] == (((numbers[-1] + 1, numbers[-1]),),)
    assert [found.demos for found in data.tasks[:3]] != [found.demos for found in data.tasks[3:]]
    assert read_tasks(spec).fingerprint == data.fingerprint


def test_re_arc_needs_its_metadata_where_the_easiest_are_dropped(tmp_path: Path) -> None:
    save(tmp_path / "tasks" / "a.json", pairs(9))
    with pytest.raises(DataError, match=r"metadata\.json: it cannot be read"):
        read(tmp_path, flat=FlatPairs(drop_easiest=0.5))


def test_too_few_pairs(tmp_path: Path) -> None:
    file = save(tmp_path / "a.json", pairs(3))
    assert fault_lines(file) == [f"{file}, task a: 3 pairs to use, and 4 are needed."]


@given(
    count=st.integers(1, 30),
    sizes=st.lists(st.integers(0, 6), min_size=1, max_size=3),
    tasks=st.integers(1, 5),
    seed=st.none() | st.integers(0, 99),
    drop=st.sampled_from([0.0, 0.5]),
)
def test_a_task_of_flat_pairs_never_has_a_pair_twice(count: int, sizes: list[int], tasks: int, seed: int | None, drop: float) -> None:
    rule = FlatPairs(sizes=tuple(sizes), tasks_per_file=tasks, seed=seed, drop_easiest=drop)
    difficulties = [(7 * place) % count for place in range(count)]
    try:
        draws = draw_tasks(rule, "a", count, difficulties)
    except ValueError:
        return
    easiest = sorted(range(count), key=lambda place: difficulties[place])[: int(count * drop)]
    assert len(draws) == tasks
    for number, draw in enumerate(draws):
        assert len(draw.demos) == sizes[number % len(sizes)]
        assert len({*draw.demos, draw.test}) == len(draw.demos) + 1
        assert not {*draw.demos, draw.test} & set(easiest)


@pytest.mark.parametrize("settings", [{"sizes": ()}, {"sizes": (-1,)}, {"tasks_per_file": 0}, {"drop_easiest": 1.0}], ids=str)
def test_rules_without_a_meaning(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        FlatPairs(**settings)


def test_no_output_of_a_test_input_is_in_what_is_read(tmp_path: Path) -> None:
    """Another solution, or none, changes nothing but the sha256 of the files."""
    seen = []
    for number, test in enumerate(({"input": A, "output": C}, {"input": A, "output": "nonsense"}, {"input": A})):
        save(tmp_path / str(number) / "t.json", task(test))
        seen.append(read(tmp_path / str(number)))
    assert len({data.fingerprint for data in seen}) == 1
    assert len({data.tasks for data in seen}) == 1
    assert len({data.sha256 for data in seen}) == 3


def test_the_fingerprint_is_the_same_in_every_layout(tmp_path: Path) -> None:
    tasks = {"b": task({"input": A}), "a": task({"input": C})}
    file = save(tmp_path / "x_challenges.json.gz", tasks)
    for name, value in tasks.items():
        save(tmp_path / "folder" / f"{name}.json", value)
    assert read(file).fingerprint == read(tmp_path / "folder").fingerprint
    one, two = (Task(id="a", demos=DEMOS, tests=(as_grid(grid),)) for grid in (A, B))
    assert fingerprint([one]) != fingerprint([two])


def test_challenges_without_solutions_can_be_read(tmp_path: Path) -> None:
    file = save(tmp_path / "x_challenges.json", {"a": task({"input": C})})
    labels = read_labels(ArcSpec(dataset=str(file)))
    assert labels.solutions == {"a": None} and labels.source is None
    assert labels.missing == f'there is no {tmp_path}/x_solutions.json, and no "test" of {file} has outputs'
    assert "a run works, and nothing can be scored" in check(ArcSpec(dataset=str(file))).text


def test_the_demo_set_comes_with_the_package() -> None:
    data = read_tasks(ArcSpec(dataset="arc-demo"))
    assert [found.id for found in data.tasks] == ["5582e5ca", "6150a2bd", "66e6c45b", "d037b0a7", "d631b094", "e9afcf9a"]
    assert str(data.release) == "arc-demo, release six tasks of 3990304 (the same tasks)"
    assert read_labels(ArcSpec(dataset="arc-demo")).known == 6
    assert "github.com/fchollet/ARC-AGI" in (data.path.parent / "NOTICE").read_text()


@pytest.mark.parametrize("name", [name for name, entry in ARC_DATASETS.items() if entry.folder is None])
def test_the_named_data_sets(name: str) -> None:
    spec = ArcSpec(dataset=name, data_dir=data_folder())
    data, labels = read_tasks(spec), read_labels(spec)
    assert (len(data.tasks), data.outputs) == (ARC_DATASETS[name].releases[0].tasks, ARC_DATASETS[name].releases[0].outputs)
    assert data.release is not None and (data.release.dataset, data.release.same) == (name, True)
    assert warnings(data) == ()
    assert all(len(labels.solutions[found.id] or ()) == len(found.tests) for found in data.tasks)


def test_the_demo_tasks_are_those_of_the_real_data_sets() -> None:
    real = {
        found.id: found
        for name in ("ARC-AGI-1-training", "ARC-AGI-1-evaluation")
        for found in read_tasks(ArcSpec(dataset=name, data_dir=data_folder())).tasks
    }
    assert all(found == real[found.id] for found in read_tasks(ArcSpec(dataset="arc-demo")).tasks)


def test_real_re_arc() -> None:
    folder = data_folder() / "re_arc"
    if not folder.is_dir():
        pytest.skip("the folder in STTRL_DATA has no re_arc")
    spec = ArcSpec(dataset=str(folder), flat=FlatPairs(sizes=(6,), tasks_per_file=3, seed=42, drop_easiest=0.5))
    data = read_tasks(spec)
    assert data.layout == "re-arc"
    assert (len(data.tasks), {len(found.demos) for found in data.tasks}) == (90, {6})
    assert read_labels(spec).known == 90


def test_a_clone_of_the_repository_is_found(tmp_path: Path) -> None:
    save(tmp_path / "ARC-AGI" / "data" / "training" / "a.json", task({"input": A, "output": B}))
    spec = ArcSpec(dataset="ARC-AGI-1-training", data_dir=tmp_path)
    data = read_tasks(spec)
    assert data.layout == "task folder"
    assert warnings(data) == ("ARC-AGI-1-training should have 400 tasks and 416 test outputs, not 1 and 1",)


def test_another_data_set_under_the_same_file_name(tmp_path: Path) -> None:
    """Kaggle's files of 2025 have ARC-AGI-2 under the names that ARC-AGI-1 has here."""
    tasks = {str(number): task(*([{"input": A}] * (48 if number == 0 else 1))) for number in range(120)}
    save(tmp_path / "arc-agi_evaluation_challenges.json", tasks)
    data = read_tasks(ArcSpec(dataset="ARC-AGI-1-evaluation", data_dir=tmp_path))
    assert warnings(data) == (
        "ARC-AGI-1-evaluation should have 400 tasks and 419 test outputs, not 120 and 167; it looks like ARC-AGI-2-evaluation, "
        "release 2025-05-15, f3283f7 (the same counts, but other tasks)",
    )
    save(tmp_path / "arc-agi_evaluation2_challenges.json", tasks)
    data = read_tasks(ArcSpec(dataset="ARC-AGI-2-evaluation", data_dir=tmp_path))
    assert warnings(data) == (
        "the tasks differ from those of ARC-AGI-2-evaluation, release 2025-05-15, f3283f7, though the counts are the same",
    )


def test_a_named_data_set_that_is_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STTRL_DATA", raising=False)
    with pytest.raises(DataError) as stop:
        read_tasks(ArcSpec(dataset="ConceptARC"))
    assert str(stop.value) == (
        "ConceptARC is in no folder that was named, and on no hub. Put arc-agi_concept_challenges.json and its solutions into a folder "
        "and give that with --data_dir or STTRL_DATA; they come from https://github.com/victorvikram/ConceptARC (commit b22ef52)."
    )
    with pytest.raises(DataError, match=f"^ConceptARC is not in {tmp_path}, and on no hub\\."):
        read_tasks(ArcSpec(dataset="ConceptARC", data_dir=tmp_path))


def hub_rows(name: str) -> list[dict[str, Any]]:
    """The tasks of a data set in the project as eturok/ARC-AGI-1 has them on the hub."""
    file = ARC_DATASETS[name].folder / f"{name}_challenges.json"  # type: ignore[operator]
    challenges, solutions = json.loads(file.read_text()), json.loads(file.with_name(f"{name}_solutions.json").read_text())
    return [
        {
            "id": task_id,
            "example_inputs": [pair["input"] for pair in entry["train"]],
            "example_outputs": [pair["output"] for pair in entry["train"]],
            "question_inputs": [pair["input"] for pair in entry["test"]],
            "question_outputs": solutions[task_id],
        }
        for task_id, entry in challenges.items()
    ]


@pytest.fixture()
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """A hub on which ARC-AGI-1-evaluation has the six tasks of the demo."""
    fake, known = FakeHub(hub_rows("arc-demo")), ARC_DATASETS["ARC-AGI-1-evaluation"]
    monkeypatch.setattr("sttrl.data.hub.import_module", lambda name: fake)
    monkeypatch.setenv("STTRL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("STTRL_DATA", raising=False)
    monkeypatch.setitem(ARC_DATASETS, known.name, replace(known, releases=ARC_DATASETS["arc-demo"].releases))
    return fake


def test_a_named_data_set_comes_from_the_hub_and_is_kept(hub: FakeHub) -> None:
    spec, demo = ArcSpec(dataset="ARC-AGI-1-evaluation"), ArcSpec(dataset="arc-demo")
    found, labels = read_tasks(spec), read_labels(spec)
    assert found.tasks == read_tasks(demo).tasks and warnings(found) == ()
    assert labels.solutions == read_labels(demo).solutions
    assert hub.asked == [("eturok/ARC-AGI-1", None, "eval", None)]


def test_other_tasks_on_the_hub_are_refused(hub: FakeHub) -> None:
    hub.answer = hub.answer[1:]
    remedy = "Or: Put arc-agi_evaluation_challenges.json and its solutions, or ARC-AGI/data/evaluation, into a folder"
    with pytest.raises(DataError, match=f"^eturok/ARC-AGI-1 on the hub has other tasks than ARC-AGI-1-evaluation. {remedy}"):
        read_tasks(ArcSpec(dataset="ARC-AGI-1-evaluation"))
    hub.answer = [{"id": "a", "input": "[[1]]"}]
    with pytest.raises(DataError, match="row 1: it lacks one of the columns id, example_inputs"):
        read_tasks(ArcSpec(dataset="ARC-AGI-1-evaluation"))
    hub.answer = OSError("no route to it")
    with pytest.raises(DataError, match=f"did not come from the hub: no route to it. {remedy}"):
        read_tasks(ArcSpec(dataset="ARC-AGI-1-evaluation"))


def test_what_is_an_arc_data_set(tmp_path: Path) -> None:
    grids = save(tmp_path / "t.json", task({"input": A}))
    flat = save(tmp_path / "f.json.gz", pairs(3))
    questions = save(tmp_path / "q.json", [{"input": "1 + 1", "output": "2"}, {"question": ["[1]"]}])
    broken = save(tmp_path / "b.json.gz", "")
    broken.write_bytes(b"no gzip")
    arc = ("ARC-AGI-1-training", "arc-demo", "ARC-AGI-1-eval", "no_challenges.json", str(tmp_path), str(grids), str(flat))
    assert [name for name in arc if not is_arc(name)] == []
    other = ("arithmetic-demo", "AIME-TTT", "MATH-TTT", "hf:allenai/ai2_arc:ARC-Challenge:test", "none.json", str(questions), str(broken))
    assert [name for name in other if is_arc(name)] == []
