"""What a run or another program has learned, as files: which folder holds it, which model it belongs to, and whether it can be merged."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError  # noqa: TID251 - the name of torch's error; nothing is unpickled
from typing import Any

import torch
from safetensors import SafetensorError

from sttrl.engine.base import AdapterShape
from sttrl.engine.merge import ADAPTER_CONFIG, ADAPTER_WEIGHTS, stored
from sttrl.engine.names import BIAS_FILE
from sttrl.errors import EngineError, UsageError, error_text
from sttrl.ledger.folder import CONFIG, REVISIONS, read_config

FULL_WEIGHTS = "model.safetensors"
TORCH_WEIGHTS = "adapter_model.bin"
"""Where older PEFT, torchtune and marc keep an adapter's weights."""
ADAPTERS = "adapters"

UNDERSTOOD = frozenset({
    "auto_mapping", "base_model_name_or_path", "bias", "ensure_weight_tying", "exclude_modules", "fan_in_fan_out", "inference_mode",
    "init_lora_weights", "layers_pattern", "layers_to_transform", "lora_alpha", "lora_dropout", "megatron_core", "modules_to_save",
    "peft_type", "peft_version", "qalora_group_size", "r", "revision", "target_modules", "task_type", "use_rslora",
})  # fmt: skip
"""Fields of adapter_config.json that merging reads, or that change nothing in it. Any other one must be empty or false."""
PLAIN_STARTS = (None, True, False, "gaussian", "orthogonal", "eva")
"""``init_lora_weights`` that leave the base as it is. Others, such as PiSSA's, train against a changed base."""
FACTOR = re.compile(r"\.lora_(?:embedding_)?([AB])(?:\.weight)?$")
GIVE_FOLDER = "Give a run folder under outputs/, or the folder of an adapter."
ANOTHER_ADAPTER = "Give an adapter of plain LoRA."


@dataclass(frozen=True, kw_only=True)
class Learned:
    """Learned weights: their file, PEFT's settings (None for full weights), and the base, where a file names it."""

    folder: Path
    file: Path
    settings: Mapping[str, Any] | None
    base: str | None
    revision: str | None

    def tensors(self) -> dict[str, torch.Tensor]:
        """All of them, by name. Raises `EngineError` for a damaged file."""
        try:
            found = _unpickled(self.file) if self.file.name == TORCH_WEIGHTS else dict(stored(self.folder, self.file.name))
        except (SafetensorError, UnpicklingError, OSError, EOFError, ValueError, RuntimeError) as error:
            raise EngineError(
                f"{self.file} cannot be read: {error_text(error, first_line=True)}.", "Give a file of nothing but tensors."
            ) from error
        if not found:
            raise EngineError(f"{self.file} holds no weights.", "Give a complete adapter.")
        return found


def find_learned(source: Path) -> Learned:
    """The learned weights in a folder: an adapter, full weights, or a run that has kept one of these.

    Raises `UsageError` where there are none or several, `EngineError` for a kind of adapter that is not merged.
    """
    if not source.is_dir():
        raise UsageError(f"{source} is no folder.", GIVE_FOLDER)
    folder = source.absolute()
    if not (folder / ADAPTER_CONFIG).exists() and (folder / CONFIG).exists():
        folder = _only_adapter(folder)
    settings = _adapter_settings(folder / ADAPTER_CONFIG) if (folder / ADAPTER_CONFIG).exists() else None
    base, revision = _base_of(folder, settings or {})
    return Learned(folder=folder, file=_weights_file(folder, settings), settings=settings, base=base, revision=revision)


def check_alike(learned: Learned, shape: AdapterShape | None) -> None:
    """Raises `EngineError` for weights that an engine with this adapter cannot take: a rank or a scale of its own, or full weights."""
    if learned.settings is None or shape is None:
        if (learned.settings is None) != (shape is None):
            raise EngineError(f"{learned.file} and the adapters of this run are of two kinds.", "Keep adapters and full weights apart.")
        return
    own, known = shape_of(learned.settings), (shape.rank, shape.alpha, shape.rank_stabilised)
    if (own.rank, own.alpha, own.rank_stabilised) != known:
        found = f"rank {own.rank} and alpha {own.alpha}{', rank-stabilised' if own.rank_stabilised else ''}"
        raise EngineError(f"{learned.file} has {found}, unlike the first adapter of this run.", "Give adapters of one shape.")


def shape_of(settings: Mapping[str, Any]) -> AdapterShape:
    """The shape of an adapter, from PEFT's settings. Raises `EngineError` for a scale that a run cannot have."""
    targets = settings.get("target_modules") or ()
    if settings["lora_alpha"] != int(settings["lora_alpha"]):
        raise EngineError(
            f"lora_alpha is {settings['lora_alpha']}, and a run takes whole numbers.", "Merge the adapter, and use that model."
        )
    return AdapterShape(
        rank=int(settings["r"]),
        alpha=int(settings["lora_alpha"]),
        rank_stabilised=bool(settings.get("use_rslora")),
        targets=(targets,) if isinstance(targets, str) else tuple(sorted(targets)),
        trainable_modules=tuple(sorted(settings.get("modules_to_save") or ())),
    )


def adapter_folders(source: Path) -> tuple[Path, ...]:
    """The folders of a run, or of a folder of adapters, that hold one each. Raises `UsageError` where there are none."""
    place = source / ADAPTERS if (source / ADAPTERS).is_dir() else source
    found = [folder for folder in sorted(place.glob("[!.]*")) if any((folder / name).exists() for name in (ADAPTER_CONFIG, FULL_WEIGHTS))]
    if not found:
        raise UsageError(f"{source} holds no adapters.", "Give a run folder, or a folder with an adapter for each problem.")
    return tuple(found)


def kept_shape(source: Path) -> AdapterShape | None:
    """The shape of the first adapter in a folder of them; None for full weights."""
    settings = find_learned(adapter_folders(source)[0]).settings
    return None if settings is None else shape_of(settings)


def check_names(file: Path, names: Collection[str]) -> None:
    """Raises `EngineError` for names that PEFT gives to something other than LoRA's two factors, or a factor without the other."""
    for name in names:
        if ".lora_" not in name:
            continue
        if (found := FACTOR.search(name)) is None:
            raise EngineError(f"{file}: {name} is no factor of plain LoRA.", ANOTHER_ADAPTER)
        other = name[: found.start(1)] + {"A": "B", "B": "A"}[found[1]] + name[found.end(1) :]
        if other not in names:
            raise EngineError(f"{file}: {name} has no {other} beside it.", "Give a complete adapter.")


def _only_adapter(run: Path) -> Path:
    """The only folder that a run has kept."""
    if '"model_type"' in (run / CONFIG).read_text(encoding="utf-8", errors="replace"):
        raise UsageError(f"{run} is a whole model: there is nothing to merge.", GIVE_FOLDER)
    read_config(run)
    found = sorted(folder.name for folder in (run / ADAPTERS).glob("[!.]*") if folder.is_dir())
    if not found:
        raise UsageError(f"{run} has kept no adapter.", "Run with --save_adapters.")
    if len(found) > 1:
        few = ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")
        raise UsageError(f"{run} has {len(found)} adapters: {few}.", f"Give one of them, such as {run / ADAPTERS / found[0]}.")
    return run / ADAPTERS / found[0]


def _weights_file(folder: Path, settings: Mapping[str, Any] | None) -> Path:
    names = (FULL_WEIGHTS,) if settings is None else (ADAPTER_WEIGHTS, TORCH_WEIGHTS)
    file = next((folder / name for name in names if (folder / name).exists()), None)
    if file is None and (folder / BIAS_FILE).exists():
        raise UsageError(f"{folder} holds a vector of slot, which belongs to one prompt.", "Give an adapter or full weights.")
    if file is None:
        raise UsageError(f"{folder} has no {' and no '.join(names)}.", GIVE_FOLDER)
    return file


def _base_of(folder: Path, settings: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The model that the run's settings name, else the adapter's."""
    run = folder.parent.parent
    if folder.parent.name == ADAPTERS and (run / CONFIG).exists():
        plain = read_config(run)
        return plain.get("model"), plain.get(REVISIONS[0])
    return settings.get("base_model_name_or_path") or None, settings.get("revision") or None


def _adapter_settings(file: Path) -> dict[str, Any]:
    """Raises `EngineError` for settings whose adapter is not the base's weights plus two factors."""
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EngineError(f"{file} is no JSON object: {error_text(error)}.", "Give a complete adapter.") from error
    if not isinstance(settings, dict) or settings.get("peft_type", "LORA") != "LORA":
        raise EngineError(f"{file} describes no LoRA adapter.", ANOTHER_ADAPTER)
    strange = {name: value for name, value in settings.items() if value and name not in UNDERSTOOD}
    strange |= {name: settings[name] for name, plain in (("bias", (None, "none")), ("init_lora_weights", PLAIN_STARTS))
                if settings.get(name) not in plain}  # fmt: skip
    if strange:
        name, value = next(iter(strange.items()))
        raise EngineError(f"{file}: adapters with {name} {value!r} are not merged.", f"{ANOTHER_ADAPTER[:-1]}, or merge it with PEFT.")
    for name in ("r", "lora_alpha"):
        if not isinstance(settings.get(name), int | float) or settings[name] <= 0:
            raise EngineError(f"{file}: {name} is {settings.get(name)!r}.", "The scale of the adapter is made from r and lora_alpha.")
    return settings


def _unpickled(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file of torch's, which is read without building any other object."""
    found = torch.load(file, map_location="cpu", weights_only=True)  # noqa: TID251 - weights_only builds tensors and plain values
    if not isinstance(found, dict) or not all(isinstance(weight, torch.Tensor) for weight in found.values()):
        raise ValueError("it holds more than tensors by name")
    return found
