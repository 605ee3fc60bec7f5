"""Why a model cannot be used, said before any process is started: its configuration, its weights, its vocabulary."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from safetensors import SafetensorError, safe_open

from sttrl.engine.base import AdapterShape, EngineSettings
from sttrl.errors import EngineError, UsageError
from sttrl.types import TrainableModule

GENERATES = ("CausalLM", "LMHead", "ConditionalGeneration")
"""Parts of the names of architectures that put out text; others are encoders, classifiers or bare networks."""
QUANTISED = ("quantization_config", "compression_config")
CPU_HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
"""What vLLM's attention computes on CPU (``CPUAttentionBackend.get_supported_head_sizes``)."""
DROPOUT = re.compile("dropout|pdrop")
TEXT_SECTIONS = ("text_config", "decoder", "generator")
"""Where a configuration of several models keeps its language model's (``get_text_config``)."""
INDEX = "model.safetensors.index.json"
CHOOSE = "Choose a causal language model, such as Qwen/Qwen2.5-Math-1.5B."


def load_config(folder: Path, trust_remote_code: bool = False) -> Any:
    """The configuration as transformers reads it. Raises `EngineError` where transformers cannot."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except Exception as error:  # a class of its own checks each type of model, and raises what it likes
        reason = str(error).strip().split("\n")[0].split(". ")[0] or type(error).__name__
        raise EngineError(f"transformers cannot read {folder}/config.json: {reason}.", CHOOSE) from error


def text_config(folder: Path) -> Any:
    """The part of the configuration that describes the language model; as it is written, where transformers does not know its type."""
    from transformers import PretrainedConfig

    try:
        return load_config(folder).get_text_config(decoder=True)
    except EngineError:
        written = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return PretrainedConfig.from_dict(written.get("text_config") or written)


def head_size(text: Any) -> int | None:
    """Numbers of an attention head's key, where the configuration says so."""
    heads, width, own = (getattr(text, name, None) for name in ("num_attention_heads", "hidden_size", "head_dim"))
    return int(own) if own else int(width) // int(heads) if heads and width else None


def for_verl(config: Any) -> dict[str, Any]:
    """What verl must read in the configuration instead of what is there, for models such as GPT-2.

    Heads of keys that are not named are as many as the heads; a causal language model is known by its architecture's name; and there is
    no dropout, because the learner's log-probs must be the sampler's.
    """
    text = config.get_text_config(decoder=True)
    heads = getattr(text, "num_attention_heads", None)
    changes = {name: 0.0 for name, value in text.to_dict().items() if DROPOUT.search(name) and isinstance(value, float) and value > 0}
    if heads is not None and getattr(text, "num_key_value_heads", None) is None:
        changes["num_key_value_heads"] = heads
    section = next((name for name in TEXT_SECTIONS if getattr(config, name, None) is text), None)
    renamed = {"architectures": [f"{config.model_type}ForCausalLM"]} if any("LMHead" in name for name in config.architectures or ()) else {}
    return renamed | ({section: changes} if section and changes else changes)


def check_kind(folder: Path, trust_remote_code: bool) -> None:
    """Raises `EngineError` for a model that does not continue a text, or whose weights are quantised."""
    config = load_config(folder, trust_remote_code)
    kind, names = config.model_type, config.architectures or ()
    if config.is_encoder_decoder:
        raise EngineError(f"{folder} is an encoder-decoder model ({kind}); prompt and response must be one sequence.", CHOOSE)
    if names and not any(word in names[0] for word in GENERATES):
        raise EngineError(f"{folder} is no causal language model: its architecture is {names[0]}.", CHOOSE)
    for part in (config, config.get_text_config(decoder=True)):
        for name in QUANTISED:
            if found := getattr(part, name, None):
                raise EngineError(
                    f"{folder} has quantised weights ({dict(found).get('quant_method', name)}), which cannot be trained.",
                    "Choose the same model in bfloat16, float16 or float32.",
                )


def check_fit(settings: EngineSettings, prompts: Sequence[Sequence[int]]) -> None:
    """Raises `EngineError` where this engine cannot load the weights or compute the model, or a prompt has tokens that it does not know.

    Raises `UsageError` where the model has not what the adapter is to change.
    """
    folder = Path(settings.model_folder)
    check_weights(folder)
    text = text_config(folder)
    size, vocabulary = head_size(text), getattr(text, "vocab_size", None)
    if settings.device == "cpu" and size is not None and size not in CPU_HEAD_SIZES:
        raise EngineError(
            f"{folder} has attention heads of size {size}; on CPU vLLM computes {', '.join(map(str, CPU_HEAD_SIZES))}.",
            "Choose another model, or use --device cuda.",
        )
    if settings.adapter is not None:
        check_adapter(folder, settings.adapter, text)
    highest = max((token for prompt in prompts for token in prompt), default=0)
    if vocabulary is not None and highest >= vocabulary:
        raise EngineError(
            f"The tokenizer of {folder} is larger than the model: a prompt has token {highest}, and the model has {vocabulary} of them.",
            "Use the tokenizer the model was trained with, or resize the model's embeddings (resize_token_embeddings) and save it.",
        )


def check_adapter(folder: Path, shape: AdapterShape, text: Any) -> None:
    """Raises `UsageError` where the model has no such modules, or ties the head that is to be trained to its embeddings."""
    modules, tied = module_names(folder), bool(getattr(text, "tie_word_embeddings", False))
    for name in shape.targets:
        if tied and name in get_args(TrainableModule):
            raise UsageError(
                f"--lora_targets {name}: {folder} ties its head to the embeddings, and a change of one of them fits no shared matrix.",
                "Use --lora_trainable_modules embed_tokens, or give the model a head of its own with `shrink --untie`.",
            )
        if name not in modules:
            raise UsageError(
                f"--lora_targets {name}: {folder} has no such layer.",
                f"It has {', '.join(sorted(modules - set(get_args(TrainableModule) if tied else ())))}.",
            )
    if "lm_head" in shape.trainable_modules and tied:
        raise UsageError(
            f"--lora_trainable_modules lm_head: {folder} ties its head to the embeddings.",
            "Use --lora_trainable_modules embed_tokens, which trains both as one.",
        )
    for missing in sorted(set(shape.trainable_modules) - modules):
        raise UsageError(
            f"--lora_trainable_modules {missing}: {folder} has no module of that name.",
            "Leave it out, or train all weights with --lora_rank 0.",
        )


def module_names(folder: Path) -> set[str]:
    """The last part of the names of the modules whose weight is a matrix."""
    found = set()
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="numpy") as weights:
            names = [name for name in weights.keys() if name.endswith(".weight")]  # noqa: SIM118 - not a dict
            found |= {name.split(".")[-2] for name in names if len(weights.get_slice(name).get_shape()) == 2}
    return found


def check_weights(folder: Path) -> None:
    """Raises `EngineError` for a file of weights that is cut, damaged or missing."""
    index = folder / INDEX
    try:
        named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()) if index.exists() else set()
        missing = sorted(name for name in named if not (folder / name).exists())
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise EngineError(f"{index} is cut or damaged: {' '.join(str(error).split())}.", "Download the model again.") from error
    if missing:
        raise EngineError(f"{folder} lacks {', '.join(missing[:3])}, which {INDEX} names.", "Download the model again.")
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, framework="numpy"):
                pass
        except (SafetensorError, OSError) as error:
            raise EngineError(f"{file} is cut or damaged: {' '.join(str(error).split())}.", "Download the model again.") from error
