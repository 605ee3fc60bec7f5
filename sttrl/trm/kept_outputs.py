"""The arrays of an evaluation that ``eval_save_outputs`` asks for: collected by batch, written as files of tensors only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from sttrl.ledger.files import replace_file


class KeptOutputs:
    """Collects tensors over the batches of an evaluation, padding rows included, as in the original."""

    def __init__(self, names: Sequence[str]) -> None:
        """``names`` are those of ``eval_save_outputs``; without any nothing is kept."""
        self._parts: dict[str, list[torch.Tensor]] = {name: [] for name in names}

    def add(self, batch: Mapping[str, torch.Tensor]) -> None:
        """Keep a batch's tensors of the names that are asked for; a name that it does not have is left out."""
        for name, parts in self._parts.items():
            if name in batch:
                parts.append(batch[name].detach().cpu())

    def tensors(self) -> dict[str, torch.Tensor]:
        """All that was kept, each name's batches one after the other."""
        return {name: torch.cat(parts) for name, parts in self._parts.items() if parts}

    def write(self, run: Path, step: int, rank: int = 0) -> Path | None:
        """Write the original's ``step_{n}_all_preds.{rank}``, and the same as safetensors beside it; None if nothing was kept.

        The run's folder is made if need be. Raises `JournalError` for a disk that cannot be written.
        """
        tensors = self.tensors()
        if not tensors:
            return None
        path = run / f"step_{step}_all_preds.{rank}"
        replace_file(path, lambda file: torch.save(tensors, file))
        replace_file(path.with_name(f"{path.name}.safetensors"), lambda file: save_file(tensors, file))
        return path
