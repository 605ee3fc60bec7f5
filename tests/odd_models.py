"""Model folders that are unlike the tiny model in one thing: another architecture, another size, or damage."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tiny_model import STOP_IDS, VOCABULARY, tiny_tokenizer
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

WEIGHTS = "model.safetensors"


def saved(network: PreTrainedModel, folder: Path) -> Path:
    """A folder with this network, in bfloat16, and the tiny model's tokenizer."""
    network.generation_config.eos_token_id = list(STOP_IDS)
    network.to(torch.bfloat16).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def gpt2(folder: Path) -> Path:
    """GPT-2 in small: its configuration has other names, its linear layers are transposed, and it trains with dropout."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        settings = GPT2Config(
            vocab_size=len(VOCABULARY), n_positions=512, n_embd=64, n_layer=2, n_head=2,
            initializer_range=0.2, bos_token_id=1, eos_token_id=2,
        )  # fmt: skip
        return saved(GPT2LMHeadModel(settings), folder)


def llama(folder: Path, **changes: Any) -> Path:
    """A Llama of one layer."""
    values: dict[str, Any] = {
        "vocab_size": len(VOCABULARY), "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 32, "max_position_embeddings": 512, "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    return saved(LlamaForCausalLM(LlamaConfig(**values | changes)), folder)


def t5(folder: Path) -> Path:
    """An encoder-decoder model."""
    settings = T5Config(vocab_size=len(VOCABULARY), d_model=32, d_kv=16, d_ff=32, num_layers=1, num_heads=2, decoder_start_token_id=0)
    return saved(T5ForConditionalGeneration(settings), folder)


def configured(tiny: Path, folder: Path, **changes: Any) -> Path:
    """The tiny model with other settings in config.json."""
    shutil.copytree(tiny, folder)
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return folder


def damaged(tiny: Path, folder: Path, damage: Callable[[bytes], bytes]) -> Path:
    """The tiny model after something happened to its file of weights."""
    shutil.copytree(tiny, folder)
    (folder / WEIGHTS).write_bytes(damage((folder / WEIGHTS).read_bytes()))
    return folder


def misshapen(tiny: Path, folder: Path) -> Path:
    """The tiny model with a matrix that does not fit: only who loads it can tell."""
    shutil.copytree(tiny, folder)
    weights = load_file(folder / WEIGHTS)
    weights["model.layers.1.mlp.up_proj.weight"] = torch.zeros(12, 64, dtype=torch.bfloat16)
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    return folder
