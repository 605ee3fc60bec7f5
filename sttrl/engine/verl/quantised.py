"""The frozen base of an adapter in 8 or 4 bits, by bitsandbytes: QLoRA (arXiv 2305.14314), as the published ARC systems train.

Only the learner's base has fewer bits. The sampler keeps its base in 16 or 32 bits and adds the adapter to that. The published systems do
the same when they merge an adapter after training.
"""

from __future__ import annotations

import bitsandbytes as bnb
import torch

from sttrl.engine.base import BaseDtype

HEAD = "lm_head"


def quantised(module: torch.nn.Module, base_dtype: BaseDtype, compute: torch.dtype) -> torch.nn.Module:
    """The model with its linear layers but the head in 8 or 4 bits; embeddings and norms stay. PEFT recognises it by its flag."""
    for name, layer in list(module.named_modules()):
        if isinstance(layer, torch.nn.Linear) and HEAD not in name:
            owner, attribute = module.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2]
            setattr(owner, attribute, _int8(layer) if base_dtype == "int8" else _nf4(layer, compute))
    module.is_loaded_in_8bit, module.is_loaded_in_4bit = base_dtype == "int8", base_dtype == "nf4"
    return module


def _nf4(layer: torch.nn.Linear, compute: torch.dtype) -> torch.nn.Module:
    made = bnb.nn.Linear4bit(layer.in_features, layer.out_features, layer.bias is not None, compute_dtype=compute, quant_type="nf4")
    made.weight = bnb.nn.Params4bit(layer.weight.data, requires_grad=False, quant_type="nf4")
    return _with_bias(made, layer)


def _int8(layer: torch.nn.Linear) -> torch.nn.Module:
    made = bnb.nn.Linear8bitLt(layer.in_features, layer.out_features, layer.bias is not None, has_fp16_weights=False)
    made.weight = bnb.nn.Int8Params(layer.weight.data, requires_grad=False, has_fp16_weights=False)
    return _with_bias(made, layer)


def _with_bias(made: torch.nn.Module, layer: torch.nn.Linear) -> torch.nn.Module:
    """The layer with the bias of the old one, quantised by moving it to its device."""
    if layer.bias is not None:
        made.bias = torch.nn.Parameter(layer.bias.data, requires_grad=False)
    return made.to(layer.weight.device)
