"""What a setting is when the user leaves it to the method or to the data set."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class MethodDefaults:
    """What a setting is when the user leaves it to the method."""

    steps: int
    lora_lr: float
    full_lr: float
    continuous_lr: float | None = None
    weight_decay: float = 0.01


METHOD_DEFAULTS: dict[str, MethodDefaults] = {
    "sttrl": MethodDefaults(steps=5, lora_lr=1e-3, full_lr=5e-7),
    "ttrl": MethodDefaults(steps=1, lora_lr=1e-3, full_lr=5e-7),
    "ttft": MethodDefaults(steps=5, lora_lr=1e-4, full_lr=1e-4, continuous_lr=5e-5),
    "slot": MethodDefaults(steps=5, lora_lr=0.1, full_lr=0.1, weight_decay=1e-8),
    "memo": MethodDefaults(steps=1, lora_lr=1e-5, full_lr=1e-5),
    "none": MethodDefaults(steps=0, lora_lr=0.0, full_lr=0.0),
}
"""Steps and rates by method: TTRL's scripts (full weights), the STTRL README (ttft), SLOT's README (arXiv 2505.12392), MEMO's
README; the rates of LoRA in sttrl and ttrl are derived."""

TTRL_PRESETS: dict[str, tuple[int, int]] = {
    "AIME-TTT": (8, 80),
    "AMC-TTT": (8, 30),
    "MATH-TTT": (32, 10),
}
"""Questions of a batch and epochs of TTRL's scripts, by data set."""
TTRL_OTHERWISE = (32, 10)
