"""What vLLM is given: the base bit for bit, or the base with a fork's delta, as PEFT would merge it."""

from __future__ import annotations

from pathlib import Path

import odd_models
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from sttrl.engine.merge import ADAPTER_WEIGHTS, policy_weights


def stored(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[n].dtype == b[n].dtype and torch.equal(a[n], b[n]) for n in a)


def adapter_of(model: Path, folder: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """A LoRA adapter saved by PEFT, and the weights as PEFT merges them, in float32."""
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    network = get_peft_model(network, LoraConfig(r=4, lora_alpha=10, target_modules="all-linear", bias="none"))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "lora_" in name:
                parameter.normal_(0.0, 0.3, generator=generator)
    network.save_pretrained(folder)
    return folder, dict(network.merge_and_unload().state_dict())


@pytest.fixture(scope="module")
def adapter(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    """An adapter of the tiny model."""
    return adapter_of(tiny_model, tmp_path_factory.mktemp("adapter"))


def test_the_base_is_given_as_it_is_stored(tiny_model: Path) -> None:
    assert same(dict(policy_weights(tiny_model, None)), stored(tiny_model))


def test_lora_is_merged_as_peft_merges_it(tiny_model: Path, adapter: tuple[Path, dict[str, torch.Tensor]]) -> None:
    folder, expected = adapter
    given, base = dict(policy_weights(tiny_model, folder)), stored(tiny_model)
    assert given.keys() == base.keys()
    changed = 0
    for name, weight in given.items():
        torch.testing.assert_close(weight.to(torch.bfloat16), expected[name].to(torch.bfloat16), rtol=2**-7, atol=2**-9)
        changed += not torch.equal(weight.to(torch.bfloat16), base[name])
    assert changed == 14, "seven linear layers in each of two blocks, and nothing else"


@pytest.mark.parametrize("body_alone", [False, True])
def test_gpt2_s_transposed_layers_are_merged_as_peft_merges_them(body_alone: bool, tmp_path: Path) -> None:
    """Half of its matrices are square, so no shape tells; the hub's checkpoint has names without ``transformer.``."""
    model = odd_models.gpt2(tmp_path / "model")
    folder, expected = adapter_of(model, tmp_path / "adapter")
    if body_alone:
        bare = {name.removeprefix("transformer."): weight for name, weight in stored(model).items()}
        save_file(bare, model / "model.safetensors", metadata={"format": "pt"})
    given, base = dict(policy_weights(model, folder)), stored(model)
    changed = [name for name, weight in given.items() if not torch.equal(weight.to(torch.bfloat16), base[name])]
    assert len(changed) == 8, "four linear layers in each of two blocks"
    for name, weight in given.items():
        like = expected[f"transformer.{name}" if body_alone else name]
        torch.testing.assert_close(weight.to(torch.bfloat16), like.to(torch.bfloat16), rtol=2**-7, atol=2**-9)


def test_a_zero_adapter_is_the_base(tiny_model: Path, adapter: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path) -> None:
    source = adapter[0]
    zeros = {n: torch.zeros_like(w) if "lora_B" in n else w for n, w in load_file(source / ADAPTER_WEIGHTS).items()}
    save_file(zeros, tmp_path / ADAPTER_WEIGHTS)
    (tmp_path / "adapter_config.json").write_bytes((source / "adapter_config.json").read_bytes())
    given = {n: w.to(torch.bfloat16) for n, w in policy_weights(tiny_model, tmp_path)}
    assert same(given, stored(tiny_model))


def test_full_weights_replace_the_base(tiny_model: Path, tmp_path: Path) -> None:
    other = {n: w + 1 for n, w in stored(tiny_model).items()}
    save_file(other, tmp_path / "model.safetensors")
    assert same(dict(policy_weights(tiny_model, tmp_path)), other)


def test_an_adapter_of_another_model_is_refused(tiny_model: Path, adapter: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path) -> None:
    source = adapter[0]
    strange = {n.replace("layers.1", "layers.9"): w for n, w in load_file(source / ADAPTER_WEIGHTS).items()}
    save_file(strange, tmp_path / ADAPTER_WEIGHTS)
    (tmp_path / "adapter_config.json").write_bytes((source / "adapter_config.json").read_bytes())
    with pytest.raises(AssertionError, match="without a base weight"):
        list(policy_weights(tiny_model, tmp_path))
