"""The texts of a response's tokens, with tokenizers of two kinds, and where the tokenizer of a model is found."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_tokenizer import byte_level, saved
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from sttrl.engine.pieces import TokenTexts, pieces_of


def leading_space() -> Tokenizer:
    """Words with a mark for the space before them, which is dropped at the beginning of a text, as SentencePiece does."""
    made = Tokenizer(models.WordLevel(vocab={"▁the": 0, "▁answer": 1, "▁is": 2, "▁7": 3, "?": 4}, unk_token="?"))
    made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return made


@pytest.mark.parametrize("text", ["it is 7", "no", "", "é is 東京 🙂", "7\n\n is"])
def test_the_pieces_together_are_the_text(text: str, tmp_path: Path) -> None:
    tokenizer = byte_level()
    end = tokenizer.token_to_id("<end>")
    token_T = [*tokenizer.encode(text).ids, end]
    split = TokenTexts(saved(tokenizer, tmp_path))
    pieces = split(token_T, text)
    assert pieces is not None and "".join(pieces) == text and len(pieces) == len(token_T) and pieces[-1] == ""
    assert (" is" in pieces) == (" is" in text)
    shown = split(token_T, f"{text}<end>")
    assert shown is not None and shown[-1] == "<end>", "of an ARC task the text has its special tokens"


def test_a_character_of_several_tokens_is_at_its_last(tmp_path: Path) -> None:
    tokenizer = byte_level()
    assert TokenTexts(saved(tokenizer, tmp_path))(tokenizer.encode("a東b").ids, "a東b") == ["a", "", "", "東", "b"]


def test_a_text_that_ends_within_a_character(tmp_path: Path) -> None:
    tokenizer = byte_level()
    token_T = tokenizer.encode("a東").ids[:-1]
    pieces = TokenTexts(saved(tokenizer, tmp_path))(token_T, tokenizer.decode(token_T))
    assert pieces is not None and "".join(pieces) == tokenizer.decode(token_T) and len(pieces) == 3


def test_a_space_that_is_dropped_at_the_beginning_alone(tmp_path: Path) -> None:
    tokenizer = leading_space()
    token_T = tokenizer.encode("the answer is 7").ids
    assert TokenTexts(saved(tokenizer, tmp_path))(token_T, "the answer is 7") == ["the", " answer", " is", " 7"]


def test_tokens_of_another_model_have_no_pieces(tmp_path: Path) -> None:
    tokenizer = byte_level()
    split = TokenTexts(saved(tokenizer, tmp_path))
    assert split(tokenizer.encode("it is 7").ids, "it is 8") is None
    assert split([100_000], "it is 8") is None


def test_where_a_tokenizer_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    saved(byte_level(), tmp_path / "model")
    assert pieces_of({"model": str(tmp_path / "model")}) is not None
    (tmp_path / "model" / "tokenizer.json").write_text("{")
    for name in (str(tmp_path / "model"), "org/never-downloaded", "builtin/none", "no such folder", "a/b/c", "", str(tmp_path)):
        assert pieces_of({"model": name, "model_revision": None}) is None
