"""Steps of training by `sttrl.trm.steps.train_step`: beside those of the originals, in parts, and with losses that are not finite."""

from __future__ import annotations

import itertools
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from trm_golden import ROOT, close, folders, generator, part, sizes_of
from trm_runs import assert_same, checkpoints, command, config, metrics, rules, settings, steps, trained, weights

from sttrl.errors import DivergedError
from sttrl.trm.config import config_of
from sttrl.trm.losses import act_loss
from sttrl.trm.model import build_model
from sttrl.trm.opened import Data, open_data
from sttrl.trm.ranks import Ranks
from sttrl.trm.state import own_tensors, shared_tensors
from sttrl.trm.steps import Learner, accumulated, train_step
from sttrl.trm.train import learner_of, make_learner


def recorded_learner(case: Path) -> Learner:
    """The learner of a recorded run, from its settings and its first weights."""
    recorded = json.loads((case / "config.json").read_text())
    # Settings of the fork have the key entity, those of the original have none.
    settings = config_of(recorded["config"])
    model = build_model(settings.model_arch, sizes_of(recorded["metadata"]), generator=generator())
    model.load_state_dict(part(load_file(case / "init.safetensors"), ROOT))
    return learner_of(
        model, settings, settings.total_steps(recorded["metadata"]["total_groups"], recorded["metadata"]["mean_puzzle_examples"])
    )


@pytest.mark.parametrize("case", folders("train"), ids=lambda case: case.name)
def test_train_step_does_what_the_original_s_does(case: Path) -> None:
    results, recorded = json.loads((case / "results.json").read_text()), load_file(case / "steps.safetensors")
    learner = recorded_learner(case)
    assert learner.total_steps == results["total_steps"]
    before = {name: value.clone() for name, value in learner.model.state_dict().items()}
    last = len(results["steps"])
    for number, expected in enumerate(results["steps"], start=1):
        batch = part(recorded, f"step{number}.batch.")
        tasks = batch.pop("task_identifiers", None)
        if tasks is not None:
            learner.task_of = torch.full((learner.model.sizes.num_puzzle_identifiers,), -1, dtype=torch.int32)
            learner.task_of[batch["puzzle_identifiers"].long()] = tasks.to(torch.int32)
        found = train_step(learner, batch, Ranks())
        known = {name: value for name, value in expected.items() if name.startswith("train/")}
        if case.name.endswith("freeze_weights") or (results["freeze_trunk_until_step"] or 0) >= number:
            known.pop("train/grad_trunk_norm", None)  # the originals go on adding up gradients of a frozen trunk
            assert found["train/grad_trunk_norm"] == 0
        assert {name: found[name] for name in known} == pytest.approx(known, rel=1e-4, abs=1e-5)
        assert learner.carries[0].halted.tolist() == expected["_halted"]
        assert learner.carries[0].steps.tolist() == expected["_steps"]
        if number in (1, last):
            state = learner.model.state_dict()
            for name, value in part(recorded, f"step{number}.after.{ROOT}").items():
                close(state[name], value, 1e-4)
            for name in results[f"unchanged_after_step{number}"]:
                assert torch.equal(state[name.removeprefix(ROOT)], before[name.removeprefix(ROOT)])
    averages = part(recorded, f"final.ema.{ROOT}")
    assert bool(averages) == (learner.ema is not None)
    for name, value in averages.items():
        assert learner.ema is not None
        close(learner.ema.shadow[name] if name in learner.ema.shadow else learner.model.state_dict()[name], value, 1e-4)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rules(tmp_path_factory.mktemp("rules"))[0]


def begun(data: Path, folder: Path, *changes: str) -> tuple[Learner, Data]:
    """A learner before its first step."""
    settings = config(data, folder, *changes)
    opened = open_data(settings, Ranks(), lambda line: None)
    return make_learner(settings, opened, None, Ranks(), lambda line: None), opened


def batches(data: Data) -> Iterator[dict[str, torch.Tensor]]:
    for _, arrays in data.train.train():
        yield {name: torch.from_numpy(values) for name, values in arrays.items()}


@pytest.mark.parametrize("change", [(), ("arch.lora_rank=2", "ema=false"), ("freeze_weights=true", "freeze_weights_epochs=1")], ids=str)
def test_parts_of_a_batch_give_the_step_of_the_whole(data: Path, tmp_path: Path, change: tuple[str, ...]) -> None:
    found: dict[int, list[dict[str, float]]] = {}
    states: dict[int, dict[str, torch.Tensor]] = {}
    for parts in (1, 2, 4):
        learner, opened = begun(data, tmp_path, f"gradient_accumulation={parts}", *change)
        with torch.no_grad():
            learner.model.q_head.bias.fill_(1.0)  # so that sequences halt early, except those that explore
        found[parts] = [train_step(learner, batch, Ranks()) for batch in itertools.islice(batches(opened), 12)]
        assert len(learner.carries) == parts
        states[parts] = learner.model.state_dict() | (learner.ema.state_dict() if learner.ema is not None else {})
    assert {line["train/steps"] for line in found[1]} - {0.0, 1.0, 3.0}, "some halt early, some explore"
    for parts in (2, 4):
        for one, whole in zip(found[parts], found[1], strict=True):
            assert one == pytest.approx(whole, rel=1e-5, abs=1e-5)
        for name, value in states[1].items():
            close(states[parts][name], value, 1e-5)


def everything(learner: Learner) -> dict[str, Any]:
    """All that a step may change, as values of their own."""
    return {
        "step": learner.step,
        "random": learner.generator.get_state().tolist(),
        **{name: value.tolist() for name, value in shared_tensors(learner).items()},
        **{name: value.tolist() for name, value in own_tensors(learner).items()},
    }


def spoil_loss(learner: Learner, patch: pytest.MonkeyPatch) -> None:
    def infinite(*arguments: Any) -> Any:
        loss, metrics, preds = act_loss(*arguments)
        return loss * math.inf, metrics | {"lm_loss": metrics["lm_loss"] * math.inf}, preds

    patch.setattr("sttrl.trm.steps.act_loss", infinite)


def spoil_trunk(learner: Learner, patch: pytest.MonkeyPatch) -> None:
    def spoiled(learner: Learner, *rest: Any) -> Any:
        found = accumulated(learner, *rest)
        gradient = learner.trunk_parameters[3].grad
        assert gradient is not None
        gradient.view(-1)[1] = math.nan
        return found

    patch.setattr("sttrl.trm.steps.accumulated", spoiled)


def spoil_rows(learner: Learner, patch: pytest.MonkeyPatch) -> None:
    def spoiled(learner: Learner, *rest: Any) -> Any:
        found = accumulated(learner, *rest)
        assert learner.model.table is not None
        gradient = learner.model.table.pending[-1][1].grad
        assert gradient is not None
        gradient[0, 0] = -math.inf
        return found

    patch.setattr("sttrl.trm.steps.accumulated", spoiled)


@pytest.mark.parametrize("spoil", [spoil_loss, spoil_trunk, spoil_rows])
@pytest.mark.parametrize("done", [0, 3])
def test_a_step_that_is_not_finite_changes_nothing(data: Path, tmp_path: Path, spoil: Any, done: int) -> None:
    (learner, opened), (other, _) = begun(data, tmp_path), begun(data, tmp_path)
    given = batches(opened)
    for batch in itertools.islice(given, done):
        train_step(learner, batch, Ranks())
        train_step(other, batch, Ranks())
    before, batch = everything(learner), next(given)
    with pytest.MonkeyPatch.context() as patch:
        spoil(learner, patch)
        with pytest.raises(DivergedError, match=f"Step {done + 1}: .*not applied"):
            train_step(learner, batch, Ranks())
    if done:
        assert everything(learner) == before
    assert all(parameter.grad is None for _, parameter in learner.model.trunk_parameters())
    assert train_step(learner, batch, Ranks()) == train_step(other, batch, Ranks())
    assert everything(learner) == everything(other)


def test_a_run_that_met_such_a_step_goes_on_with_the_same_command(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = trained(data, tmp_path / "plain")
    calls = iter(range(1000))

    def once(*arguments: Any) -> Any:
        loss, metrics, preds = act_loss(*arguments)
        return (loss * math.nan if next(calls) == 12 else loss), metrics, preds

    monkeypatch.setattr("sttrl.trm.steps.act_loss", once)
    with pytest.raises(DivergedError, match="Step 13"):
        trained(data, tmp_path / "met", "state_every_n_steps=4")
    assert steps(tmp_path / "met") == list(range(1, 13))
    assert_same(trained(data, tmp_path / "met", "state_every_n_steps=4"), expected)


def test_exploding_weights_end_the_program_in_one_line(data: Path, tmp_path: Path) -> None:
    arguments = ["trm", "train", *settings(data, tmp_path / "run", "lr=1e30", "lr_warmup_steps=0", "state_every_n_steps=1")]
    done = command(arguments)
    lines = done.stderr.splitlines()
    assert done.returncode == 5 and "Traceback" not in done.stderr
    assert "not finite" in lines[-1] and "not applied" in lines[-1]
    assert all(value.isfinite().all() for value in weights(tmp_path / "run").values())


def test_only_what_is_trained_has_gradients_and_an_optimiser(data: Path, tmp_path: Path) -> None:
    """Peer fault 7: with embeddings only, gradients of the trunk were never set to zero and their memory was kept."""
    learner, opened = begun(data, tmp_path, "freeze_weights=true", "ema=false")
    first = {name: value.clone() for name, value in learner.model.state_dict().items()}
    for batch in itertools.islice(batches(opened), 3):
        assert train_step(learner, batch, Ranks())["train/grad_trunk_norm"] == 0
        assert all(parameter.grad is None for _, parameter in learner.model.trunk_parameters())
    assert learner.trunk is None
    changed = [name for name, value in learner.model.state_dict().items() if not torch.equal(value, first[name])]
    assert changed == ["puzzle_emb.weights"]


@pytest.mark.parametrize("change", ["arch.no_ACT_continue=false", "arch.loss.loss_type=softmax_cross_entropy"])
def test_settings_with_which_the_original_crashes_run_here(data: Path, tmp_path: Path, change: str) -> None:
    """Peer faults 2 and 3: no_ACT_continue=False and softmax_cross_entropy crashed."""
    folder = trained(data, tmp_path, change, "max_steps=2")
    assert steps(folder) == [1, 2] and checkpoints(folder) == ["step_2.safetensors"]
    assert ("train/q_continue_loss" in metrics(folder)[1]) == (change == "arch.no_ACT_continue=false")


def test_two_test_sets_have_metrics_of_their_own(data: Path, tmp_path: Path) -> None:
    """Peer fault 6: a second test path was a KeyError, and its metrics had the names of the first's."""
    again = tmp_path / "again"
    shutil.copytree(data, again)
    folder = trained(data, tmp_path / "run", f"data_paths_test=[{data},{again}]", "max_steps=1")
    found = metrics(folder)[-1]
    assert {"all.exact_accuracy", "all1.exact_accuracy", "ARC/pass@1"} <= set(found)


def test_outputs_are_kept_in_a_run_folder_that_is_new(data: Path, tmp_path: Path) -> None:
    """Peer fault 8: eval_save_outputs failed while the run folder did not exist."""
    folder = trained(data, tmp_path / "deep" / "run", "eval_save_outputs=[preds,logits]", "max_steps=1", "evaluate_before=true")
    assert {path.name for path in folder.glob("*all_preds*")} == {
        f"step_{step}_all_preds.0{ending}" for step in (0, 1) for ending in ("", ".safetensors")
    }
