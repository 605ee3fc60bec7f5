"""The commands of the recursive model, one after the other, and what they say of bad input."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hub_stand_in import hub
from trm_data_sets import files
from trm_runs import SMALL, checkpoints, config, metrics, steps, surroundings, trained

from sttrl.cli import main
from sttrl.report.recursion import read_evaluations
from sttrl.trm.checkpoints import find_checkpoint
from sttrl.trm.data.format import read_identifiers
from sttrl.trm.evaluation_files import evaluation_folder
from sttrl.trm.opened import open_data
from sttrl.trm.ranks import Ranks
from sttrl.trm.train import make_learner

Lines = Callable[..., tuple[int, str, str]]
TASK = {
    "train": [{"input": [[1, 2], [3, 4]], "output": [[2, 1], [4, 3]]}, {"input": [[5, 6]], "output": [[6, 5]]}],
    "test": [{"input": [[7, 8], [1, 2]]}],
}


@pytest.fixture(autouse=True, scope="module")
def without_syncs() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The data sets of the 20 rules and of the 4 held-out ones, by the command."""
    folder = tmp_path_factory.mktemp("data")
    sizes = ["--pairs", "2", "--demos", "4", "--tests", "2", "--train_puzzles", "20", "--test-puzzles", "4", "--num-aug", "1"]
    assert main(["trm", "build", "demo", "--output-dir", str(folder), *sizes]) == 0
    assert {path.name for path in folder.iterdir()} == {"sudoku4", "rules", "rules-held-out"}
    return folder / "rules", folder / "rules-held-out"


@pytest.fixture(scope="module")
def run(data: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training by the command."""
    folder = tmp_path_factory.mktemp("run") / "rules"
    assert main(["trm", "train", *SMALL, f"data_paths={data[0]}", f"checkpoint_path={folder}", "--run_name", "rules"]) == 0
    return folder


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Lines:
    """Runs a command: its exit code, what it printed, and its errors."""

    def command(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(word) for word in arguments])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return command


def fails(say: Lines, *arguments: object) -> tuple[int, str]:
    """The exit code of a command that fails, and its one line."""
    code, out, err = say(*arguments)
    lines = [line for line in err.splitlines() if line.startswith("error")]
    assert len(lines) == 1 and err.splitlines()[-1] == lines[0] and "Traceback" not in err + out, err
    return code, lines[0]


def hashes(folder: Path) -> dict[str, str]:
    return {name: hashlib.sha256(content).hexdigest() for name, content in files(folder).items()}


def test_a_training_leaves_its_report_and_files(run: Path, say: Lines) -> None:
    code, out, _ = say("report", run)
    assert code == 0 and "ARC/pass@1" in out and "all.exact_accuracy" in out and "\n20    plain" in out
    names = {path.name for path in run.iterdir()}
    assert {
        "report.html",
        "metrics.jsonl",
        "journal.jsonl",
        "all_config.yaml",
        "config.json",
        "identifiers.json",
        "step_20",
        "state",
    } <= names
    page = (run / "report.html").read_text()
    assert "<svg" in page and "arch.hidden_size" in page


def test_a_checkpoint_is_evaluated_as_it_was_in_training(run: Path, data: tuple[Path, Path], tmp_path: Path, say: Lines) -> None:
    before = hashes(run)
    code, out, _ = say("trm", "evaluate", run, data[0], "--out", tmp_path / "out", "rollouts=2", "shuffle_identities=true")
    assert code == 0 and all(row in out for row in ("plain", "ptrm", "shuffled identities", "Memorising: ARC/pass@1 is "))
    rows = {each.row: each for each in read_evaluations(tmp_path / "out")}
    last = read_evaluations(run)[-1]
    assert rows["plain"].metrics == pytest.approx(last.metrics) and rows["plain"].right == last.right
    assert set(rows) == {"plain", "ptrm", "shuffled identities"}
    assert rows["shuffled identities"].metrics["all.lm_loss"] != rows["plain"].metrics["all.lm_loss"]
    assert {path.name for path in (tmp_path / "out").glob("evaluator_*")} == {
        "evaluator_ARC_step_0", "evaluator_ARC_ptrm_step_0", "evaluator_ARC_shuffled_identities_step_0",
    }  # fmt: skip
    assert hashes(run) == before


MODES = ("full", "embeddings", "embeddings_then_full", "lora")


@pytest.mark.parametrize("mode", MODES)
def test_adaptation_in_every_mode(run: Path, data: tuple[Path, Path], tmp_path: Path, mode: str, say: Lines) -> None:
    before = hashes(run)
    code, out, _ = say("trm", "adapt", run, data[1], "--mode", mode, "--steps", 8, "--out", tmp_path, "lr=1e-2", "puzzle_emb_lr=1e-1")
    assert code == 0 and "before" in out and "after" in out and f"submission: {tmp_path}/submission.json" in out
    folder = tmp_path / "all"
    assert hashes(run) == before, "the base is never changed"
    assert steps(folder) == list(range(1, 9)) and [each.step for each in read_evaluations(folder)] == [0, 8]
    base, adapted = find_checkpoint(run).state(), find_checkpoint(folder).state()
    changed = {
        name.rpartition("inner.")[2] for name in base if base[name].shape != adapted[name].shape or not base[name].equal(adapted[name])
    }
    assert "puzzle_emb.weights" in changed
    expected = {"embeddings": set(), "lora": {"embed_tokens.embedding_weight"}}
    if mode in expected:
        assert changed - {"puzzle_emb.weights"} == expected[mode]
    else:
        assert len(changed) == len(base) - 2, "everything but the starts of the latents"
    if mode == "embeddings_then_full":
        frozen = [line["train/grad_trunk_norm"] == 0 for line in metrics(folder) if "train/lr" in line]
        assert frozen == [True] * 2 + [False] * 6
    assert (folder / "step_8_lora.safetensors").is_file() == (mode == "lora")


def logits_of(checkpoint: Path, data: Path) -> torch.Tensor:
    """What a checkpoint says of the first batch of a test split."""
    found = find_checkpoint(checkpoint)
    assert found.config is not None
    opened = open_data(found.config, Ranks(), lambda line: None)
    model = make_learner(found.config, opened, found, Ranks(), lambda line: None).model.eval()
    assert opened.test is not None and found.config.data_paths == (str(data),)
    batch = {name: torch.from_numpy(values) for name, values in next(opened.test.test())[1].items()}
    with torch.no_grad():
        carry, outputs = model(model.initial_carry(batch), batch)
        return model(carry, batch)[1].logits


def test_a_lora_lies_beside_its_base_and_can_be_merged(run: Path, data: tuple[Path, Path], tmp_path: Path, say: Lines) -> None:
    assert say("trm", "adapt", run, data[1], "--mode", "lora", "--steps", 8, "--out", tmp_path, "lr=1e-2")[0] == 0
    folder = tmp_path / "all"
    code, out, _ = say("trm", "merge", folder, "--out", tmp_path / "merged" / "step_8")
    assert code == 0 and "LoRA" in out
    whole = logits_of(folder, data[1])
    assert (whole - logits_of(tmp_path / "merged", data[1])).abs().max() < 1e-4
    assert (whole - logits_of(folder / "step_8_lora.safetensors", data[1])).abs().max() == 0
    adapter = folder / "step_8_lora.safetensors"
    assert say("trm", "merge", adapter, "--out", tmp_path / "same" / "step_8")[0] == 0
    one, other = (find_checkpoint(tmp_path / name).state() for name in ("merged", "same"))
    assert one.keys() == other.keys() and all(one[name].equal(other[name]) for name in one)
    code, _, err = say("trm", "adapt", adapter, data[1], "--mode", "full", "--steps", 1, "--out", tmp_path / "on")
    assert code == 0 and f"begins from {adapter}, trained on {run}" in err and "merged into the weights" in err
    assert say("trm", "evaluate", tmp_path / "merged", data[1], "--out", tmp_path / "again")[0] == 0
    right = [read_evaluations(place)[-1].right for place in (folder, tmp_path / "again")]
    assert right[0] == right[1]
    assert fails(say, "trm", "merge", run, "--out", tmp_path / "none")[0] == 3


def test_chunks_give_one_submission(run: Path, data: tuple[Path, Path], tmp_path: Path, say: Lines) -> None:
    arguments = ("trm", "adapt", run, data[1], "--chunk", 3, "--steps", 6, "--out", tmp_path)
    code, out, _ = say(*arguments)
    assert code == 0 and "chunk_1" in out and "chunk_2" in out
    held_out = set(read_identifiers(data[1])[1:])
    parts = [
        set(json.loads((evaluation_folder(tmp_path / name, "ARC", 6) / "submission.json").read_text())) for name in ("chunk_1", "chunk_2")
    ]
    assert len(parts[0]) == 3 and len(parts[1]) == 1 and parts[0] | parts[1] == held_out
    assert set(json.loads((tmp_path / "submission.json").read_text())) == held_out
    settings = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("chunk_1", "chunk_2")]
    assert [each["global_batch_size"] for each in settings] == [8, 4], "the demonstrations of a chunk are 12 and 4"
    assert [steps(tmp_path / name)[-1] for name in ("chunk_1", "chunk_2")] == [6, 6]
    before = hashes(tmp_path / "chunk_1" / "state")
    assert say(*arguments)[0] == 0 and hashes(tmp_path / "chunk_1" / "state") == before, "what is finished is found again"


def kaggle(folder: Path, subset: str, tasks: dict[str, object]) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"arc_{subset}_challenges.json").write_text(json.dumps(tasks))
    (folder / f"arc_{subset}_solutions.json").write_text(json.dumps(dict.fromkeys(tasks, [[[8, 7], [2, 1]]])))


@pytest.fixture(scope="module")
def arc_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of ARC's grids that was trained on two tasks, without an evaluator."""
    folder = tmp_path_factory.mktemp("arc")
    kaggle(folder, "training", {"a": TASK, "b": {**TASK, "train": TASK["train"][:1]}})
    build = [
        "--input-file-prefix",
        f"{folder}/arc",
        "--output-dir",
        f"{folder}/set",
        "--subsets",
        "training",
        "--test-set-name",
        "training",
    ]
    assert main(["trm", "build", "arc", *build, "--num-aug", "2"]) == 0
    small = ("arch.H_cycles=1", "epochs=8", "eval_interval=8", "global_batch_size=2", "max_steps=2", "evaluators=[]")
    return trained(folder / "set", folder / "run", *small)


def test_an_adaptation_takes_its_steps_where_batches_cut_puzzles(arc_run: Path, tmp_path: Path, say: Lines) -> None:
    """A puzzle that does not fit into a batch loses its rest, so that an epoch has fewer steps than its examples would fill."""
    kaggle(tmp_path, "training", {name: {**TASK, "train": TASK["train"] + TASK["train"][:1]} for name in "xyz"})
    file = tmp_path / "arc_training_challenges.json"
    assert say("trm", "adapt", arc_run, file, "--steps", 7, "--num-aug", 1, "--out", tmp_path / "out")[0] == 0
    assert steps(tmp_path / "out" / "all") == list(range(1, 8))


@pytest.mark.parametrize("mode", ["full", "lora"])
def test_a_new_task_is_solved(arc_run: Path, tmp_path: Path, mode: str, say: Lines) -> None:
    (tmp_path / "new.json").write_text(json.dumps(TASK))
    arguments = ("trm", "solve", arc_run, tmp_path / "new.json", "--mode", mode, "--steps", 3, "--num-aug", 3, "--out", tmp_path / "out")
    code, out, err = say(*arguments)
    assert code == 0 and "new, test input 1" in out and "attempt 1" in out, err
    assert steps(tmp_path / "out" / "all") == [1, 2, 3]
    assert say(*arguments)[1] == out, "the same command finds its answers again"


def test_a_run_is_pushed(run: Path, monkeypatch: pytest.MonkeyPatch, say: Lines) -> None:
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with hub() as here:
        monkeypatch.setenv("HF_ENDPOINT", here.address)
        code, out, _ = say("trm", "push", run, "us/rules", "--token", "hf_right")
        kept = here.repos["us/rules"]["branches"]["main"]
    assert code == 0 and "us/rules" in out
    assert {"step_20", "step_20.safetensors", "all_config.yaml", "identifiers.json", "README.md"} <= set(kept)
    assert f"{read_evaluations(run)[-1].metrics['all.accuracy']:.3f}".lstrip("0") in kept["README.md"].decode()
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert fails(say, "trm", "push", run, "us/rules")[0] == 2


def test_bad_input_is_one_line(run: Path, arc_run: Path, data: tuple[Path, Path], tmp_path: Path, say: Lines) -> None:
    ragged, task = tmp_path / "ragged.json", tmp_path / "task.json"
    ragged.write_text(json.dumps({**TASK, "train": [{"input": [[1, 2], [3]], "output": [[1]]}]}))
    task.write_text(json.dumps(TASK))
    train = ("trm", "train", *SMALL, f"checkpoint_path={tmp_path}/run")
    cases: tuple[tuple[tuple[object, ...], int, str], ...] = (
        (("trm",), 2, "needs a command"),
        (("trm", "tain"), 2, "no command 'tain'"),
        (("trm", "build", "rubik"), 2, "needs a kind"),
        ((*train, f"data_paths={data[0]}", "puzle_emb_lr=1"), 2, "puzzle_emb_lr"),
        ((*train, f"data_paths={data[0]}", "eval_interval=0"), 2, "eval_interval is 0"),
        ((*train, f"data_paths={data[0]}", "global_batch_size=4000", "epochs=2"), 3, "fill no batch"),
        ((*train, f"data_paths={tmp_path}/none"), 3, "none"),
        (("trm", "train", "--config", "nowhere"), 2, "nowhere"),
        ((*train, f"data_paths={data[0]}", f"load_checkpoint={tmp_path}/none"), 3, "no such checkpoint"),
        ((*train, f"data_paths={data[0]}", f"load_checkpoint={run}", "arch.hidden_size=32"), 3, "has the shape"),
        ((*train, f"data_paths={data[0]}", f"load_checkpoint={run}", "arch.L_layers=2"), 3, "lacks"),
        ((*train, f"data_paths={data[0]}", "tasks=[t9]"), 3, "t9"),
        (("trm", "evaluate", run, tmp_path / "none"), 3, "none"),
        (("trm", "evaluate", tmp_path, data[0]), 3, "no checkpoint step_N"),
        (("trm", "evaluate", arc_run, data[0], "--out", tmp_path / "e"), 3, "has the shape"),
        (("trm", "adapt", run, data[1], "--chunk", 0, "--out", tmp_path / "a"), 2, "--chunk is 0"),
        (("trm", "adapt", run, data[1], "--steps", 0, "--out", tmp_path / "a"), 2, "--steps is 0"),
        (("trm", "solve", arc_run, ragged, "--out", tmp_path / "s"), 3, "ragged"),
        (("trm", "solve", arc_run, tmp_path / "none.json", "--out", tmp_path / "s"), 3, "none.json"),
        (("trm", "solve", run, task, "--out", tmp_path / "t"), 3, "has the shape"),
        (("trm", "push", tmp_path, "us/rules", "--token", "x"), 3, "no checkpoint"),
    )  # fmt: skip
    for arguments, expected, words in cases:
        code, line = fails(say, *arguments)
        assert (code, words in line) == (expected, True), (arguments, code, line)


def test_a_damaged_test_split_is_an_error_and_not_a_run_without_one(data: tuple[Path, Path], tmp_path: Path, say: Lines) -> None:
    """Peer fault 9: any error of the test loader was taken for "NO EVAL DATA FOUND"."""
    damaged = tmp_path / "damaged"
    shutil.copytree(data[0], damaged)
    np.save(damaged / "test" / "all__puzzle_indices.npy", np.zeros(2, dtype=np.int32))
    code, line = fails(say, "trm", "train", *SMALL, f"data_paths={damaged}", f"checkpoint_path={tmp_path}/run")
    assert code == 3 and str(damaged) in line
    shutil.rmtree(damaged / "test")
    code, _, err = say("trm", "train", *SMALL, f"data_paths={damaged}", f"checkpoint_path={tmp_path}/run", "max_steps=1")
    assert code == 0 and "no test split" in err


BUILD = """
import sys
from pathlib import Path
from sttrl.trm.data.arguments import BuildArc
from sttrl.trm.data.commands import build
subsets = ("evaluation", "training")
build(BuildArc(input_file_prefix=sys.argv[1], output_dir=Path(sys.argv[2]), subsets=subsets, test_set_name="evaluation", num_aug=3))
"""


def test_a_data_set_does_not_depend_on_the_hash_seed(tmp_path: Path) -> None:
    """Peer fault 4: with a test subset first, the order of splits was that of a set of texts."""
    for subset in ("training", "evaluation"):
        kaggle(tmp_path, subset, {f"{subset}{number}": TASK for number in range(3)})
    for seed in ("0", "2"):
        arguments = [sys.executable, "-c", BUILD, str(tmp_path / "arc"), str(tmp_path / seed)]
        subprocess.run(arguments, env=surroundings(PYTHONHASHSEED=seed), check=True, capture_output=True)
    assert hashes(tmp_path / "0") == hashes(tmp_path / "2")


def test_demonstrations_of_evaluated_tasks_are_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "arc"
    kaggle(folder, "training", {"a": TASK, "b": TASK})
    kaggle(folder, "evaluation", {"c": TASK})
    build = ["--input-file-prefix", f"{folder}/arc", "--output-dir", f"{folder}/set", "--subsets", "training", "evaluation"]
    assert main(["trm", "build", "arc", *build, "--test-set-name", "evaluation", "--num-aug", "2"]) == 0
    names = read_identifiers(folder / "set")
    seen: dict[bool, set[str]] = {}
    for left_out in (False, True):
        opened = open_data(
            config(folder / "set", tmp_path / "run", "global_batch_size=2", f"leave_out_test_demos={left_out}"), Ranks(), print
        )
        batches = zip(range(12), opened.train.train(), strict=False)
        seen[left_out] = {names[row].partition("|||")[0] for _, (_, batch) in batches for row in batch["puzzle_identifiers"]}
        assert opened.test is not None and len(list(opened.test.test())) > 0
    assert seen == {False: {"a", "b", "c"}, True: {"a", "b"}}


def test_settings_choose_the_tasks_evaluations_and_checkpoints_of_a_run(data: tuple[Path, Path], tmp_path: Path) -> None:
    folder = trained(
        data[0], tmp_path / "run", "max_steps=5", "evaluate_before=true", "tasks=[t0c0123,t1c0123]", "global_batch_size=4",
        "eval_interval=1", "checkpoint_every_n_steps=2", "checkpoint_every_eval=false", "min_eval_interval=2",
    )  # fmt: skip
    assert steps(folder) == [1, 2, 3, 4], "two tasks of two pairs are a batch an epoch"
    assert [each.step for each in read_evaluations(folder)] == [0, 3, 4], "the first two are left out, as min_eval_interval says"
    assert checkpoints(folder) == ["step_2.safetensors", "step_4.safetensors"]
    assert sorted(json.loads((evaluation_folder(folder, "ARC", 4) / "submission.json").read_text())) == ["t0c0123", "t1c0123"]


@pytest.mark.slow
def test_steps_are_logged_to_tensorboard(data: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TENSORBOARD_DIR", raising=False)
    folder = trained(data[0], tmp_path / "run", "max_steps=2", "track=tensorboard")
    events = list((folder / "tensorboard").rglob("events.out.*"))
    assert events and b"train/lm_loss" in events[0].read_bytes()


def test_an_evaluation_that_is_not_finite_is_told_as_such(run: Path, data: tuple[Path, Path], tmp_path: Path, say: Lines) -> None:
    spoiled = tmp_path / "spoiled"
    shutil.copytree(run, spoiled)
    state = torch.load(spoiled / "step_20", weights_only=True)  # noqa: TID251 - weights_only
    state[next(name for name in state if name.endswith("lm_head.weight"))].fill_(float("nan"))
    torch.save(state, spoiled / "step_21")
    code, out, err = say("trm", "evaluate", spoiled / "step_21", data[0], "--out", tmp_path / "out")
    assert code == 0 and "Traceback" not in err
    assert read_evaluations(tmp_path / "out")[-1].cells["all.lm_loss"] == "not finite"
