"""A tokenizer of bytes, made at once and saved like that of a model."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers


def byte_level() -> Tokenizer:
    """Every token is a byte, but two: a word with the space before it, and a special token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: place for place, character in enumerate([*alphabet, "Ġi", "Ġis"])}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[("Ġ", "i"), ("Ġi", "s")]))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    made.add_special_tokens(["<end>"])
    return made


def saved(tokenizer: Tokenizer, folder: Path) -> Path:
    """The file of the tokenizer in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"
