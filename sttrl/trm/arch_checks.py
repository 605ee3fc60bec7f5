"""Which architectures make sense: each rule names the key, the value and the remedy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, get_args

from sttrl.config.rules import ABOVE_ZERO, FRACTION, NOT_NEGATIVE, Rule, at_least
from sttrl.errors import UsageError
from sttrl.trm.arch import ArchConfig, ForwardDtype, PositionKind

DROPOUT: Final = Rule(lambda value: 0 <= value < 1, "Use a number from 0 to below 1.")
RULES: Final[dict[str, Rule]] = {
    **dict.fromkeys(("halt_max_steps", "halt_max_steps_eval", "H_cycles", "L_cycles", "L_layers", "hidden_size", "num_heads"), at_least(1)),
    **dict.fromkeys(("H_layers", "puzzle_emb_ndim", "puzzle_emb_len", "lora_rank"), at_least(0)),
    **dict.fromkeys(("halt_exploration_prob", "grid_noise_prob", "grid_noise_fraction"), FRACTION),
    **dict.fromkeys(("lora_dropout", "puzzle_emb_dropout", "grid_token_dropout"), DROPOUT),
    **dict.fromkeys(("expansion", "rms_norm_eps", "rope_theta"), ABOVE_ZERO),
    "lora_alpha": NOT_NEGATIVE,
}
"""The values that a key of ``arch`` may have; None is always allowed."""


def check_arch(arch: ArchConfig) -> None:
    """Raises `UsageError` for an architecture that could not be built, or whose settings contradict each other."""
    for name, rule in RULES.items():
        if (value := getattr(arch, name)) is not None and not rule.allows(value):
            raise UsageError(f"--arch.{name} is {value}.", rule.remedy)
    for name, words in CHOICES.items():
        if getattr(arch, name) not in words:
            raise UsageError(f"--arch.{name} is {getattr(arch, name)}.", f"Use {' or '.join(words)}.")
    for holds, message, remedy in TOGETHER:
        if holds(arch):
            raise UsageError(message.format(arch=arch), remedy)


CHOICES: Final = {"pos_encodings": get_args(PositionKind), "forward_dtype": get_args(ForwardDtype)}
"""The words that a key may be."""


TOGETHER: Final[tuple[tuple[Callable[[ArchConfig], Any], str, str], ...]] = (
    (
        lambda arch: arch.num_heads > arch.hidden_size,
        "--arch.num_heads {arch.num_heads} is more than --arch.hidden_size {arch.hidden_size}.",
        "Use fewer heads.",
    ),
    (
        lambda arch: arch.pos_encodings == "rope" and not arch.mlp_t and (arch.hidden_size // arch.num_heads) % 2,
        "--arch.hidden_size {arch.hidden_size} with --arch.num_heads {arch.num_heads} gives heads of odd width, which cannot be rotated.",
        "Use another number of heads, or arch.pos_encodings=learned.",
    ),
    (
        lambda arch: arch.row_size == 0 and arch.puzzle_emb_len > 0,
        "--arch.puzzle_emb_len {arch.puzzle_emb_len} with --arch.puzzle_emb_ndim 0: there is no embedding to place there.",
        "Use arch.puzzle_emb_len=0.",
    ),
    (
        lambda arch: arch.row_size > arch.puzzle_tokens * arch.hidden_size,
        "--arch.puzzle_emb_ndim {arch.row_size} does not fit --arch.puzzle_emb_len {arch.puzzle_emb_len} positions of "
        "{arch.hidden_size} numbers.",
        "Use arch.puzzle_emb_len=0 for as many as are needed.",
    ),
    (
        lambda arch: arch.grid_noise_prob and not arch.grid_noise_fraction,
        "--arch.grid_noise_prob {arch.grid_noise_prob} with --arch.grid_noise_fraction 0 changes no cell.",
        "Give both, or neither.",
    ),
)
"""Contradictions: when they hold, the message and the remedy."""
