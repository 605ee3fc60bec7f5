"""The reward scrl."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from sttrl.config.reinforcement import REINFORCING
from sttrl.config.rules import FRACTION, NOT_NEGATIVE, POSITIVE_FRACTION, Group

ScrlForm = Literal["fixed", "shaped"]


@dataclass(frozen=True, kw_only=True)
class ScrlSettings(Group):
    """The reward scrl (arXiv 2603.19880)."""

    methods: ClassVar[frozenset[str] | None] = REINFORCING
    needs: ClassVar[Mapping[str, tuple[str, tuple[Any, ...]]]] = {
        **dict.fromkeys(("scrl_form", "scrl_positive_share", "scrl_margin", "scrl_negative_share"), ("reward", ("scrl",))),
        "scrl_entropy_weight": ("scrl_form", ("shaped",)),
    }

    scrl_form: ScrlForm = "fixed"
    """fixed: 1 for the positive class, -1 for negative ones, 0 otherwise. shaped: the paper's dynamic reward, which grows with the share
    of the class and falls with its entropy."""
    scrl_positive_share: Annotated[float, POSITIVE_FRACTION] = 0.375
    """The largest class is positive if it has at least this fraction of all samples (SCRL: 0.375)."""
    scrl_margin: Annotated[float, FRACTION] = 0.125
    """And if it leads the next class by more than this fraction of all samples (SCRL: 0.125)."""
    scrl_negative_share: Annotated[float, FRACTION] = 0.125
    """A class with less than this fraction of all samples is negative, if its entropy is at least the group's (SCRL: 0.125)."""
    scrl_entropy_weight: Annotated[float, NOT_NEGATIVE] = 0.1
    """How much the shaped reward falls for each nat that the entropy of the class is above the group's (SCRL's script: 0.1)."""
