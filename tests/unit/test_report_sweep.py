"""The report of a sweep: which runs are one row, what a row says of its seeds, and the files that are written."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from test_report_metrics import poll, question, step

from sttrl.cli import configs_of
from sttrl.config import RunConfig, to_plain
from sttrl.data import SourceSpec, questions, read_table
from sttrl.errors import JournalError
from sttrl.ledger.journal import Journal
from sttrl.ledger.records import FinishedQuestion
from sttrl.questions.labels import labels
from sttrl.questions.records import PollRecord
from sttrl.report.statistics import interval_of_gain, p_value_of_gain
from sttrl.sweep.axes import read_sweep
from sttrl.sweep.rows import SweepScore, differing_settings
from sttrl.sweep.table import SWEEP_WIDTH, SweepReport, report_sweep

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "sweeps.md").read_text()
TABLE = read_table(SourceSpec(dataset="arithmetic-demo"))
LABELS = labels(TABLE)
IDS = [each.id for each in questions(TABLE, limit=10)]
WRONG = "-1"
ENVIRONMENT: dict[str, Any] = {
    "python": "3.11.7", "platform": "Linux", "cores": 2, "memory_mib": 16000, "cuda": False, "dtype": "float32",
    "packages": {"torch": "2.13.0", "vllm": None},
}  # fmt: skip


def right(number: int, of: int, question_id: str, **options: Any) -> PollRecord:
    """A poll with so many right samples."""
    return poll([LABELS[question_id]] * number + [WRONG] * (of - number), **options)


def adapted(*counts: tuple[int, int], changes: Mapping[int, Mapping[str, Any]] | None = None) -> list[FinishedQuestion]:
    """A run's questions; each has so many right of four before and after."""
    return [
        question(
            index,
            {"base": right(before, 4, IDS[index]), "vote_same_tokens": right(2, 5, IDS[index], confidence=LABELS[IDS[index]]),
             "adapted": right(after, 4, IDS[index])},
            [step(0, [LABELS[IDS[index]]])],
            id=IDS[index],
            **(changes or {}).get(index, {}),
        )
        for index, (before, after) in enumerate(counts)
    ]  # fmt: skip


def base_only(*counts: int) -> list[FinishedQuestion]:
    return [question(index, {"base": right(count, 4, IDS[index])}, id=IDS[index]) for index, count in enumerate(counts)]


def run_in(sweep: Path, name: str, finished: Sequence[FinishedQuestion], ended: bool = True, **settings: Any) -> Path:
    """A run folder as a run leaves it: settings, environment and journal, in which an attempt took 30 s and 10 s to start."""
    folder = sweep / name
    folder.mkdir(parents=True)
    config = RunConfig.of(output_dir=sweep, run_name=name, **{"val_samples": 4, **settings})
    (folder / "config.json").write_text(json.dumps(to_plain(config)))
    (folder / "environment.json").write_text(json.dumps(ENVIRONMENT))
    with Journal(folder) as journal:
        for each in finished:
            journal.begin(each.record.id, each.record.index, 1)
            for taken in each.steps:
                journal.step(each.record.id, taken)
            journal.question(each.record)
        if ended:
            journal.append("attempt", attempt=1, seconds={"total": 30.0, "start_up": 10.0})
    return folder


SEED_0 = ((0, 2), (1, 1), (2, 4))
SEED_1 = ((0, 4), (1, 3), (2, 0))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "outputs" / "votes"


@pytest.fixture
def folders(folder: Path) -> list[Path]:
    """A run that does not adapt, two seeds of sttrl with each of two votes, and slot, to which votes mean nothing."""
    return [
        run_in(folder, "none", base_only(0, 1, 2), adaptation_method="none", steps=2),
        run_in(folder, "majority-0", adapted(*SEED_0), steps=2),
        run_in(folder, "majority-1", adapted(*SEED_1), steps=2, seed=1),
        run_in(folder, "energy-0", adapted(*SEED_0, changes={1: {"status": "failed"}}), steps=2, voting_function="energy"),
        run_in(folder, "energy-1", adapted(*SEED_1), steps=2, voting_function="energy", seed=1),
        run_in(folder, "slot", adapted(*SEED_0), steps=2, adaptation_method="slot"),
    ]


def rows_of(report: SweepReport) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((report.folder / "sweep.json").read_text())["rows"]
    return rows


def lines_starting(report: SweepReport, word: str) -> list[list[str]]:
    return [line.split() for line in report.table.splitlines() if line.startswith(word)]


# Which runs are one row


def configs(*changes: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{**to_plain(RunConfig()), **each} for each in changes]


def test_what_tells_runs_apart() -> None:
    runs = configs({"run_name": "a", "lr": 0.1, "ids": ["a"]}, {"run_name": "b", "lr": 0.2, "data_dir": "d", "seed": 1, "track": ["wandb"]})
    assert differing_settings(runs) == ("ids", "lr", "seed")
    assert differing_settings(configs({})) == ()
    trained = [{"train_dataset": ["a"], "training_revision": "1" * 64}, {"train_dataset": [], "training_revision": None}]
    assert differing_settings([one | {"adaptation_method": "ttt"} | own for one, own in zip(configs({}, {}), trained, strict=True)]) == (
        "train_dataset",
    ), "a fingerprint says nothing to a reader"
    assert differing_settings(configs({"steps": 1, "voting_function": "energy"}, {"adaptation_method": "ttft"}))[0] == "adaptation_method"


def test_a_setting_that_is_one_thing_wherever_it_has_an_effect_tells_no_runs_apart() -> None:
    runs = configs(
        {"epochs": 2, "adaptation_method": "ttrl"}, {"voting_function": "energy", "energy": "semantic"}, {"adaptation_method": "slot"}
    )
    assert differing_settings(runs) == ("adaptation_method", "voting_function")


def test_settings_have_the_order_of_the_axes() -> None:
    runs = configs(*({"lr": lr, "steps": steps, "n_votes": votes} for lr in (1, 2) for steps in (1, 2) for votes in (8, 16)))
    assert differing_settings(runs) == ("lr", "steps", "n_votes")


def test_how_fast_runs_are_counts_only_where_nothing_else_tells_them_apart() -> None:
    assert differing_settings(configs({"parallel_problems": 1}, {"parallel_problems": 4, "seed": 1})) == ("seed",)
    assert differing_settings(configs({"parallel_problems": 1}, {"parallel_problems": 4})) == ("parallel_problems",)


def test_runs_that_differ_in_seed_only_are_one_row_in_the_order_of_the_runs(folders: list[Path]) -> None:
    rows = rows_of(report_sweep("votes", folders))
    assert [row["label"] for row in rows] == ["none", "sttrl, majority", "sttrl, energy", "slot"]
    assert [[run["run"] for run in row["by_seed"]] for row in rows] == [
        ["none"], ["majority-0", "majority-1"], ["energy-0", "energy-1"], ["slot"]
    ]  # fmt: skip
    assert rows[2]["settings"] == {"adaptation_method": "sttrl", "voting_function": "energy"}


def test_a_setting_without_effect_is_not_shown(folders: list[Path]) -> None:
    table = report_sweep("votes", folders)
    assert lines_starting(table, "method")[0][:2] == ["method", "voting"]
    assert [lines_starting(table, method)[0][1] for method in ("none", "sttrl", "slot")] == ["-", "majority", "-"]


# What a row says


def test_a_question_is_averaged_over_its_seeds_first(folders: list[Path]) -> None:
    row = rows_of(report_sweep("votes", folders))[1]
    before_P, after_P = [0.0, 0.25, 0.5], [0.75, 0.5, 0.5]
    ends = interval_of_gain(before_P, after_P)
    assert ends is not None
    assert row["gain_mean"] == pytest.approx(1 / 3)
    assert (row["gain_low"], row["gain_high"], row["p_value"]) == (ends.low, ends.high, p_value_of_gain(before_P, after_P))
    assert (row["base_mean"], row["adapted_mean"]) == (fmean(before_P), pytest.approx(fmean(after_P)))
    assert (row["vote_majority"], row["vote_confidence"]) == (0.0, 1.0)
    assert row["adapted_majority"] == pytest.approx((0.5 + 0.5 + 0.5) / 3), "a tie is wrong"
    assert [run["gain_mean"] for run in row["by_seed"]] == [pytest.approx(1 / 3), pytest.approx(1 / 3)]
    assert (row["seeds"], row["questions"], row["finished"], row["failed"]) == (2, 3, 6, 0)


def test_more_seeds_of_the_same_do_not_narrow_the_interval(folder: Path, tmp_path: Path) -> None:
    once = rows_of(report_sweep("once", [run_in(tmp_path / "once", "0", adapted(*SEED_0))]))[0]
    thrice = rows_of(report_sweep("votes", [run_in(folder, str(seed), adapted(*SEED_0), seed=seed) for seed in range(3)]))[0]
    names = ("gain_mean", "gain_low", "gain_high", "p_value")
    assert [once[name] for name in names] == [thrice[name] for name in names]


def test_a_question_that_one_seed_has_not_is_averaged_over_the_others(folder: Path) -> None:
    lost = adapted(*SEED_1)
    lost[0] = dataclasses.replace(lost[0], record=dataclasses.replace(lost[0].record, polls={}, status="failed", stop=None))
    row = rows_of(report_sweep("votes", [run_in(folder, "0", adapted(*SEED_0)), run_in(folder, "1", lost, seed=1)]))[0]
    assert row["gain_mean"] == pytest.approx(fmean([0.5, 0.25, 0.0]))
    assert row["gain_mean"] == pytest.approx(row["adapted_mean"] - row["base_mean"])


def test_a_run_that_does_not_adapt_has_its_base_and_no_gain(folders: list[Path]) -> None:
    report = report_sweep("votes", folders)
    row = rows_of(report)[0]
    assert row["base_mean"] == 0.25
    assert {row[name] for name in ("gain_mean", "gain_low", "p_value", "adapted_mean", "adapted_majority", "vote_majority")} == {None}
    assert lines_starting(report, "none")[0] == ["none", "-", ".250", *"------", "0", "6.7", "1", "0"]


def test_what_a_question_costs(folders: list[Path], tmp_path: Path) -> None:
    row = rows_of(report_sweep("votes", folders))[1]
    assert (row["tokens_per_question"], row["seconds_per_question"]) == (50.0, pytest.approx(2 * 20 / 6))
    broken_off = report_sweep("broken", [run_in(tmp_path / "broken", "0", adapted(*SEED_0), ended=False)])
    assert rows_of(broken_off)[0]["seconds_per_question"] is None


def test_what_adapting_made_of_wrong_first_votes(folder: Path) -> None:
    """The first vote of the second question elects what is wrong; slot holds no vote."""
    mixed = adapted(*SEED_0)
    mixed[1] = dataclasses.replace(mixed[1], steps=(step(0, [WRONG]),))
    runs = [
        run_in(folder, "0", mixed),
        run_in(folder, "1", adapted(*SEED_1), seed=1),
        run_in(folder, "slot", [dataclasses.replace(each, steps=()) for each in adapted(*SEED_0)], adaptation_method="slot"),
    ]
    report = report_sweep("votes", runs)
    row = rows_of(report)[0]
    assert (row["right_first"], row["right_base"], row["right_adapted"]) == (5, pytest.approx(1.25 / 5), pytest.approx(3.25 / 5))
    assert (row["wrong_first"], row["wrong_base"], row["wrong_adapted"]) == (1, 0.25, 0.25)
    assert rows_of(report)[1]["right_base"] is None
    assert lines_starting(report, "method")[1] == ["method", "right", "base", "adapted", "wrong", "base", "adapted"]
    assert lines_starting(report, "sttrl")[1] == ["sttrl", "5", ".250", ".650", "1", ".250", ".250"]
    assert [len(line) for line in lines_starting(report, "slot")][1:] == [12], "only the table of the votes with the same tokens"


def test_the_adapted_policy_above_the_votes_with_the_same_tokens(folders: list[Path]) -> None:
    """By hand: over two seeds each question is elected right in one of two by the adapted policy; the base's majority is always wrong, its
    confidence vote always right."""
    report = report_sweep("votes", folders)
    row = rows_of(report)[1]
    ends, same = interval_of_gain([0.0] * 3, [0.5] * 3), interval_of_gain([1.0] * 3, [0.5] * 3)
    assert ends is not None and same is not None
    above = [row[f"above_vote_{end}"] for end in ("mean", "low", "high", "p")]
    assert above == [0.5, ends.low, ends.high, p_value_of_gain([0.0] * 3, [0.5] * 3)]
    below = [row[f"above_confidence_{end}"] for end in ("mean", "low", "high", "p")]
    assert below == [-0.5, same.low, same.high, p_value_of_gain([1.0] * 3, [0.5] * 3)]
    assert rows_of(report)[0]["above_vote_mean"] is None, "a run that does not adapt takes no tokens"
    assert any(
        line.split()[-9:] == ["maj@k", "vote", "above", "vote", "p", "conf.", "above", "conf.", "p"] for line in report.table.splitlines()
    )
    shown = next(line for line in report.table.splitlines() if "+.500 [" in line and "-.500 [" in line)
    assert shown.split()[2:5] == [".500", ".000", "+.500"]


def test_failed_questions_are_counted_and_keep_their_base(folders: list[Path]) -> None:
    report = report_sweep("votes", folders)
    assert (report.bad, report.total) == (1, 18)
    row = rows_of(report)[2]
    assert row["failed"] == 1
    assert row["by_seed"][0]["gain_mean"] == pytest.approx(1 / 3)


def test_runs_without_labels(folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "own.jsonl"
    data.write_text("")
    report = report_sweep("votes", [run_in(folder, "0", adapted(*SEED_0), dataset=str(data))])
    row = rows_of(report)[0]
    assert {row[name] for name in ("base_mean", "vote_majority", "gain_mean", "p_value")} == {None}
    assert row["tokens_per_question"] == 50.0
    assert "1 of 1 runs have no labels" in report.table
    assert "no run has a gain" in (folder / "sweep.svg").read_text()


# The table


def test_the_table_of_a_sweep(folders: list[Path]) -> None:
    report = report_sweep("votes", folders)
    lines = report.table.splitlines()
    assert lines[0] == "sweep votes: 6 runs, 3 questions each"
    assert lines[2].split() == [
        "method", "voting", "base", "vote", "conf.", "adapted", "gain", "p", "maj@k", "tokens", "seconds", "seeds", "failed",
    ]  # fmt: skip
    assert lines[4].startswith("sttrl   majority  .250  .000  1.00   .583     +.333 [")
    assert lines[4].split()[-5:] == [".500", "50", "6.7", "2", "0"]
    assert max(map(len, lines)) <= SWEEP_WIDTH


def test_rows_are_compared_to_a_baseline_question_by_question(folders: list[Path]) -> None:
    table = report_sweep("votes", folders, baseline="slot").table.splitlines()
    start = next(number for number, line in enumerate(table) if "adapted, above" in line)
    lines = [line.split() for line in table[start : start + 5]]
    # By question: slot .5, .25, 1.0; none, which adapts nothing, 0, .25, .5; sttrl over its two seeds .75, .5, .5.
    assert lines[0] == ["adapted,", "above", "4", "p"]
    assert lines[1][:2] == ["1", "-.333"] and lines[2][:2] == ["2", ".000"] and lines[4][:3] == ["4", "-", "-"]
    assert "Row 4 is the baseline (slot" in "\n".join(table)
    assert "baseline" not in report_sweep("votes", folders).table


def test_what_it_costs_stands_below_where_there_is_no_room_beside(folder: Path) -> None:
    runs = [
        run_in(folder, "a", adapted(*SEED_0), min_agreement=0.125, stop_agreement=0.75),
        run_in(folder, "b", adapted(*SEED_0), reward="self_certainty", min_agreement=0.25),
    ]
    lines = report_sweep("votes", runs).table.splitlines()
    assert lines[2].split()[-7:] == ["base", "vote", "conf.", "adapted", "gain", "p", "maj@k"]
    assert lines[6].split() == ["stop_agreement", "min_agreement", "reward", "tokens", "seconds", "seeds", "failed"]
    assert lines[7].split() == ["0.75", "0.125", "agreement", "50", "6.7", "1", "0"]
    assert max(map(len, lines)) <= SWEEP_WIDTH


def test_numbers_stand_for_labels_that_leave_no_room(folder: Path) -> None:
    runs = [run_in(folder, name, adapted(*SEED_0), prompt_format=f"{'long ' * 40}{name} {{question}}") for name in ("a", "b")]
    lines = report_sweep("votes", runs).table.splitlines()
    assert lines[2].startswith("1: long long") and max(map(len, lines)) <= SWEEP_WIDTH
    shown = [tuple(line.split()[:2]) for line in lines if line[:1] in "12" and "[" in line]
    assert shown == [("1", ".250"), ("2", ".250"), ("1", ".333"), ("2", ".333")]


def test_a_label_leaves_out_what_the_preset_says(folder: Path) -> None:
    given: dict[str, dict[str, Any]] = {
        "a": {}, "b": {"reward": "random", "voting_function": "confidence"}, "c": {"preset": "scrl", "adaptation_method": "sttrl"},
        "d": {"preset": "ddrl"}, "e": {"preset": "guard", "guard": ("frs",)}, "f": {"adaptation_method": "none"},
    }  # fmt: skip
    runs = [
        run_in(folder, name, adapted(*SEED_0), **{"n_votes": 16, "n_train": 8, "lora_rank": 16, **settings})
        for name, settings in given.items()
    ]
    labels = [row["label"] for row in rows_of(report_sweep("votes", runs))]
    assert labels[0].startswith("sttrl, majority") and labels[1].startswith("sttrl, confidence") and "random" in labels[1]
    assert labels[2].startswith("sttrl, scrl") and "majority" not in labels[2] and "grpo" not in labels[2]
    assert labels[3].startswith("ddrl") and "balanced" not in labels[3]
    assert labels[4].startswith("guard, ") and "guard frs" in labels[4] and labels[5] == "none"
    assert len(set(labels)) == len(labels)


def test_values_are_short_where_that_leaves_them_apart(folder: Path) -> None:
    apart = [run_in(folder, name, adapted(*SEED_0), model=f"org/{name}", lr=lr) for name, lr in (("m", 1e-3), ("n", None))]
    assert [row["label"] for row in rows_of(report_sweep("votes", apart))] == ["m, lr 0.001", "n"]
    alike = [run_in(folder, name, adapted(*SEED_0), model=f"{name}/m") for name in ("x", "y")]
    assert [row["label"] for row in rows_of(report_sweep("votes", alike))] == ["x/m", "y/m"]
    switches = [run_in(folder, str(on), adapted(*SEED_0), continuous=on, ids=ids) for on, ids in ((True, ("a", "b")), (False, ()))]
    assert [row["label"] for row in rows_of(report_sweep("votes", switches))] == ["ids a+b, continuous yes", "ids none, continuous no"]


# The files


def test_the_files_of_a_sweep(folders: list[Path], folder: Path) -> None:
    report = report_sweep("votes", folders, Path("configs/sweeps/votes.yaml"))
    assert report.folder == folder
    assert {"sweep.md", "sweep.json", "sweep.csv", "sweep.png", "sweep.svg"} == {file.name for file in folder.iterdir() if file.is_file()}
    assert all((each / "report.html").exists() for each in folders)
    page = (folder / "sweep.md").read_text()
    assert f"```\n{report.table}\n```" in page
    assert "`configs/sweeps/votes.yaml`" in page
    assert "2 cores" in page and "no CUDA, float32" in page and "torch 2.13.0" in page and "vllm" not in page
    assert "dataset arithmetic-demo, steps 2, val_samples 4, model builtin/SmolLM2-135M-Instruct;" in page
    assert (folder / "sweep.png").read_bytes().startswith(b"\x89PNG")


def test_a_page_without_a_file_and_an_environment(folder: Path) -> None:
    run = run_in(folder, "0", adapted(*SEED_0))
    (run / "environment.json").unlink()
    report_sweep("votes", [run])
    page = (folder / "sweep.md").read_text()
    assert "From: 1 runs" in page and "not noted" in page


def test_a_line_a_run(folders: list[Path], folder: Path) -> None:
    report_sweep("votes", folders)
    lines = list(csv.DictReader((folder / "sweep.csv").read_text().splitlines()))
    assert [line["run"] for line in lines] == [each.name for each in folders]
    assert list(lines[0])[:4] == ["run", "adaptation_method", "voting_function", "seed"]
    assert (lines[2]["seed"], float(lines[2]["gain_mean"])) == ("1", pytest.approx(1 / 3))
    assert (lines[0]["gain_mean"], float(lines[0]["base_mean"])) == ("", 0.25)


def test_the_same_runs_give_the_same_bytes(folders: list[Path], folder: Path) -> None:
    found = []
    for _ in range(2):
        report_sweep("votes", folders)
        found.append({file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()})
    assert found[0] == found[1]


def test_a_row_a_line_in_the_picture(folders: list[Path], folder: Path) -> None:
    report_sweep("votes", folders)
    picture = (folder / "sweep.svg").read_text()
    assert all(f">{label}<" in picture for label in ("sttrl, majority", "sttrl, energy", "slot"))
    assert ">none<" not in picture, "no gain to draw"


@pytest.mark.parametrize("values", [(0.003, 0.0003, 0.001), (1.0, 0.5, 2.0), (0.0, 0.5)])
def test_one_number_is_an_axis(folder: Path, values: Sequence[float]) -> None:
    report_sweep("rates", [run_in(folder, str(value), adapted(*SEED_0), lr=value) for value in values])
    picture = (folder / "sweep.svg").read_text()
    assert all(f">{value:g}<" in picture for value in values) and ">lr<" in picture
    assert "lr 0" not in picture


def test_text_that_reads_as_mathematics_is_drawn_as_it_is(folder: Path) -> None:
    report_sweep("a", [run_in(folder, str(number), adapted(*SEED_0), model=f"$x_{number}$") for number in range(2)])
    assert ">$x_1$<" in (folder / "sweep.svg").read_text()


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="not a run folder"):
        report_sweep("votes", [tmp_path / "nothing"])


# The page


def test_the_page_explains_every_number() -> None:
    keys = [key for cell in re.findall(r"^\| (`[^|]*) \| [^|]*\| [^|]* \|$", PAGE, re.MULTILINE) for key in re.findall(r"`(\w+)`", cell)]
    assert keys == [field.name for field in dataclasses.fields(SweepScore)]


def test_the_example_of_the_page_is_a_sweep(tmp_path: Path) -> None:
    example = re.search(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert example
    file = tmp_path / "a.yaml"
    file.write_text(example[1])
    runs = configs_of(read_sweep(file), ["--output_dir", "outputs"])
    assert runs[0].run.output_dir / str(runs[0].run.run_name) == Path("outputs/votes/ttft-majority-seed0")
