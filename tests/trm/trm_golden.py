"""The recorded inputs and outputs of the original TinyRecursiveModels, and models made from them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sttrl.trm.arch import ArchConfig, LossConfig, Sizes
from sttrl.trm.model import TinyRecursiveModel, build_model

FOLDER = Path(os.environ.get("STTRL_GOLDEN") or Path(__file__).resolve().parents[2].parent / "shared" / "golden") / "trm"
ROOT = "model.inner."


def golden(*parts: str) -> Path:
    """A file or folder of the golden data; the module is skipped where there are none."""
    if not FOLDER.is_dir():
        pytest.skip(f"no golden data in {FOLDER}", allow_module_level=True)
    return FOLDER.joinpath(*parts)


def read(*parts: str) -> Any:
    return json.loads(golden(*parts).read_text())


def tensors(*parts: str) -> dict[str, torch.Tensor]:
    return load_file(golden(*parts))


def folders(*parts: str) -> list[Path]:
    """Every case of a family."""
    found = sorted(path for path in golden(*parts).iterdir() if path.is_dir())
    assert found
    return found


def part(values: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The entries under a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def arch_of(settings: dict[str, Any], **changes: Any) -> ArchConfig:
    """An architecture from recorded settings; those of the data set and the batch are left out."""
    names = {name: value for name, value in settings.items() if name in ArchConfig.__dataclass_fields__ and name != "loss"}
    loss = LossConfig(**settings["loss"]) if "loss" in settings else LossConfig()
    return ArchConfig(**{**names, "loss": loss, **changes})


def sizes_of(settings: dict[str, Any]) -> Sizes:
    return Sizes(**{name: settings[name] for name in Sizes.__dataclass_fields__})


def recorded_model(case: Path, **changes: Any) -> TinyRecursiveModel:
    """The model of a recorded case, with its weights."""
    settings = json.loads((case / "config.json").read_text())
    model = build_model(arch_of(settings, **changes), sizes_of(settings), generator=generator())
    model.load_state_dict(part(load_file(case / "weights.safetensors"), ROOT))
    return model


def close(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance, check_dtype=False)
