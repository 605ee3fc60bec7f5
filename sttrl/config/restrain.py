"""The reward restrain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from sttrl.config.reinforcement import REINFORCING
from sttrl.config.rules import ABOVE_ZERO, FRACTION, NOT_NEGATIVE, Group


@dataclass(frozen=True, kw_only=True)
class RestrainSettings(Group):
    """The reward restrain (arXiv 2510.02172). The paper's values could not be read: all defaults are derived."""

    methods: ClassVar[frozenset[str] | None] = REINFORCING
    needs: ClassVar[Mapping[str, tuple[str, tuple[Any, ...]]]] = dict.fromkeys(
        ("restrain_sigma", "restrain_center", "restrain_min_share", "restrain_offset", "restrain_prompt_weight"), ("reward", ("restrain",))
    )

    restrain_sigma: Annotated[float, ABOVE_ZERO] = 0.25
    """Width of the Gaussian that weighs an answer by its share of the samples; the narrower, the more the majority counts (derived)."""
    restrain_center: Annotated[float, FRACTION] = 1.0
    """Share at which this Gaussian is highest (derived)."""
    restrain_min_share: Annotated[float, FRACTION] = 0.125
    """Where no answer has at least this share of the samples, every sample is punished (derived; the paper counts samples)."""
    restrain_offset: Annotated[float, NOT_NEGATIVE] = 1.0
    """By how much their advantages are lowered then (derived)."""
    restrain_prompt_weight: bool = True
    """Multiply the advantages of a question by the Gaussian of the largest share in its first vote."""
