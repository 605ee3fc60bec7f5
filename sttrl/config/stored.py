"""Adapters that another run has kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from sttrl.config.rules import Group


@dataclass(frozen=True, kw_only=True)
class StoredSettings(Group):
    """Adapters that another run has kept."""

    methods: ClassVar[frozenset[str] | None] = frozenset({"stored"})

    adapters: Path | None = None
    """stored: a run folder, or a folder with an adapter for each problem, by id; `all` is for those without one. An adapter is PEFT's
    adapter_model.safetensors, or adapter_model.bin as marc published them."""
