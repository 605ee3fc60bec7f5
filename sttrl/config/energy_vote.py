"""The energy vote."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from sttrl.config.rules import ABOVE_ZERO, Group

EnergyKind = Literal["free_energy", "semantic"]


@dataclass(frozen=True, kw_only=True)
class EnergyVoteSettings(Group):
    """The energy vote."""

    votes: ClassVar[frozenset[str] | None] = frozenset({"energy"})

    energy: EnergyKind = "free_energy"
    """The energy of a token: free_energy, -T logsumexp(z / T) (Liu 2020), or semantic, minus the token's logit (arXiv 2508.14496)."""
    energy_temp: Annotated[float, ABOVE_ZERO] = 1.0
    """T of the free energy."""
    energy_tau: Annotated[float | None, ABOVE_ZERO] = None
    """tau of the weights exp(-(E - E_min) / tau); unset: the standard deviation of the voters' energies."""
