"""Pushing a checkpoint, against a stand-in of the hub on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from hub_stand_in import StandIn
from safetensors.torch import save_file

from sttrl.data import upload as module
from sttrl.data.upload import Destination
from sttrl.errors import DataError, UsageError
from sttrl.trm.config import as_yaml, read_config
from sttrl.trm.push import find_checkpoint, push


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with two checkpoints, the votes of both, and what must not be pushed."""
    folder = tmp_path / "run"
    folder.mkdir()
    tensors = {"_orig_mod.model.inner.lm_head.weight": torch.zeros(3, 4), "_orig_mod.model.inner.puzzle_emb.weights": torch.zeros(5, 8)}
    for step in (9, 10):
        torch.save(tensors, folder / f"step_{step}")
        save_file(tensors, folder / f"step_{step}.safetensors")
        vote = folder / f"evaluator_ARC_step_{step}"
        vote.mkdir()
        (vote / "submission.json").write_text("{}")
        rules = {"kaggle": {"value": step / 100, "numerator": step, "denominator": 100}}
        (vote / "scores.json").write_text(json.dumps({"step": step, "metrics": {"ARC/pass@2": step / 100}, "rules": rules}))
    (folder / "all_config.yaml").write_text(as_yaml(read_config(None, ["arch.L_cycles=4", "load_checkpoint=/home/me/step_723914"])))
    (folder / "identifiers.json").write_text('["<blank>", "a"]')
    first, second = {"step": 9, "all.accuracy": 0.1}, {"step": 10, "all.accuracy": 0.9, "all1.exact_accuracy": 0.5}
    lines = [{"step": 0, "num_params": 7}, first, {"step": 10, "train/lm_loss": 3.0}, second]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 1')
    for name in ("journal.jsonl", "state.safetensors", "step_10_all_preds.0", "step_10_all_preds.0.safetensors"):
        (folder / name).write_text("x")
    return folder


def test_the_newest_checkpoint_is_pushed_with_what_belongs_to_it(online: StandIn, run: Path) -> None:
    pushed = push(run, Destination(repo_id="me/trm", token="hf_right"))
    files = online.repos["me/trm"]["branches"]["main"]
    assert sorted(files) == list(pushed.files) == [
        "README.md", "all_config.yaml", "evaluator_ARC_step_10/scores.json", "evaluator_ARC_step_10/submission.json", "identifiers.json",
        "step_10", "step_10.safetensors",
    ]  # fmt: skip
    assert files["step_10"] == (run / "step_10").read_bytes()
    assert online.repos["me/trm"]["visibility"] == "private" and pushed.url == f"{online.address}/me/trm/commit/1"
    assert online.repos["me/trm"]["messages"] == ["Upload step 10"]


def test_the_card_has_the_numbers_of_the_run(online: StandIn, run: Path) -> None:
    push(run, Destination(repo_id="me/trm", token="hf_right"))
    card = online.repos["me/trm"]["branches"]["main"]["README.md"].decode()
    assert yaml.safe_load(card.split("---")[1])["library_name"] == "sttrl"
    assert "| ARC/pass@2 | 0.1 |" in card and "| all.accuracy | 0.9 |" in card and "| score/kaggle | 0.1 |" in card
    assert "| all1.exact_accuracy | 0.5 |" in card and "num_params" not in card
    assert "train/lm_loss" not in card and "12 numbers in the trunk" in card and "5 rows of 8" in card
    assert "after 10 optimiser steps" in card and "Trained from `step_723914`" in card and "/home/me" not in card
    assert "| arch.L_cycles | 4 |" in card


def test_an_older_checkpoint_has_its_own_numbers(online: StandIn, run: Path) -> None:
    pushed = push(
        run / "step_9",
        Destination(repo_id="me/trm", token="hf_right", private=False, commit_message="The old one", path_in_repo="old/", branch="b"),
    )
    assert set(pushed.files) >= {"old/README.md", "old/step_9", "old/step_9.safetensors", "old/evaluator_ARC_step_9/submission.json"}
    repo = online.repos["me/trm"]
    assert repo["visibility"] == "public" and repo["messages"] == ["The old one"] and repo["branches"]["main"] == {}
    card = repo["branches"]["b"]["old/README.md"].decode()
    assert "| ARC/pass@2 | 0.09 |" in card and "| all.accuracy | 0.1 |" in card


def test_pushing_again_goes_to_the_same_repository(online: StandIn, run: Path) -> None:
    push(run / "step_9", Destination(repo_id="me/trm", token="hf_right"))
    push(run, Destination(repo_id="me/trm", token="hf_right"))
    assert {"step_9", "step_10"} <= set(online.repos["me/trm"]["branches"]["main"])


def test_a_file_without_a_run_says_what_is_not_known(online: StandIn, tmp_path: Path) -> None:
    save_file({"lm_head.weight": torch.zeros(2)}, tmp_path / "mine.safetensors")
    push(tmp_path / "mine.safetensors", Destination(repo_id="me/trm", token="hf_right"))
    files = online.repos["me/trm"]["branches"]["main"]
    assert sorted(files) == ["README.md", "mine.safetensors"]
    assert (
        "there was no all_config.yaml" in files["README.md"].decode()
        and "Nothing: the run has no evaluation" in files["README.md"].decode()
    )


def test_without_a_token_it_says_how_to_log_in(online: StandIn, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class NoToken:
        get_token = staticmethod(lambda: None)

    monkeypatch.setattr(module, "import_module", lambda name: NoToken)
    with pytest.raises(UsageError, match=r"There is no token for the hub\. Log in with `hf auth login`, set HF_TOKEN, or give --token\."):
        push(run, Destination(repo_id="me/trm"))
    assert online.calls == []


def test_a_wrong_token_and_a_strangers_organisation_are_one_line(online: StandIn, run: Path) -> None:
    for repo, token in (("me/trm", "hf_wrong"), ("theirs/trm", "hf_right")):
        with pytest.raises(UsageError, match=f"The token may not write to {repo}: ") as caught:
            push(run, Destination(repo_id=repo, token=token))
        assert "\n" not in str(caught.value)


def test_a_hub_that_cannot_be_reached_is_one_line(online: StandIn, run: Path) -> None:
    with pytest.raises(DataError, match=r"http://127\.0\.0\.1:9 cannot be reached: "):
        push(run, Destination(repo_id="me/trm", token="hf_right", endpoint="http://127.0.0.1:9"))


@pytest.mark.parametrize("repo", ["trm", "me/trm/x", "https://huggingface.co/me/trm", ""])
def test_a_wrong_name_is_one_line(repo: str, run: Path) -> None:
    with pytest.raises(UsageError, match=r"is no repository of the hub\. Give ORGANISATION/NAME"):
        push(run, Destination(repo_id=repo, token="hf_right"))


def test_no_checkpoint_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no checkpoint"):
        find_checkpoint(tmp_path)
    with pytest.raises(DataError, match="There is no"):
        find_checkpoint(tmp_path / "nowhere")


def test_a_lora_beside_the_base_goes_with_its_step(run: Path) -> None:
    save_file({"x": torch.zeros(1)}, run / "step_10_lora.safetensors")
    assert "step_10_lora.safetensors" in find_checkpoint(run).files
    assert find_checkpoint(run / "step_10_lora.safetensors").step == 10
