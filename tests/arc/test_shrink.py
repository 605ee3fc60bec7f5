"""``shrink``: a model with a codec's vocabulary computes what the whole model computes for the tokens that are left."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import VOCABULARY, make_tiny_model, tiny_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, PhiConfig

from sttrl.arc.codecs.cells import Cells
from sttrl.arc.codecs.dialogue import Dialogue
from sttrl.arc.codecs.limits import character_count, max_new_tokens
from sttrl.arc.codecs.registry import codec_for
from sttrl.arc.codecs.tokens import encode
from sttrl.arc.codecs.vocabulary import small_vocabulary
from sttrl.arc.tasks import Pair, Puzzle
from sttrl.cli import main
from sttrl.engine.models import load_tokenizer, model_folder, stop_token_ids
from sttrl.engine.shrink import small_tokenizer
from sttrl.errors import EngineError, UsageError

PUZZLE = Puzzle(
    demos=(Pair(input=((1, 2), (3, 4)), output=((4, 3),)), Pair(input=((0,),), output=((9,),))),
    query=((5, 6),),
    answer=((7, 8, 0), (1, 2, 3), (4, 5, 6)),
)


def loaded(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def check_same_logits(before: Path, after: Path, name: str) -> None:
    """For a whole puzzle; only tokens that are tokens of the old vocabulary too."""
    old, new = loaded(before), loaded(after)
    old_tokenizer = load_tokenizer(before)
    small = small_vocabulary(name, codec_for(name, old_tokenizer), old_tokenizer)
    known = [number for number, source in enumerate(small.source_V) if len(source) == 1]
    tokenizer = load_tokenizer(after)
    token_T = [token for token in encode(tokenizer, codec_for(name, tokenizer).write(PUZZLE)).token_T if token in known]
    assert len(token_T) > 20
    sources = [small.source_V[number][0] for number in known]
    with torch.no_grad():
        expected = old(torch.tensor([[small.source_V[token][0] for token in token_T]])).logits[0][:, sources]
        found = new(torch.tensor([token_T])).logits[0][:, known]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert new.get_input_embeddings().weight.shape[0] == len(small.token_V) == new.config.vocab_size == len(tokenizer)


@pytest.fixture(scope="module")
def shrunk(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("shrunk")
    for name in ("cells", "dialogue"):
        assert main(["shrink", str(tiny_model), "--codec", name, "--out", str(folder / name)]) == 0
    return {name: folder / name for name in ("cells", "dialogue")}


@pytest.mark.parametrize("name", ["cells", "dialogue"])
def test_the_logits_of_kept_tokens_are_the_same(name: str, tiny_model: Path, shrunk: dict[str, Path]) -> None:
    check_same_logits(tiny_model, shrunk[name], name)


def test_a_tied_head_stays_tied(tiny_model: Path, shrunk: dict[str, Path]) -> None:
    network = loaded(shrunk["cells"])
    assert network.config.tie_word_embeddings
    assert network.get_input_embeddings().weight is network.get_output_embeddings().weight
    assert AutoModelForCausalLM.from_pretrained(shrunk["cells"], dtype="auto").dtype == torch.bfloat16, "the dtype of the model"


@pytest.mark.parametrize("kind", [LlamaConfig, PhiConfig])
def test_a_head_of_its_own_is_cut(kind: Any, tmp_path: Path) -> None:
    """Phi's head has a bias."""
    settings = kind(
        vocab_size=len(VOCABULARY), hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1,
        tie_word_embeddings=False, bos_token_id=1, eos_token_id=2, pad_token_id=2,
    )  # fmt: skip
    network = AutoModelForCausalLM.from_config(settings)
    if network.lm_head.bias is not None:
        torch.nn.init.normal_(network.lm_head.bias)
    network.save_pretrained(tmp_path / "whole")
    tiny_tokenizer().save_pretrained(tmp_path / "whole")
    assert main(["shrink", str(tmp_path / "whole"), "--codec", "dialogue", "--out", str(tmp_path / "new" / "small")]) == 0
    check_same_logits(tmp_path / "whole", tmp_path / "new" / "small", "dialogue")


def test_settings_name_the_new_tokens(shrunk: dict[str, Path]) -> None:
    for name, folder in shrunk.items():
        tokenizer = AutoTokenizer.from_pretrained(folder)
        codec = codec_for(name, tokenizer)
        assert isinstance(codec, Cells | Dialogue)
        end = tokenizer.convert_tokens_to_ids(codec.end)
        assert tokenizer.eos_token_id == end
        assert tokenizer.pad_token_id not in (None, end)
        assert stop_token_ids(folder, tokenizer) == (end,)
        for file in ("config.json", "generation_config.json"):
            settings = json.loads((folder / file).read_text())
            ids = {key: value for key, value in settings.items() if key.endswith("_token_id") and value is not None}
            assert ids["eos_token_id"] == end
            assert all(0 <= value < len(tokenizer) for value in ids.values())
        assert model_folder(str(folder)) == folder


def test_a_character_is_a_token(shrunk: dict[str, Path]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(shrunk["cells"])
    codec = codec_for("cells", tokenizer)
    written = codec.write(PUZZLE)
    encoded = encode(tokenizer, written)
    assert len(encoded.token_T) == character_count(written.text)
    assert tokenizer.decode(encoded.token_T) == written.text
    for span, before in zip(encoded.spans, written.spans, strict=True):
        assert tokenizer.decode(encoded.token_T[span.start : span.end]) == written.text[before.start : before.end]
    assert max_new_tokens(codec, lambda text: len(tokenizer.encode(text, add_special_tokens=False))) == 932


def test_the_dialogue_has_the_published_ids(shrunk: dict[str, Path]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(shrunk["dialogue"])
    text = Dialogue().write(PUZZLE).text
    assert tokenizer.encode(text)[:10] == [14, 11, 10, 1, 2, 10, 3, 4, 15, 14]
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer) == 16
    assert max_new_tokens(Dialogue(), lambda text: len(tokenizer.encode(text))) == 931


def test_a_begin_of_text_token_is_kept_where_the_model_adds_it() -> None:
    names = ("1", "<s>", "</s>", "<pad>")
    tokenizer = small_tokenizer(names, names[1:], "<s>", "</s>", "<pad>")
    assert tokenizer.encode("1</s>") == [1, 0, 2]
    small = small_vocabulary("cells", Cells(end="</s>"), tokenizer)
    assert (small.begin, small.end, small.pad) == ("<s>", "</s>", "<pad>")
    assert dict(zip(small.token_V, small.source_V, strict=True))["1"] == (0,)
    assert "A" in small.made_up()


def test_errors_are_one_line(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    (tmp_path / "blocked").touch()
    for model, codec, out, text in (
        (str(tiny_model), "cell", "new", r"There is no codec 'cell'\. Did you mean cells"),
        (str(tiny_model), "cells", "full", r"--out .*full exists and is not an empty folder\."),
        (str(tiny_model), "cells", "blocked", r"--out .*blocked exists and is not an empty folder\."),
        (str(tmp_path / "nothing"), "cells", "new", r"nothing' is no folder here"),
        (str(tiny_model), "chat", "new", r"--codec chat: its texts need the model's own words\."),
        (str(tiny_model), "cells", "blocked/new", r"Cannot write --out"),
    ):
        assert main(["shrink", model, "--codec", codec, "--out", str(tmp_path / out)]) == 2
        said = capsys.readouterr().err.splitlines()
        assert len([line for line in said if line.startswith("error:")]) == 1
        assert re.search(text, "\n".join(said)), said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["blocked", "full"], "nothing is left behind"


def test_an_empty_folder_is_taken(tiny_model: Path, tmp_path: Path) -> None:
    assert main(["shrink", str(make_tiny_model(tmp_path / "copy")), "--codec", "cells", "--out", str(tmp_path)]) == 2
    (tmp_path / "empty").mkdir()
    assert main(["shrink", str(tiny_model), "--codec", "cells", "--out", str(tmp_path / "empty")]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cells", "dialogue"])
def test_a_real_model(name: str, tmp_path: Path) -> None:
    try:
        folder = model_folder("builtin/SmolLM2-135M-Instruct")
    except (EngineError, UsageError) as error:
        pytest.skip(str(error))
    assert main(["shrink", "builtin/SmolLM2-135M-Instruct", "--codec", name, "--out", str(tmp_path / name)]) == 0
    check_same_logits(folder, tmp_path / name, name)
