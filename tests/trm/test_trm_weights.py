"""Files of weights: names and shapes of the original, its loading cases, tables of another size, LoRA, and files that do not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from trm_golden import arch_of, close, folders, generator, golden, sizes_of

from sttrl.errors import DataError, UsageError
from sttrl.trm.arch import ArchConfig, Sizes
from sttrl.trm.lora import adapter_state, merge_state
from sttrl.trm.model import TinyRecursiveModel, build_model
from sttrl.trm.weights import ROOT, Loaded, RowNames, load_into, plain_name, read_weights, write_weights

SMALL: dict[str, Any] = {"hidden_size": 32, "num_heads": 2, "L_layers": 1, "H_cycles": 1, "L_cycles": 1, "puzzle_emb_len": 1}
LORA = {"lora_rank": 1, "lora_alpha": 16.0}


def small(rows: int = 6, seed: int = 0, **changes: Any) -> TinyRecursiveModel:
    """A small model whose every weight, row and factor is drawn."""
    arch = ArchConfig(**{**SMALL, "forward_dtype": "float32", **changes})
    model = build_model(arch, Sizes(vocab_size=12, seq_len=9, num_puzzle_identifiers=rows), generator=generator(seed))
    with torch.no_grad():
        for value in (*model.parameters(), *([] if model.table is None else [model.table.weights])):
            value.copy_(torch.randn(value.shape, generator=generator(seed + 1)))
    return model.eval()


def trunk_equal(first: TinyRecursiveModel, second: TinyRecursiveModel) -> bool:
    known = dict(second.named_parameters())
    return all(torch.equal(value, known[name]) for name, value in first.named_parameters())


def yaml_of(file: Path) -> Any:
    import yaml

    return yaml.safe_load(file.read_text())


KEYS = sorted(golden("checkpoint").glob("*/keys/*.json"))


@pytest.mark.parametrize("file", KEYS, ids=lambda file: f"{file.parts[-3]}-{file.stem}")
def test_a_model_has_the_weights_of_the_published_one(file: Path) -> None:
    facts = json.loads(file.read_text())
    arch = arch_of(yaml_of(file.parents[1] / "all_config" / f"{file.stem}.yaml")["arch"])
    sizes = sizes_of({**facts, "num_puzzle_identifiers": facts["num_puzzle_identifiers_used_here"]})
    model = build_model(arch, sizes, generator=generator())
    parameters = dict(model.named_parameters())
    assert sum(value.numel() for value in parameters.values()) == facts["num_params_logged"]
    assert sum(value.numel() for value in parameters.values() if value.requires_grad) == facts["trainable"]
    found = {
        ROOT + name: {
            "shape": list(value.shape),
            "dtype": str(value.dtype).removeprefix("torch."),
            "kind": "parameter" if name in parameters else "buffer",
            "trainable": name in parameters and parameters[name].requires_grad,
        }
        for name, value in model.state_dict().items()
    }
    assert found == facts["state_dict"]


RULES = [
    (folder, case)
    for folder in folders("checkpoint")
    if (folder / "load_rules.json").exists()
    for case in json.loads((folder / "load_rules.json").read_text())
]


@pytest.mark.parametrize(("folder", "case"), RULES, ids=[f"{folder.name}-{case['case']}" for folder, case in RULES])
def test_a_file_loads_whatever_its_prefix_and_its_table(folder: Path, case: dict[str, Any]) -> None:
    """Where the original loads, the table is its own; where it crashes, or silently loads nothing, ours loads too."""
    tables = load_file(folder / "load_rules_tables.safetensors")
    before, after = tables[f"{case['case']}.table_before"], tables.get(f"{case['case']}.table_after")
    lora = any("lora" in name for name in case["model_keys"])
    rows = 6 if after is None else len(after)
    source, model = small(len(before), seed=3), small(rows, seed=5, **(LORA if lora else {}))
    state = {name: before if name.endswith("puzzle_emb.weights") else source.state_dict()[plain_name(name)] for name in case["ckpt_keys"]}
    report = load_into(model, state)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in source.state_dict().items() if name != "puzzle_emb.weights")
    assert model.table is not None
    expected = after if case["trunk_loaded"] else before.mean(0).expand(rows, -1) if rows != len(before) else before
    close(model.table.weights, expected, 1e-6)
    assert any("taken by number" in line if rows == len(before) else "the mean row" in line for line in report.lines)
    assert any("start anew" in line for line in report.lines) == lora


@pytest.mark.parametrize("compiled", [True, False])
def test_what_is_written_is_read_again_in_both_forms(tmp_path: Path, compiled: bool) -> None:
    model = small(forward_dtype="bfloat16")
    write_weights(tmp_path / "runs" / "step_7", model.state_dict(), compiled=compiled)
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["step_7", "step_7.safetensors"]
    for name in ("step_7", "step_7.safetensors"):
        state = read_weights(tmp_path / "runs" / name)
        assert all(key.startswith("_orig_mod.model.inner." if compiled else "model.inner.") for key in state)
        assert state[("_orig_mod." if compiled else "") + "model.inner.H_init"].dtype is torch.bfloat16
        other = small(seed=9, forward_dtype="bfloat16")
        assert load_into(other, state) == Loaded(("Puzzle table: 6 rows, taken by number.",))
        assert all(torch.equal(value, other.state_dict()[key]) for key, value in model.state_dict().items())


def test_starts_of_latents_are_written_as_the_original_has_them(tmp_path: Path) -> None:
    """In bfloat16 where nothing is lost by it, whatever the run computes in."""
    model = small()
    for drawn, dtype in ((model.H_init, torch.bfloat16), (torch.full((32,), 0.1), torch.float32)):
        write_weights(tmp_path / "step_1", model.state_dict() | {"H_init": drawn}, compiled=False)
        written = read_weights(tmp_path / "step_1")["model.inner.H_init"]
        assert drawn.dtype is torch.float32 and written.dtype is dtype
        assert torch.equal(written.float(), drawn)


@pytest.mark.parametrize(
    "prefix", ["", "model.inner.", "_orig_mod.model.inner.", "model._orig_mod.inner.", "module.model.inner.", "inner."]
)
def test_any_prefix_is_the_same_model(prefix: str) -> None:
    source, model = small(seed=1), small(seed=2)
    load_into(model, {prefix + name: value for name, value in source.state_dict().items()})
    assert trunk_equal(source, model)


def test_rows_are_found_by_name() -> None:
    source, model = small(4, seed=1), small(3, seed=2)
    assert source.table is not None and model.table is not None
    names = RowNames(old=["<blank>", "a", "b", "c"], new=["<blank>", "new", "b"])
    report = load_into(model, source.state_dict(), names=names)
    old = source.table.weights
    close(model.table.weights, torch.stack([old[0], old.mean(0), old[2]]), 1e-6)
    assert report.lines == ("Puzzle table: 2 of 3 rows found by name, 1 start from the mean row; 2 rows of the file left out.",)
    with pytest.raises(DataError, match="4 puzzle rows and 3 names"):
        load_into(model, source.state_dict(), names=RowNames(old=["a", "b", "c"], new=["a", "b", "c"]))


def test_new_rows_can_be_drawn_around_the_mean() -> None:
    source, model = small(50, seed=1), small(4000, seed=2)
    assert source.table is not None and model.table is not None
    report = load_into(model, source.state_dict(), reinit="normal", generator=generator(1))
    assert "drawn" in report.lines[0]
    old, new = source.table.weights, model.table.weights
    close(new.mean(0), old.mean(0), 0.1)
    close(new.std(0), old.std(0, unbiased=False), 0.1)
    with pytest.raises(UsageError, match="puzzle_emb_reinit_strategy"):
        load_into(small(3), source.state_dict(), reinit="median")  # type: ignore[arg-type]


def test_a_table_without_a_place_and_a_place_without_a_table_are_reported() -> None:
    bare = {"puzzle_emb_ndim": 0, "puzzle_emb_len": 0}
    assert "left out" in load_into(small(**bare), small().state_dict()).lines[0]
    assert "stay as they are" in load_into(small(), small(**bare).state_dict()).lines[0]


def without(state: dict[str, torch.Tensor], *names: str) -> dict[str, torch.Tensor]:
    return {name: value for name, value in state.items() if name not in names}


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (lambda: {"weight": torch.ones(2)}, "No weight of the file"),
        (lambda: without(small().state_dict(), "lm_head.weight"), "lacks lm_head.weight"),
        (lambda: without(small().state_dict(), "H_init"), "lacks H_init"),
        (lambda: small(L_layers=2).state_dict(), "no place for L_level.layers.1"),
        (lambda: small(hidden_size=64).state_dict(), "in the file and"),
        (lambda: small(puzzle_emb_ndim=16).state_dict(), "puzzle table has the shape"),
        (lambda: small(**LORA).state_dict(), "LoRA"),
        (lambda: small().state_dict() | {"model.inner.H_init": torch.ones(32)}, "twice"),
    ],
)
def test_a_file_that_does_not_fit_is_an_error_and_changes_nothing(state: Any, words: str) -> None:
    model = small(seed=8)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(DataError, match=words):
        load_into(model, state())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_file_of_base_and_lora_loads_and_can_be_merged() -> None:
    tuned, batch = small(seed=1, **LORA), {"inputs": torch.arange(9)[None] % 12, "puzzle_identifiers": torch.tensor([2])}
    expected = answers(tuned, batch)
    merged = merge_state(tuned.state_dict(), 16.0)
    assert set(merged) == set(small().state_dict())
    for model, state, alpha in (
        (small(seed=2, **LORA), tuned.state_dict(), None),
        (small(seed=2), tuned.state_dict(), 16.0),
        (small(seed=2), merged, None),
    ):
        load_into(model, state, lora_alpha=alpha)
        close(answers(model, batch), expected, 1e-4)


def answers(model: TinyRecursiveModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        return model(model.initial_carry(batch), batch)[1].logits


def test_an_adapter_is_kept_beside_its_base() -> None:
    base, tuned = small(seed=1), small(seed=2, **LORA)
    load_into(tuned, base.state_dict())
    adapter = adapter_state(tuned)
    assert set(adapter) == {name for name, value in tuned.named_parameters() if value.requires_grad} | {"puzzle_emb.weights"}
    again = small(seed=3, **LORA)
    load_into(again, base.state_dict() | adapter)
    assert trunk_equal(tuned, again)
    with pytest.raises(DataError, match="complete"):
        load_into(again, base.state_dict() | without(adapter, "lm_head._lora_A"))


def test_files_that_are_no_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There are no weights at"):
        read_weights(tmp_path / "step_1")
    (tmp_path / "cut").write_bytes(b"PK\x03\x04 and nothing")
    (tmp_path / "cut.safetensors").write_bytes(b"nothing")
    torch.save({"a": torch.ones(1), "optimizer": {"lr": 1}}, tmp_path / "more")
    torch.save(small(), tmp_path / "object")
    save_file({}, tmp_path / "empty.safetensors")
    for name in ("cut", "cut.safetensors", "more", "object", "empty.safetensors"):
        with pytest.raises(DataError, match=name):
            read_weights(tmp_path / name)
