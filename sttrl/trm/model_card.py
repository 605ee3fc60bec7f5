"""The model card of a checkpoint on the hub: what was trained, on what, and what the run measured."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sttrl.ledger.files import whole_lines
from sttrl.trm.arch import TABLE
from sttrl.trm.evaluation_files import ARC, SCORES, evaluation_folder
from sttrl.trm.train_config import ADAPTATIONS, ALL_CONFIG, METRICS, TrainConfig

NO_METRICS: Final = ("step", "num_params")
"""Numbers in metrics.jsonl that no evaluation measures; those of ``train/`` are the others."""
ARCH_SHOWN: Final = ("H_cycles", "L_cycles", "L_layers", "hidden_size", "num_heads", "puzzle_emb_len", "mlp_t")
SHOWN: Final = ("global_batch_size", "epochs", "lr", "puzzle_emb_lr", "weight_decay", "puzzle_emb_weight_decay", "ema", "optimiser", "seed")


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
        trunk=sum(math.prod(shape) for name, shape in shapes.items() if not name.endswith(TABLE)), table=tables[0] if tables else None
    )


def measured(folder: Path, step: int | None = None) -> dict[str, float]:
    """The numbers of a run's last evaluation, or of that at ``step``: from metrics.jsonl, and the scores of its vote."""
    path = folder / METRICS
    lines = [json.loads(line) for line in whole_lines(path.read_bytes())] if path.is_file() else []
    found = {line["step"]: numbers for line in lines if (numbers := _numbers(line))}
    step = max(found, default=None) if step is None else step
    return {} if step is None else found.get(step, {}) | _scores(folder, step)


def _numbers(line: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of an evaluation in a line of metrics.jsonl; none in the line of a training step."""
    return {
        name: value
        for name, value in line.items()
        if isinstance(value, int | float) and name not in NO_METRICS and not name.startswith("train/")
    }


def _scores(folder: Path, step: int) -> dict[str, float]:
    file = evaluation_folder(folder, ARC, step) / SCORES
    if not file.is_file():
        return {}
    content = json.loads(file.read_text(encoding="utf-8"))
    return content["metrics"] | {f"score/{name}": ratio["value"] for name, ratio in content["rules"].items()}


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
