"""``merge``: a model folder with what was learned in its weights, in bfloat16.

PEFT's own ``merge_and_unload`` is wrong where LoRA changes embeddings or a head that are tied: it adds to the weight that both share. Here
the two are parted first, and tied again if they are equal at the end.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sttrl.engine.learned import Learned, check_names, find_learned
from sttrl.engine.merge import ADAPTER_CONFIG, merged, split_adapter
from sttrl.engine.model_checks import INDEX, check_weights
from sttrl.engine.model_files import check_target, head_is_tied, load_network, tie_head, untie_head, write_folder
from sttrl.engine.models import HUB_FILES, TOKENIZER_FILES, commit_of, load_tokenizer, model_folder
from sttrl.errors import EngineError, SttrlError, UsageError

RECORD = "sttrl_merge.json"
"""The file that says what a folder was merged from."""
FORM = 1
"""Number of the way in which weights are merged; another one makes another hash."""
NOT_COPIED = ("config.json", INDEX, RECORD)
BASE_LAYER = ".base_layer."
"""PEFT saves targeted embeddings and heads as they were before training, under this name."""
OTHER_BASE = "Give the model that it was trained on with --model."


def merge(source: Path, target: Path, model: str | None = None) -> str:
    """Merge the adapter or the full weights in ``source`` into their base, and write a model folder. Returns what is to be said.

    ``model`` replaces the base that the files name. A folder that holds this merge already is left as it is. Raises `UsageError` and
    `EngineError` for what cannot be merged.
    """
    if not (target / RECORD).exists():
        check_target(target)
    learned = find_learned(source)
    name, base = _base(learned, model)
    check_weights(base)
    record = _record(learned, name, base)
    if (target / RECORD).exists():
        return _found(target, record)
    load_tokenizer(base)
    network = load_network(base)
    tied = head_is_tied(network)
    merge_into(network, learned)
    write_folder(target, lambda made: _write(network, base, record, made))
    parted = "; its head has weights of its own now" if tied and not head_is_tied(network) else ""
    return f"{target}: {name} with {learned.folder}, in bfloat16{parted}"


@torch.no_grad()
def merge_into(network: Any, learned: Learned) -> None:
    """Change a network to the policy that was learned, in place and in bfloat16.

    Raises `EngineError` for weights that the network does not have, or that are not like its own.
    """
    # What a model keeps in float32 among 16-bit weights stays so.
    kept = {name for name, weight in network.named_parameters() if weight.dtype != network.dtype}
    tied = head_is_tied(network)
    parts = _parts(network, learned)
    weights = _Weights(network, learned.file)
    for name, weight in parts.shared.items():
        weights.replace(name, weight)
    if tied:
        untie_head(network)
        weights = _Weights(network, learned.file)
    for name, weight in parts.replaced.items():
        weights.replace(name, weight)
    for name, (left, right, scale) in parts.low_rank.items():
        weights.add(name, left, right, scale)
    for name, parameter in network.named_parameters():
        if name not in kept:
            parameter.data = parameter.data.to(torch.bfloat16)
    if tied:
        _tie_again(network, parts)


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """By the name of the base's weight: what takes its place wherever the base uses it, what takes its place, and what is added to it.

    ``together``: whether embeddings and head were trained as one.
    """

    shared: Mapping[str, torch.Tensor]
    replaced: Mapping[str, torch.Tensor]
    low_rank: Mapping[str, tuple[torch.Tensor, torch.Tensor, float]]
    together: bool


def _parts(network: Any, learned: Learned) -> _Parts:
    tensors = learned.tensors()
    if learned.settings is None:
        return _full(network, learned.file, tensors)
    check_names(learned.file, tensors)
    low_rank, whole = split_adapter(learned.settings, tensors, lambda name: _is_transposed(network, name))
    rank = learned.settings["r"]
    for name, (left, _, _) in low_rank.items():
        if left.shape[-1] != rank:
            raise EngineError(f"{learned.file}: {name} has rank {left.shape[-1]}, and {ADAPTER_CONFIG} says {rank}.", "Correct r there.")
    own = tuple(learned.settings.get("modules_to_save") or ())
    replaced = {name: weight for name, weight in whole.items() if name.removesuffix(".weight").endswith(own)}
    shared = {name.replace(BASE_LAYER, "."): weight for name, weight in whole.items() if name not in replaced}
    return _Parts(shared=shared, replaced=replaced, low_rank=low_rank, together=bool(learned.settings.get("ensure_weight_tying")))


def _full(network: Any, file: Path, tensors: Mapping[str, torch.Tensor]) -> _Parts:
    """Raises `EngineError` unless every weight is there. Where embeddings and head are tied, one of the two is enough."""
    ends = {name for name, _ in _ends(network)} if head_is_tied(network) else set()
    enough = ends if ends & tensors.keys() else set()
    missing = sorted({name for name, _ in network.named_parameters()} - tensors.keys() - enough)
    if missing:
        raise EngineError(f"{file} lacks {', '.join(missing[:3])}.", OTHER_BASE)
    return _Parts(shared={}, replaced=tensors, low_rank={}, together=not ends <= tensors.keys())


class _Weights:
    """A network's weights by name."""

    def __init__(self, network: Any, file: Path) -> None:
        self.named = dict(network.named_parameters(remove_duplicate=False))
        self.file = file

    def replace(self, name: str, weight: torch.Tensor) -> None:
        """Put another weight in the place of one."""
        self._checked(name, tuple(weight.shape)).data = self._finite(name, weight)

    def add(self, name: str, left: torch.Tensor, right: torch.Tensor, scale: float) -> None:
        """Add the product of two factors to a weight, and round once."""
        parameter = self._checked(name, (*left.shape[:-1], *right.shape[1:]))
        parameter.data = self._finite(name, merged(parameter.data, left, right, scale)).to(torch.bfloat16)

    def _checked(self, name: str, shape: tuple[int, ...]) -> torch.nn.Parameter:
        if name not in self.named:
            raise EngineError(f"{self.file}: the model has no weight {name}.", OTHER_BASE)
        parameter: torch.nn.Parameter = self.named[name]
        if tuple(parameter.shape) != shape:
            raise EngineError(f"{self.file}: {name} is {list(shape)}, and the model's is {list(parameter.shape)}.", OTHER_BASE)
        return parameter

    def _finite(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        if not torch.isfinite(weight).all():
            raise EngineError(f"{self.file}: {name} is not finite.", "Give weights of a training that did not diverge.")
        return weight


def _tie_again(network: Any, parts: _Parts) -> None:
    """Tie head and embeddings where they were trained as one, or are equal."""
    embeddings, head = network.get_input_embeddings(), network.get_output_embeddings()
    if parts.together:
        changed = [weight for name, weight in _ends(network) if name in parts.replaced or name in parts.low_rank]
        embeddings.weight.data = head.weight.data = (changed or [embeddings.weight])[0].data
    if torch.equal(embeddings.weight, head.weight):
        tie_head(network)


def _ends(network: Any) -> list[tuple[str, torch.nn.Parameter]]:
    """The weights of embeddings and head with their names."""
    names = {module: name for name, module in network.named_modules()}
    return [(f"{names[end]}.weight", end.weight) for end in (network.get_input_embeddings(), network.get_output_embeddings())]


def _is_transposed(network: Any, name: str) -> bool:
    from transformers.pytorch_utils import Conv1D

    return isinstance(dict(network.named_modules()).get(name), Conv1D)


def _base(learned: Learned, model: str | None) -> tuple[str, Path]:
    """The name and the folder of the base."""
    name = model or learned.base
    if name is None:
        raise UsageError(f"{learned.folder} does not say which model it was trained on.", OTHER_BASE)
    try:
        return name, model_folder(name, revision=None if model else learned.revision)
    except SttrlError as error:
        if model:
            raise
        raise type(error)(f"The base of {learned.folder}: {error.message}", f"{error.hint} --model names another place.") from error


def _record(learned: Learned, name: str, base: Path) -> dict[str, Any]:
    """What goes in, and its hash. The model's name and the folders are for the reader only."""
    settings = learned.folder / ADAPTER_CONFIG
    facts = {
        "form": FORM,
        "weights_sha256": _sha256(learned.file),
        "adapter_config_sha256": None if learned.settings is None else _sha256(settings),
        "base": commit_of(base) or _content(base),
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return {"hash": digest, "model": name, "learned": str(learned.folder), **facts}


def _found(target: Path, record: Mapping[str, Any]) -> str:
    """Raises `UsageError` where a folder holds another merge."""
    try:
        before = {"hash": None, "model": None, "learned": None} | json.loads((target / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{target / RECORD} cannot be read.", "Choose another --out, or delete it.") from error
    if before["hash"] != record["hash"]:
        other = f"{before['model']} with {before['learned']}"
        raise UsageError(f"--out {target} holds another merge: {other}.", "Choose another, or delete it.")
    return f"{target}: already merged"


def _content(folder: Path) -> str:
    """A hash of a model folder's files."""
    files = sorted({file for pattern in HUB_FILES for file in folder.glob(pattern)})
    return hashlib.sha256("".join(f"{file.name} {_sha256(file)}\n" for file in files).encode()).hexdigest()


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _write(network: Any, base: Path, record: Mapping[str, Any], folder: Path) -> None:
    """Weights and configuration as transformers writes them; the tokenizer's and the generation settings' files as they are in the base."""
    from transformers import GenerationConfig

    copied = [file for pattern in TOKENIZER_FILES for file in base.glob(pattern) if file.name not in NOT_COPIED]
    if any(file.name == "generation_config.json" for file in copied):
        network.generation_config = GenerationConfig()  # transformers refuses to write settings that it has read
    network.save_pretrained(folder)
    for file in copied:
        shutil.copyfile(file, folder / file.name)
    (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
