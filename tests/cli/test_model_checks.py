"""Models that cannot work are refused before any process starts, in one line with the cause and what would work."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import odd_models
import pytest
import ray
from live_engine import settings_for
from saying import Said, complaint

from sttrl.engine.base import AdapterShape
from sttrl.engine.model_checks import check_fit, for_verl, load_config
from sttrl.engine.models import cached_numbers, context_length, stop_token_ids
from sttrl.errors import EngineError, UsageError

Make = Callable[[Path, Path], Path]
GPTQ = {"quant_method": "gptq", "bits": 4}
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 269060552\n"


def without_a_shard(tiny: Path, folder: Path) -> Path:
    odd_models.configured(tiny, folder)
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors").rename(folder / shards["a"])
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    return folder


REFUSED: dict[str, tuple[Make, tuple[str, ...]]] = {
    "encoder-decoder": (lambda tiny, folder: odd_models.t5(folder), ("encoder-decoder model (t5)", "Choose a causal language model")),
    "classifier": (
        lambda tiny, folder: odd_models.configured(tiny, folder, architectures=["LlamaForSequenceClassification"]),
        ("no causal language model", "LlamaForSequenceClassification"),
    ),
    "unknown": (
        lambda tiny, folder: odd_models.configured(tiny, folder, model_type="llama-of-tomorrow"),
        ("transformers cannot read", "llama-of-tomorrow"),
    ),
    "quantised": (
        lambda tiny, folder: odd_models.configured(tiny, folder, quantization_config=GPTQ),
        ("quantised weights (gptq)", "Choose the same model in bfloat16"),
    ),
    "cut": (
        lambda tiny, folder: odd_models.damaged(tiny, folder, lambda data: data[: len(data) // 2]),
        ("model.safetensors is cut or damaged", "Download the model again."),
    ),
    "cut in its header": (lambda tiny, folder: odd_models.damaged(tiny, folder, lambda data: data[:100]), ("is cut or damaged",)),
    "a pointer of git": (lambda tiny, folder: odd_models.damaged(tiny, folder, lambda data: POINTER), ("is cut or damaged",)),
    "a shard is missing": (without_a_shard, ("lacks model-00002-of-00002.safetensors", "Download the model again.")),
    "head size": (lambda tiny, folder: odd_models.llama(folder, head_dim=20), ("heads of size 20", "32, 64, 80", "--device cuda")),
    "tokenizer": (
        lambda tiny, folder: odd_models.llama(folder, vocab_size=20),
        ("tokenizer", "larger than the model", "has 20 of them", "resize_token_embeddings"),
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_model_that_cannot_work_is_refused_before_anything_starts(what: str, tiny_model: Path, tmp_path: Path, capsys: Said) -> None:
    make, messages = REFUSED[what]
    model, running = make(tiny_model, tmp_path / "model"), ray.is_initialized()
    flags = ("--dataset", "arithmetic-demo", "--limit", "1", "--device", "cpu", "--max_response_tokens", "16")
    capsys.readouterr()
    said = complaint(capsys, *flags, "--model", str(model), code=4)
    assert all(message in said for message in messages), said
    assert ray.is_initialized() == running


ADAPTERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "no such layer": (("--lora_targets", "q_proj", "wqkv"), ("--lora_targets wqkv", "has no such layer", "down_proj, gate_proj, k_proj")),
    "the embeddings as a layer": (
        ("--lora_targets", "embed_tokens"),
        ("--lora_targets embed_tokens", "--lora_trainable_modules embed_tokens"),
    ),
    "a tied head": (
        ("--lora_trainable_modules", "lm_head"),
        ("ties its head to the embeddings", "Use --lora_trainable_modules embed_tokens"),
    ),
}


@pytest.mark.parametrize("what", ADAPTERS)
def test_an_adapter_that_does_not_fit_the_model_is_refused_before_anything_starts(what: str, tiny_model: Path, capsys: Said) -> None:
    flags, messages = ADAPTERS[what]
    running = ray.is_initialized()
    usual = ("--dataset", "arithmetic-demo", "--limit", "1", "--device", "cpu", "--max_response_tokens", "16")
    said = complaint(capsys, *usual, "--model", str(tiny_model), *flags, code=2)
    assert all(message in said for message in messages), said
    assert ray.is_initialized() == running


def test_embeddings_that_have_another_name_are_refused(tmp_path: Path) -> None:
    settings = settings_for(odd_models.gpt2(tmp_path / "gpt2"), adapter=AdapterShape(rank=4, alpha=8, trainable_modules=("embed_tokens",)))
    with pytest.raises(UsageError, match="embed_tokens: .* has no module of that name"):
        check_fit(settings, [(1,)])


def test_a_tokenizer_with_tokens_that_no_prompt_has_is_used(tmp_path: Path) -> None:
    """Gemma 3 with 1 billion parameters is published like this."""
    settings = settings_for(odd_models.llama(tmp_path / "model", vocab_size=40))
    check_fit(settings, [(1, 2, 39)])
    with pytest.raises(EngineError, match="a prompt has token 40, and the model has 40"):
        check_fit(settings, [(1, 2), (1, 40)])


def test_a_head_size_is_no_matter_on_a_gpu(tmp_path: Path) -> None:
    check_fit(settings_for(odd_models.llama(tmp_path / "model", head_dim=20), device="cuda"), [(1,)])


def written(folder: Path, **settings: Any) -> Path:
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize(
    ("settings", "length", "numbers"),
    [
        (
            {"model_type": "gemma3", "text_config": {"model_type": "gemma3_text", "max_position_embeddings": 999, "num_hidden_layers": 3}},
            999,
            2 * 3 * 4 * 256,
        ),
        ({"model_type": "gpt2", "n_positions": 77, "n_layer": 2, "n_head": 3, "n_embd": 96}, 77, 2 * 2 * 3 * 32),
        ({"text_config": {"max_position_embeddings": 55}}, 55, None),
        ({"model_type": "llama-of-tomorrow", "max_position_embeddings": 44}, 44, None),
        ({"model_type": "mamba"}, None, None),
    ],
    ids=["nested, with defaults", "other names", "nested, no type", "unknown type", "no limit"],
)
def test_the_language_model_s_part_of_a_configuration_is_read(
    settings: dict[str, Any], length: int | None, numbers: int | None, tmp_path: Path
) -> None:
    written(tmp_path, **settings)
    assert (context_length(tmp_path), cached_numbers(tmp_path)) == (length, numbers)


def test_the_end_of_a_turn_is_found_in_the_language_model_s_part(tmp_path: Path) -> None:
    class Tokenizer:
        eos_token_id = 3

    written(tmp_path, model_type="gemma3", eos_token_id=[4, 5], text_config={"model_type": "gemma3_text", "eos_token_id": 9})
    assert stop_token_ids(tmp_path, Tokenizer()) == (3, 4, 5, 9)


def test_what_verl_is_told_of_a_model(tmp_path: Path, tiny_model: Path) -> None:
    """verl asks every model for its heads of keys, and a learner with dropout would not score what was sampled."""
    assert for_verl(load_config(odd_models.gpt2(tmp_path / "gpt2"))) == {
        "architectures": ["gpt2ForCausalLM"], "num_key_value_heads": 2,
        "attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0, "summary_first_dropout": 0.0,
    }  # fmt: skip
    assert for_verl(load_config(tiny_model)) == {}
    nested = {"model_type": "gemma3", "text_config": {"model_type": "gemma3_text", "attention_dropout": 0.1}}
    assert for_verl(load_config(written(tmp_path, **nested))) == {"text_config": {"attention_dropout": 0.0}}
