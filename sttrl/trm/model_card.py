"""The model card of a checkpoint on the hub: what was trained, on what, and what the run measured."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sttrl.trm.arch import TABLE
from sttrl.trm.evaluation_files import SCORES
from sttrl.trm.train_config import ALL_CONFIG, METRICS, Adaptation, TrainConfig

MEASURED: Final = re.compile(r"(ARC/|all[/.]|[A-Za-z0-9_]+/(exact_)?accuracy$)")
"""Metric names of an evaluation; those of ``train/`` are left out."""
ARCH_SHOWN: Final = ("H_cycles", "L_cycles", "L_layers", "hidden_size", "num_heads", "puzzle_emb_len", "mlp_t")
SHOWN: Final = ("global_batch_size", "epochs", "lr", "puzzle_emb_lr", "weight_decay", "puzzle_emb_weight_decay", "ema", "optimiser", "seed")
ADAPTATIONS: Final[dict[Adaptation, str]] = {
    "full": "all weights",
    "embeddings": "the puzzle embeddings only",
    "embeddings_then_full": "the puzzle embeddings first, then all weights",
    "lora": "a LoRA on every linear layer, and the embeddings",
    "embeddings_then_lora": "the puzzle embeddings first, then a LoRA on every linear layer too",
}
"""What is trained, in words."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """How large a checkpoint is: numbers of the trunk, and the shape of the puzzle table, where there is one."""

    trunk: int
    table: tuple[int, ...] | None


def model_card(name: str, config: TrainConfig | None, step: int | None, folder: Path, weights: Weights | None) -> str:
    """The text of README.md. ``folder`` is the run's, whose evaluations are read; what is not known is said to be unknown."""
    head = ["---", "library_name: sttrl", "tags:", "- tiny-recursive-model", "- trm", "- arxiv:2510.04871", "---"]
    parts = [
        "\n".join(head),
        f"# {name}",
        "A tiny recursive model (TRM, [arXiv 2510.04871](https://arxiv.org/abs/2510.04871)): a small network that improves its answer to a "
        "puzzle by recursion.",
        *_what(config, step, weights),
        "## Measured by its own run",
        *_measured(folder, step),
        "## Use",
        "The weights are plain tensors under the names of TinyRecursiveModels, which loads `step_N` by `load_checkpoint`; the safetensors "
        "file beside it has the same content. Here:",
        "```bash\npython main.py trm evaluate step_N DATA\npython main.py trm solve step_N task.json\n```",
        *_settings(config),
    ]
    return "\n\n".join(parts) + "\n"


def weights_of(file: Path) -> Weights | None:
    """How large the weights of a safetensors file are, from its head; None for another file."""
    if file.suffix != ".safetensors":
        return None
    with file.open("rb") as opened:
        head = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
    shapes = {name: tuple(entry["shape"]) for name, entry in head.items() if name != "__metadata__"}
    tables = [shape for name, shape in shapes.items() if name.endswith(TABLE)]
    return Weights(
        trunk=sum(_product(shape) for name, shape in shapes.items() if not name.endswith(TABLE)), table=tables[0] if tables else None
    )


def measured(folder: Path, step: int | None = None) -> dict[str, float]:
    """The numbers of a run's last evaluation, or of that at ``step``: from metrics.jsonl, and the scores of its vote."""
    found: dict[str, float] = {}
    for line in _lines(folder / METRICS):
        if step is None or line.get("step") in (None, step):
            found |= {name: value for name, value in _flat(line) if MEASURED.match(name) and not name.startswith("train/")}
    return found | _scores(folder, step)


def _scores(folder: Path, step: int | None) -> dict[str, float]:
    files = [
        (int(match[1]), file) for file in folder.glob(f"evaluator_*/{SCORES}") if (match := re.search(r"_step_(\d+)$", file.parent.name))
    ]
    wanted = [(number, file) for number, file in sorted(files) if step is None or number == step][-1:]
    found: dict[str, float] = {}
    for _, file in wanted:
        content = json.loads(file.read_text(encoding="utf-8"))
        found |= content["metrics"] | {f"score/{name}": ratio["value"] for name, ratio in content["rules"].items()}
    return found


def _what(config: TrainConfig | None, step: int | None, weights: Weights | None) -> Iterator[str]:
    size = "" if weights is None else f" {weights.trunk:,} numbers in the trunk." + _table(weights.table)
    at = "" if step is None else f" after {step:,} optimiser steps"
    if config is None:
        yield f"How it was trained is not known: there was no {ALL_CONFIG} beside it.{size}"
        return
    base = f" Trained from `{Path(config.load_checkpoint).name}`." if config.load_checkpoint else ""
    data = ", ".join(f"`{Path(path).name}`" for path in config.data_paths)
    yield f"Trained: {ADAPTATIONS[config.adaptation]}, on {data}{at}.{base}{size}"


def _table(shape: tuple[int, ...] | None) -> str:
    return "" if shape is None else f" Puzzle embeddings: {shape[0]:,} rows of {shape[-1]}; they belong to the puzzles of this data set."


def _measured(folder: Path, step: int | None) -> Iterator[str]:
    numbers = measured(folder, step)
    if not numbers:
        yield "Nothing: the run has no evaluation at this step."
        return
    yield "\n".join(["| metric | value |", "|---|---|", *(f"| {name} | {value:.4g} |" for name, value in sorted(numbers.items()))])
    yield "Shares are of 1. `ARC/pass@K` and `score/per_task_mean` are means over tasks; puzzles of the data set's test split."


def _settings(config: TrainConfig | None) -> Iterator[str]:
    if config is None:
        return
    arch = config.model_arch
    rows = [f"| arch.{name} | {getattr(arch, name)} |" for name in ARCH_SHOWN]
    rows += [f"| {name} | {getattr(config, name)} |" for name in SHOWN]
    yield "## Settings"
    yield "\n".join(["| key | value |", "|---|---|", *rows])
    yield f"All of them are in {ALL_CONFIG}."


def _lines(file: Path) -> Iterator[Mapping[str, Any]]:
    """The objects of a JSON-lines file; none where there is no file. An incomplete last line is left out."""
    if not file.exists():
        return
    for line in file.read_text(encoding="utf-8").split("\n")[:-1]:
        value = json.loads(line)
        if isinstance(value, dict):
            yield value


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Numbers by name; those of nested objects with the outer name before them, as in ``all/accuracy``."""
    for name, part in value.items():
        if isinstance(part, dict):
            yield from _flat(part, f"{prefix}{name}/")
        elif isinstance(part, int | float) and not isinstance(part, bool):
            yield f"{prefix}{name}", float(part)


def _product(shape: tuple[int, ...]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total
