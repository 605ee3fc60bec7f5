"""Cuts a model's vocabulary: embeddings, head, tokenizer, and the ids in its settings."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from sttrl.engine.model_files import head_is_tied, load_network, untie_head, write_folder

LISTS_OF_IDS = ("suppress_tokens", "begin_suppress_tokens", "bad_words_ids", "force_words_ids", "sequence_bias")
"""Generation settings that name tokens which may be gone."""


def shrink_model(
    folder: Path,
    target: Path,
    *,
    token_V: Sequence[str],
    source_V: Sequence[Sequence[int]],
    special: Sequence[str],
    begin: str | None,
    end: str,
    pad: str,
    untie: bool = False,
) -> None:
    """Write the model of ``folder`` with the vocabulary ``token_V`` to ``target``, which any run takes as a model.

    ``source_V``: for each new token the old ones whose mean embedding it gets; none: the mean of all. A head that is tied to the embeddings
    stays tied, unless ``untie`` gives it weights of its own. Raises `EngineError` for weights that cannot be loaded, `UsageError` where
    ``target`` cannot be written.
    """
    assert pad != end, "a loss that leaves out padding would leave out the end mark"
    network = load_network(folder)
    cut_vocabulary(network, source_V)
    if untie:
        untie_head(network)
    named = {"bos": begin, "eos": end, "pad": pad, "unk": pad}
    new_ids = {f"{role}_token_id": None if token is None else token_V.index(token) for role, token in named.items()}
    kept = {source[0]: number for number, source in enumerate(source_V) if len(source) == 1}
    for settings in (network.config, network.config.get_text_config(decoder=True), network.generation_config):
        _renumber(settings, new_ids, kept)
    tokenizer = small_tokenizer(token_V, special, begin, end, pad)

    def write(made: Path) -> None:
        network.save_pretrained(made)
        tokenizer.save_pretrained(made)

    write_folder(target, write)


def cut_vocabulary(network: Any, source_V: Sequence[Sequence[int]]) -> None:
    """Keep of a network's embeddings and head the rows of these tokens, in place."""
    embeddings, head = network.get_input_embeddings(), network.get_output_embeddings()
    tied = head_is_tied(network)
    rows, head_rows = (_means(layer.weight, source_V) for layer in (embeddings, head))
    bias = getattr(head, "bias", None)
    bias_rows = None if bias is None else _means(bias[:, None], source_V)[:, 0]
    network.resize_token_embeddings(len(source_V), mean_resizing=False)
    embeddings, head = network.get_input_embeddings(), network.get_output_embeddings()
    assert tied == head_is_tied(network)
    with torch.no_grad():
        embeddings.weight.copy_(rows)
        head.weight.copy_(head_rows)
        if bias_rows is not None:
            head.bias.copy_(bias_rows)


def small_tokenizer(token_V: Sequence[str], special: Sequence[str], begin: str | None, end: str, pad: str) -> Any:
    """A tokenizer that takes these texts and nothing smaller or larger; any other character becomes ``pad``."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({token: number for number, token in enumerate(token_V)}, unk_token=pad))
    long = [re.escape(token) for token in token_V if len(token) > 1 and token not in special]
    words.pre_tokenizer = pre_tokenizers.Split(Regex("|".join([*long, r"[\s\S]"])), behavior="isolated")
    words.decoder = decoders.Fuse()
    words.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    if begin is not None:
        words.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A", pair=f"{begin} $A {begin} $B", special_tokens=[(begin, token_V.index(begin))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        bos_token=begin,
        eos_token=end,
        pad_token=pad,
        unk_token=pad,
        additional_special_tokens=[token for token in special if token not in (begin, end, pad)],
        clean_up_tokenization_spaces=False,
    )


def _means(weight: torch.Tensor, source_V: Sequence[Sequence[int]]) -> torch.Tensor:
    """``[V_old, D]`` to ``[V_new, D]``. A single source is copied bit by bit."""
    whole = weight.detach().float().mean(0).to(weight.dtype)
    rows = [weight[list(source)].detach() for source in source_V]
    return torch.stack([whole if not len(row) else row[0] if len(row) == 1 else row.float().mean(0).to(weight.dtype) for row in rows])


def _renumber(settings: Any, new_ids: Mapping[str, int | None], kept: Mapping[int, int]) -> None:
    """New ids in a configuration; an id whose token is gone becomes None."""
    for name, value in settings.to_dict().items():
        if name in new_ids:
            setattr(settings, name, new_ids[name])
        elif name.endswith("_token_id") and value is not None:
            setattr(settings, name, kept.get(value) if isinstance(value, int) else None)
        elif name in LISTS_OF_IDS and value is not None:
            setattr(settings, name, None)
