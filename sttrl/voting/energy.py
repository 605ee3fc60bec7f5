"""Energy vote: the lower the energy of a sample's tokens, the more the sample weighs (a Boltzmann weight).

Free energy: W. Liu et al., "Energy-based Out-of-distribution Detection", NeurIPS 2020; semantic energy: arXiv 2508.14496.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, pstdev
from typing import Final

from sttrl.config import EnergyKind
from sttrl.types import Ballots, Election, Stat
from sttrl.voting.confidence import tie_confidence
from sttrl.voting.elect import ROUNDING, VoteConfig, elect, measure_voters

ENERGIES: Final[dict[EnergyKind, Stat]] = {
    "free_energy": "logsumexp",
    "semantic": "logit",
}
"""For each kind of energy, the token statistic that is minus the energy of a token: T logsumexp(z / T), or the token's logit."""


def energy(ballots: Ballots, config: VoteConfig) -> Election:
    """The class with the greatest sum of `energy_weights`.

    Raises:
        ValueError: a statistic that the vote reads is missing or not finite.
    """
    return elect(ballots, energy_weights(ballots, config), config.ties, tie_confidence(ballots, config.ties))


def energy_weights(ballots: Ballots, config: VoteConfig) -> tuple[float, ...]:
    """exp(-(E - E_min) / tau) of each sample, ``_G``, in [0, 1]: E is the mean energy of its tokens, E_min the lowest of the voters'.

    Without ``energy_tau``, tau is the population standard deviation of the voters' energies; if all are equal, each weight is 1.
    A sample that does not vote weighs 0 and counts neither for E_min nor for tau.

    Raises:
        ValueError: the statistic is missing or not finite.
    """
    energy_G = measure_voters(ballots, ENERGIES[config.energy], lambda value_T: -fmean(value_T))
    voting = [e for e in energy_G if e is not None]
    lowest = min(voting, default=0.0)
    tau = config.energy_tau if config.energy_tau is not None else _deviation(voting)
    return tuple(0.0 if e is None else math.exp((lowest - e) / tau) for e in energy_G)


def _deviation(energies: Sequence[float]) -> float:
    """Standard deviation; infinite if it is no more than rounding error, so that all weights are then 1."""
    deviation = pstdev(energies) if energies else 0.0
    return deviation if deviation > ROUNDING * max(map(abs, energies), default=0.0) else math.inf
