"""Files of weights: those of TinyRecursiveModels and its forks, and ours, which they can read. Nothing but tensors is read.

The original's file is a plain state of torch, ``step_{n}`` without an extension, whose names start with ``model.inner.`` and, when its
model was compiled (its default), with ``_orig_mod.`` before that. Ours is the same, with a safetensors file of the same names beside.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError  # noqa: TID251 - the name of torch's error; nothing is unpickled
from typing import Literal, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from sttrl.errors import DataError, UsageError, error_text
from sttrl.ledger.files import replace_file
from sttrl.trm.arch import TABLE
from sttrl.trm.lora import FACTOR_A, FACTOR_B, merge_state
from sttrl.trm.recursion import TinyRecursiveModel

ROOT = "model.inner."
COMPILED = "_orig_mod."
WRAPPERS = (COMPILED, "module.", "model.", "inner.")
"""What stands before the name of a weight, in any order and number."""
DERIVED = ("rotary_emb.cos_cached", "rotary_emb.sin_cached", "puzzle_emb.local_weights", "puzzle_emb.local_ids")
"""What a file may hold and a model computes itself."""
SAFETENSORS = ".safetensors"
Reinit = Literal["mean", "normal"]
SMALLEST_SPREAD = 1e-6
Content = TypeVar("Content", dict[str, Tensor], list[str])


@dataclass(frozen=True, kw_only=True)
class RowNames:
    """Names of the rows of a puzzle table, in the order of rows (``identifiers.json``): of the file's table and of the model's."""

    old: Sequence[str]
    new: Sequence[str]


@dataclass(frozen=True)
class Loaded:
    """What loading did, a line each: every row and weight that did not come from the file as it was."""

    lines: tuple[str, ...]


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by their names there: safetensors by its extension, else a state of torch.

    Raises `DataError` for a file that is not there, is damaged, or holds anything but tensors.
    """
    return _read(path, lambda: load_file(path) if path.suffix == SAFETENSORS else _state_of_torch(path))


def weight_names(path: Path) -> frozenset[str]:
    """The names of the tensors of a file, without its tensors. Raises `DataError` as `read_weights` does."""
    return frozenset(_read(path, lambda: _names_of_safetensors(path) if path.suffix == SAFETENSORS else list(_state_of_torch(path))))


def write_weights(path: Path, state: Mapping[str, Tensor], *, compiled: bool = True) -> None:
    """Write a model's state as the original's file ``path``, and beside it as ``path.safetensors``. Each is replaced atomically.

    ``compiled`` puts ``_orig_mod.`` before the names, which the original needs unless it runs with DISABLE_COMPILE.
    Raises `JournalError` where the disk does not take it.
    """
    prefix = (COMPILED if compiled else "") + ROOT
    tensors = {prefix + plain_name(name): _as_the_original(name, value) for name, value in state.items()}
    replace_file(path, lambda target: torch.save(tensors, target))
    replace_file(path.with_name(path.name + SAFETENSORS), lambda target: save_file(tensors, target))


def write_tensors(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write weights as one safetensors file under the original's names. Raises `JournalError` where the disk does not take it."""
    tensors = {ROOT + plain_name(name): _as_the_original(name, value) for name, value in state.items()}
    replace_file(path, lambda target: save_file(tensors, target))


def tensor_to_write(value: Tensor) -> Tensor:
    """The tensor on the CPU, copied where it is a part of a larger one: a file would get the larger one too, or be refused."""
    value = value.detach().cpu().contiguous()
    return value.clone() if value.untyped_storage().nbytes() != value.nbytes else value


def plain_name(name: str) -> str:
    """The name of a weight without what wrapped its model."""
    while (wrapper := next((wrapper for wrapper in WRAPPERS if name.startswith(wrapper)), None)) is not None:
        name = name.removeprefix(wrapper)
    return name


def load_into(
    model: TinyRecursiveModel,
    state: Mapping[str, Tensor],
    *,
    reinit: Reinit = "mean",
    generator: torch.Generator | None = None,
    names: RowNames | None = None,
    lora_alpha: float | None = None,
) -> Loaded:
    """Load a state into a model, and say what did not come from it as it was.

    Every weight of the trunk must be there, in its shape, and nothing that the model has no place for, else `DataError`, and the
    model stays as it was. LoRA's factors may be missing; where the model has none, those of the file are merged by ``lora_alpha``.
    Rows of the puzzle table are found by ``names``, or by number where there are as many as in the file; other rows start from the
    mean of the file's rows, or are drawn around it ("normal", which needs ``generator``).
    """
    lines: list[str] = []
    found = _unwrapped(state)
    own = dict(model.state_dict())
    if not own.keys() & found.keys():
        few = ", ".join(list(state)[:3])
        raise DataError(f"No weight of the file is one of this model's: it has {few}.", "Give weights of a model of this architecture.")
    if any(name.endswith(FACTOR_A) for name in found) and not any(name.endswith(FACTOR_A) for name in own):
        found = _merged(found, lora_alpha, lines)
    if dropped := [name for name in found if name in DERIVED]:
        lines.append(f"Left out, for the model computes it: {', '.join(dropped)}.")
    table = found.get(TABLE)
    trunk = {name: value for name, value in found.items() if name not in DERIVED and name != TABLE}
    own.pop(TABLE, None)
    _check_names(own, trunk, lines)
    _check_shapes(own, trunk)
    weights = _table(model, table, names, _Fresh(reinit, generator), lines)
    with torch.no_grad():
        for name, value in trunk.items():
            own[name].copy_(value)
        if weights is not None and model.table is not None:
            model.table.replace(weights)
    return Loaded(tuple(lines))


@dataclass(frozen=True)
class _Fresh:
    """How rows that are not in the file start."""

    reinit: Reinit
    generator: torch.Generator | None

    @property
    def words(self) -> str:
        return "the mean row" if self.reinit == "mean" else "rows drawn around the mean row"

    def rows(self, count: int, old: Tensor) -> Tensor:
        """(count, D), from the rows of the file."""
        mean = old.float().mean(0, keepdim=True)
        if self.reinit == "mean":
            return mean.repeat(count, 1)
        if self.reinit != "normal":
            raise UsageError(f"puzzle_emb_reinit_strategy is {self.reinit!r}.", "Choose mean or normal.")
        if self.generator is None:
            raise ValueError("rows that are drawn need a generator")
        spread = old.float().std(0, keepdim=True, unbiased=False).clamp_min(SMALLEST_SPREAD)
        drawn = torch.randn(count, old.shape[1], generator=self.generator, device=self.generator.device)
        return drawn.to(old.device) * spread + mean


def _table(model: TinyRecursiveModel, old: Tensor | None, names: RowNames | None, fresh: _Fresh, lines: list[str]) -> Tensor | None:
    """The rows of the model's puzzle table, or None where they stay as they are."""
    if model.table is None:
        if old is not None:
            lines.append(f"Puzzle table: the file's {len(old)} rows are left out, for the model has no table.")
        return None
    rows, size = model.table.weights.shape
    if old is None:
        lines.append(f"Puzzle table: the file has none; the model's {rows} rows stay as they are.")
        return None
    if old.ndim != 2 or old.shape[1] != size:
        raise DataError(
            f"The file's puzzle table has the shape {tuple(old.shape)}, and rows here have {size} numbers.",
            "Set arch.puzzle_emb_ndim to the file's.",
        )
    if names is not None:
        return _aligned(old, rows, names, fresh, lines)
    if len(old) == rows:
        lines.append(f"Puzzle table: {rows} rows, taken by number.")
        return old
    lines.append(f"Puzzle table: {len(old)} rows in the file and {rows} in the data set: all start from {fresh.words}.")
    return fresh.rows(rows, old)


def _aligned(old: Tensor, rows: int, names: RowNames, fresh: _Fresh, lines: list[str]) -> Tensor:
    for what, given, expected in (("file", names.old, len(old)), ("data set", names.new, rows)):
        if len(given) != expected:
            raise DataError(
                f"The {what} has {expected} puzzle rows and {len(given)} names of them.", "Give the identifiers.json of the same data."
            )
    place = {name: row for row, name in reversed(list(enumerate(names.old)))}
    taken = [(row, place[name]) for row, name in enumerate(names.new) if name in place]
    weights = fresh.rows(rows, old) if len(taken) < rows else old.new_empty(rows, old.shape[1])
    if taken:
        into, source = torch.tensor(taken).T
        weights[into] = old[source].to(weights.dtype)
    new, left = rows - len(taken), len(old) - len({source for _, source in taken})
    lines.append(
        f"Puzzle table: {len(taken)} of {rows} rows found by name, {new} start from {fresh.words}; {left} rows of the file left out."
    )
    return weights


def _unwrapped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        if (plain := plain_name(name)) in found:
            raise DataError(f"The file has {plain} twice, under two prefixes.", "Give the weights of one model.")
        found[plain] = value
    return found


def _merged(found: dict[str, Tensor], alpha: float | None, lines: list[str]) -> dict[str, Tensor]:
    if alpha is None:
        raise DataError(
            "The file holds LoRA's factors, and the model has none.",
            "Set arch.lora_rank to the file's, or say its arch.lora_alpha, by which they are merged (the fork's is 16).",
        )
    rank = next(len(value) for name, value in found.items() if name.endswith(FACTOR_A))
    lines.append(f"LoRA of the file (rank {rank}, alpha {alpha:g}) is merged into the weights.")
    return merge_state(found, alpha)


def _check_names(own: Mapping[str, Tensor], trunk: Mapping[str, Tensor], lines: list[str]) -> None:
    """Raises `DataError` for weights that are missing, and for weights without a place."""
    factors = [name for name in own if name.endswith((FACTOR_A, FACTOR_B))]
    without = [name for name in factors if name not in trunk]
    if without and len(without) < len(factors):
        raise DataError(f"The file lacks {_few(without)}.", "Give a complete adapter.")
    if without:
        lines.append(f"LoRA: the file has no factors; {len(without)} start anew.")
    missing = [name for name in own if name not in trunk and name not in factors]
    if missing:
        raise DataError(f"The file lacks {_few(missing)}.", "Give a complete file of a model with the same arch.* settings.")
    if places := [name for name in trunk if name not in own]:
        raise DataError(
            f"The model has no place for {_few(places)}.", "Give the model the arch.* settings of the file, such as arch.L_layers."
        )


def _check_shapes(own: Mapping[str, Tensor], trunk: Mapping[str, Tensor]) -> None:
    other = [name for name, value in trunk.items() if value.shape != own[name].shape]
    if other:
        name = other[0]
        more = f", and {len(other) - 1} more differ" if len(other) > 1 else ""
        raise DataError(
            f"{name} has the shape {tuple(trunk[name].shape)} in the file and {tuple(own[name].shape)} in the model{more}.",
            "Give the model the arch.* settings of the file (all_config.yaml beside it) and data of the same seq_len and vocab_size.",
        )


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more weights" if len(names) > 3 else "")


def _read(path: Path, read: Callable[[], Content]) -> Content:
    if not path.is_file():
        raise DataError(f"There are no weights at {path}.", "Give a file such as step_1000, or one that ends in .safetensors.")
    try:
        found = read()
    except (SafetensorError, UnpicklingError, OSError, EOFError, ValueError, RuntimeError) as error:
        raise DataError(f"{path} cannot be read: {error_text(error, first_line=True)}.", "Give a complete file of tensors.") from error
    if not found:
        raise DataError(f"{path} holds no weights.", "Give a complete file.")
    return found


def _names_of_safetensors(path: Path) -> list[str]:
    with safe_open(path, framework="pt") as opened:
        return list(opened.keys())


def _state_of_torch(path: Path) -> dict[str, Tensor]:
    """A state of torch, which is read without building any other object; a large one is mapped, not copied."""
    found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))  # noqa: TID251 - weights_only
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ValueError("it holds more than tensors by name")
    return found


def _as_the_original(name: str, value: Tensor) -> Tensor:
    """A tensor as it is written. The original's files hold the start of a latent as bfloat16; so do ours where no digit is lost by it."""
    value = tensor_to_write(value)
    if name.endswith("_init") and torch.equal((short := value.bfloat16()).to(value.dtype), value):
        return short
    return value
