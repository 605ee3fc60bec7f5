"""Sweeps: which runs a file asks for, what they are called, and what is wrong with a file, in one line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sttrl.cli import configs_of
from sttrl.config import RunConfig, UpdateSettings
from sttrl.errors import UsageError
from sttrl.ledger.folder import run_folder
from sttrl.sweep.axes import SAFE_NAME, Sweep, read_sweep


def sweep_of(folder: Path, content: object, name: str = "a.yaml") -> Sweep:
    """The sweep of a file with this content, given as YAML or as what YAML stands for."""
    file = folder / name
    file.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return read_sweep(file)


def names(sweep: Sweep) -> list[str]:
    """The names of the runs."""
    return [run.name for run in sweep.runs]


AXES: dict[str, Any] = {"adaptation_method": ["sttrl", "ttft"], "voting_function": ["majority", "energy"], "seed": [0, 1]}


# Which runs there are


def test_the_product_in_the_order_written_a_seed_at_a_time(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, {"base": {"steps": 2}, "axes": AXES})
    assert sweep.name == "a" and sweep.axes == {name: tuple(values) for name, values in AXES.items()}
    assert names(sweep) == [
        f"{method}-{vote}-seed{seed}" for seed in (0, 1) for method in ("sttrl", "ttft") for vote in ("majority", "energy")
    ]
    last = sweep.runs[-1]
    assert last.values == {"adaptation_method": "ttft", "voting_function": "energy", "seed": 1}
    assert last.settings == {"steps": 2, **last.values}


def test_rows_by_themselves(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, {"runs": [{"adaptation_method": "slot"}, {"adaptation_method": "memo", "memo_form": "token"}]})
    assert names(sweep) == ["slot", "memo-token"] and not sweep.axes


def test_the_baseline_is_the_name_of_a_run(tmp_path: Path) -> None:
    assert sweep_of(tmp_path, {"axes": AXES, "baseline": "ttft-energy-seed1"}).baseline == "ttft-energy-seed1"
    with pytest.raises(UsageError, match="baseline is 'ttft', and no run has this name. Runs: sttrl-majority-seed0, "):
        sweep_of(tmp_path, {"axes": AXES, "baseline": "ttft"})


def test_rows_with_every_combination_of_the_axes(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, {"runs": [{"adaptation_method": "slot"}, {"n-votes": 8}], "axes": {"seed": [3, 4]}})
    assert names(sweep) == ["slot-seed3", "n_votes8-seed3", "slot-seed4", "n_votes8-seed4"]
    assert sweep.runs[1].settings == {"n_votes": 8, "seed": 3}


def test_rows_and_axes_win_over_base_and_null_is_the_default(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, {"base": {"lr": 0.01, "steps": 9}, "runs": [{"steps": 1}], "axes": {"lr": [0.02, None]}})
    assert [run.settings for run in sweep.runs] == [{"lr": 0.02, "steps": 1}, {"steps": 1}]
    assert names(sweep) == ["steps1-lr0.02", "steps1-default_lr"]


def test_skip_leaves_out_what_holds_all_of_an_entry(tmp_path: Path) -> None:
    skip = [{"adaptation_method": "ttft", "voting_function": "energy"}, {"seed": 1, "adaptation_method": "sttrl"}]
    sweep = sweep_of(tmp_path, {"axes": AXES, "skip": skip})
    assert names(sweep) == ["sttrl-majority-seed0", "sttrl-energy-seed0", "ttft-majority-seed0", "ttft-majority-seed1"]


def test_skip_sees_base_defaults_and_numbers_as_they_are(tmp_path: Path) -> None:
    axes = {"lr": ["1e-3", 0.01], "seed": [0, 1]}
    assert names(sweep_of(tmp_path, {"base": {"steps": 2}, "axes": axes, "skip": [{"steps": 2, "lr": 0.001}]})) == [
        "lr0.01-seed0",
        "lr0.01-seed1",
    ]
    assert names(sweep_of(tmp_path, {"axes": axes, "skip": [{"voting_function": "majority", "seed": 1}]})) == [
        "lr0.001-seed0",
        "lr0.01-seed0",
    ]


def test_base_alone_is_a_run_when_a_row_says_so(tmp_path: Path) -> None:
    assert names(sweep_of(tmp_path, {"base": {"steps": 1}, "runs": [{}]})) == ["base"]


# Names


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"adaptation_method": "sttrl", "voting_function": "energy", "seed": 0}, "sttrl-energy-seed0"),
        ({"continuous": True}, "continuous"),
        ({"continuous": False, "seed": 1}, "no_continuous-seed1"),
        ({"model": "Qwen/Qwen2.5-Math-1.5B"}, "Qwen2.5-Math-1.5B"),
        ({"dataset": "hf:a/b c:<d>"}, "b_c_d_"),
        ({"lr": 1e-3, "seed": 1234567}, "lr0.001-seed1234567"),
        ({"lr": "5e-7"}, "lr5e-07"),
        ({"ids": ["a", "b/c"]}, "idsa+b_c"),
        ({"prompt_format": "../../{question}"}, "question_"),
        ({"prompt_format": "..-{question}"}, "question_"),
    ],
)
def test_a_name_says_the_values(values: dict[str, Any], name: str, tmp_path: Path) -> None:
    run = sweep_of(tmp_path, {"runs": [values, {"n_votes": 99}]}).runs[0]
    assert run.name == name and list(run.values) == list(values)


def test_names_that_meet_end_on_what_tells_them_apart(tmp_path: Path) -> None:
    models = [{"model": "a/x"}, {"model": "b/x"}, {"model": "c"}]
    first = names(sweep_of(tmp_path, {"runs": models}))
    assert len(set(first)) == 3 and first[0].startswith("x-") and first[2] == "c"
    again = names(sweep_of(tmp_path, {"base": {"steps": 1}, "runs": [models[2], models[1], models[0]]}))
    assert set(again) == set(first), "a name hangs on the run, not on its place or on base"


def test_a_long_name_is_cut_and_stays_different(tmp_path: Path) -> None:
    long = "question " * 40
    sweep = sweep_of(tmp_path, {"axes": {"prompt_format": [f"{long}{{question}} one", f"{long}{{question}} two"]}})
    assert len(set(names(sweep))) == 2 and all(len(name) <= 100 for name in names(sweep))


TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=30)


@settings(deadline=None)
@given(st.lists(st.one_of(TEXT, st.integers(0, 10**9)), min_size=1, max_size=6))
def test_names_are_unique_and_safe_whatever_the_values(tmp_path_factory: pytest.TempPathFactory, values: list[Any]) -> None:
    folder = tmp_path_factory.mktemp("sweep")
    try:
        sweep = sweep_of(folder, {"axes": {"question_column": values}})
    except UsageError as error:
        assert "two runs are the same" in error.message
        return
    assert len(set(names(sweep))) == len(sweep.runs) == len(values)
    assert all(SAFE_NAME.fullmatch(name) and os.path.basename(name) == name for name in names(sweep))


def test_the_sweep_has_a_name_of_its_own(tmp_path: Path) -> None:
    assert sweep_of(tmp_path, {"name": "votes.2", "axes": {"seed": [0]}}).name == "votes.2"
    assert sweep_of(tmp_path, {"name": 7, "axes": {"seed": [0]}}).name == "7"


# What is wrong


@pytest.mark.parametrize(
    ("content", "messages"),
    [
        ("", ["asks for no run", "Give axes, runs or both"]),
        ("base: {steps: 2}", ["asks for no run"]),
        ("- a", ["holds no settings"]),
        ("axes: [", ["is not YAML"]),
        ("axis: {seed: [0]}", ["no part 'axis'", "Did you mean 'axes'?", "name, base, axes, runs, skip"]),
        ("steps: 2", ["no part 'steps'", "go under base"]),
        ("axes: {sed: [0]}", ["axes: there is no setting 'sed'", "Did you mean 'seed'?"]),
        ("base: {sed: 0}\naxes: {seed: [0]}", ["base: there is no setting 'sed'"]),
        ("runs: [{sed: 0}]", ["runs, entry 1: there is no setting 'sed'"]),
        ("axes: {seed: [0]}\nskip: [{seed: 0}, {sed: 0}]", ["skip, entry 2: there is no setting 'sed'"]),
        ("axes: {seed: 0}", ["axes: seed is 0", "seed: [...]"]),
        ("axes: {seed: []}", ["axes: seed is []", "at least one value"]),
        ("axes: {seed: }", ["axes: seed is None"]),
        ("axes: [seed]", ["axes is ['seed']"]),
        ("base: 3\naxes: {seed: [0]}", ["base is 3"]),
        ("runs: {seed: 0}", ["runs is {'seed': 0}", "list of settings"]),
        ("runs: []", ["runs is []"]),
        ("runs: [3]", ["runs, entry 1 is 3"]),
        ("runs: [{seed: 0}]\naxes: {seed: [0, 1]}", ["runs, entry 1: seed is an axis too", "one of them"]),
        ("axes: {seed: [0, 1, 0]}", ["two runs are the same: seed: 0", "has its default"]),
        ("axes: {lr: [0.001, 1e-3]}", ["two runs are the same"]),
        ("runs: [{adaptation_method: sttrl}, {voting_function: majority}]", ["two runs are the same: voting_function: majority"]),
        ("runs: [{}, {}]", ["two runs are the same: base alone"]),
        ("axes: {seed: [0, 1]}\nskip: [{seed: 3}]", ["skip, entry 1 describes no run"]),
        ("axes: {seed: [0, 1]}\nskip: [{}]", ["skip, entry 1 describes every run"]),
        ("axes: {seed: [0, 1]}\nskip: [{seed: 0}, {seed: 1}]", ["skip leaves no run"]),
        ("base: {output_dir: x}\naxes: {seed: [0]}", ["base: output_dir has no place in a sweep", "<output_dir>/<sweep>/<run>"]),
        ("axes: {run_name: [x]}", ["axes: run_name has no place"]),
        ("runs: [{config: a.yaml}]", ["runs, entry 1: config has no place", "under base"]),
        ("base: {n_votes: [1, 2]}\naxes: {seed: [0]}", ["base: n_votes cannot be [1, 2]"]),
        ("axes: {n_votes: [true]}", ["axes: n_votes cannot be True", "An example is n_votes: 64"]),
        ("axes: {continuous: [1]}", ["continuous cannot be 1"]),
        ("axes: {lr: [fast]}", ["axes: lr cannot be 'fast'", "valid number"]),
        ("runs: [{voting_function: plurality}]", ["runs, entry 1: voting_function cannot be 'plurality'", "'majority', 'energy'"]),
        ("name: a/b\naxes: {seed: [0]}", ["'a/b' cannot be the name of a folder"]),
        ("name: ..\naxes: {seed: [0]}", ["'..' cannot be the name of a folder"]),
    ],
)
def test_a_file_that_is_wrong_is_one_line(content: str, messages: list[str], tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        sweep_of(tmp_path, content)
    said = str(caught.value)
    assert f"sweep {tmp_path / 'a.yaml'}" in said and caught.value.hint and "\n" not in said
    assert all(message in said for message in messages), said


def test_a_file_that_is_not_there_or_has_no_name_for_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_sweep(tmp_path / "missing.yaml")
    with pytest.raises(UsageError, match="'my sweep' cannot be the name of a folder"):
        sweep_of(tmp_path, {"axes": {"seed": [0]}}, name="my sweep.yaml")


# From runs to configurations


def test_configurations_have_folders_of_their_own_and_flags_win(tmp_path: Path) -> None:
    sweep = sweep_of(
        tmp_path, {"base": {"steps": 2, "continuous": True, "ids": ["a", "b"]}, "axes": {"lr": ["1e-3", None], "seed": [0, 1]}}
    )
    configs = configs_of(sweep, ["--steps", "3", "--output_dir", "o", "--no_continuous"])
    first = configs[0]
    assert (first.method.steps, first.method.continuous, first.data.ids, first.update.lr, first.run.seed) == (3, False, ("a", "b"), 1e-3, 0)
    assert [config.run.output_dir / str(config.run.run_name) for config in configs] == [Path("o/a") / name for name in names(sweep)]
    assert configs[3] == first.changed(lr=None, seed=1, run_name="default_lr-seed1")
    assert configs_of(sweep, [])[0].run.output_dir == RunConfig().run.output_dir / "a"


@pytest.mark.parametrize("flag", ["--seed=3", "--seed", "--no-continuous", "--run_name", "--run-name=x", "--config"])
def test_a_flag_cannot_undo_what_tells_runs_apart(flag: str, tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, {"axes": {"seed": [0, 1], "continuous": [True, False]}})
    with pytest.raises(UsageError, match=f"{flag.split('=')[0].replace('no-', '').replace('run-', 'run_')} with the sweep a"):
        configs_of(sweep, [flag, "3"])


def test_a_value_that_cannot_be_names_its_run(tmp_path: Path) -> None:
    for axes, message in (({"n_votes": [64, 8]}, "run n_votes8: --n_train 32 is more"), ({"lr": [-1]}, "run lr-1: --lr is -1")):
        with pytest.raises(UsageError, match=message):
            configs_of(sweep_of(tmp_path, {"axes": axes}), [])


def test_adapters_may_be_those_of_another_run_of_the_sweep(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(
        "base: {dataset: arc-demo}\nruns: [{adaptation_method: none}, {adaptation_method: ttt, ttt_rows: 2}, "
        "{adaptation_method: stored, adapters: ttt-ttt_rows2}, {adaptation_method: stored, adapters: elsewhere}]\n"
    )
    configs = configs_of(read_sweep(file), ["--output_dir", str(tmp_path / "out")])
    assert configs[2].stored.adapters == tmp_path / "out" / "own" / "ttt-ttt_rows2" == run_folder(configs[1])
    assert configs[3].stored.adapters == Path("elsewhere")


def test_what_base_says_in_vain_for_a_run_is_left_out_of_it(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    text = "base: {dataset: arc-demo, lr: 0.001, lora_rank: 4, min_prob: 0.2}\nruns: [{adaptation_method: ttt}, "
    file.write_text(text + "{adaptation_method: stored, adapters: ttt, search: greedy}]\n")
    trained, stored = configs_of(read_sweep(file), [])
    assert (trained.update.lr, trained.update.lora_rank, trained.arc.min_prob) == (0.001, 4, 0.2)
    assert stored.update == UpdateSettings() and stored.arc.min_prob == RunConfig().arc.min_prob
    file.write_text(text + "{adaptation_method: stored, adapters: ttt, lr: 0.1}]\n")
    with pytest.raises(UsageError, match="run .*: --lr 0.1 does nothing with --adaptation_method stored"):
        configs_of(read_sweep(file), [])
    file.write_text("base: {dataset: arc-demo, lr: 0.1}\nruns: [{adaptation_method: stored, adapters: a}]\n")
    with pytest.raises(UsageError, match="base: lr does nothing for any of the runs"):
        read_sweep(file)
