"""Defaults that depend on the method or on the data set, for settings that the user leaves unset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class MethodDefaults:
    """The defaults of one method."""

    steps: int
    lora_lr: float
    full_lr: float
    continuous_lr: float | None = None
    weight_decay: float = 0.01
    lr_schedule: Literal["constant", "cosine"] = "constant"
    warmup_ratio: float = 0.0
    lowest_lr: float = 0.0
    adam_betas: tuple[float, float] = (0.9, 0.999)


METHOD_DEFAULTS: dict[str, MethodDefaults] = {
    "sttrl": MethodDefaults(steps=5, lora_lr=1e-3, full_lr=5e-7),
    "ttrl": MethodDefaults(steps=1, lora_lr=1e-3, full_lr=5e-7),
    "ttft": MethodDefaults(steps=5, lora_lr=1e-4, full_lr=1e-4, continuous_lr=5e-5),
    "slot": MethodDefaults(steps=5, lora_lr=0.1, full_lr=0.1, weight_decay=1e-8),
    "memo": MethodDefaults(steps=1, lora_lr=1e-5, full_lr=1e-5),
    "ttt": MethodDefaults(
        steps=100_000,
        lora_lr=5e-4,
        full_lr=1e-5,
        weight_decay=0.0,
        lr_schedule="cosine",
        warmup_ratio=0.1,
        lowest_lr=0.05,
        adam_betas=(0.9, 0.95),
    ),
    "finetune": MethodDefaults(
        steps=100_000_000, lora_lr=1e-4, full_lr=1e-5, weight_decay=0.0, lr_schedule="cosine", warmup_ratio=0.25, lowest_lr=0.0
    ),
    "stored": MethodDefaults(steps=0, lora_lr=0.0, full_lr=0.0),
    "none": MethodDefaults(steps=0, lora_lr=0.0, full_lr=0.0),
}
"""The defaults of each method. Their sources: TTRL's scripts (full weights), the STTRL README (ttft), SLOT's README (arXiv 2505.12392),
MEMO's README, ARChitects' scripts of 2024 (finetune). The learning rates of LoRA in sttrl and ttrl, that of full weights in finetune, and
all numbers of ttt are derived; ttt and finetune take as many steps as their rows make."""

TTRL_BATCHES: dict[str, tuple[int, int]] = {
    "AIME-TTT": (8, 80),
    "AMC-TTT": (8, 30),
    "MATH-TTT": (32, 10),
}
"""(questions in a batch, epochs) in TTRL's scripts, by data set; `sttrl.config.presets` has their other values."""
TTRL_OTHERWISE = (32, 10)
