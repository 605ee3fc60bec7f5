"""Votes: each gives every sample a weight; the class with the greatest sum wins. Pure functions.

To add a vote: write it in a file of its own as ``(Ballots, VoteConfig) -> Election`` on top of `elect`, and give it a line in `VOTES`
and one in `READS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sttrl.types import Ballots, Election, Stat
from sttrl.voting.confidence import STATISTICS, confidence, confidence_vote, mean_logprob_confidence, tie_confidence
from sttrl.voting.elect import TiePolicy, VoteConfig, elect, measure_voters
from sttrl.voting.energy import ENERGIES, energy
from sttrl.voting.majority import majority

Vote = Callable[[Ballots, VoteConfig], Election]
"""A voting function. A sample without an answer has no vote."""

VOTES: Final[dict[str, Vote]] = {
    "majority": majority,
    "energy": energy,
    "confidence": confidence,
}

READS: Final[dict[str, Callable[[VoteConfig], frozenset[Stat]]]] = {
    "majority": lambda config: frozenset(),
    "energy": lambda config: frozenset({ENERGIES[config.energy]}),
    "confidence": lambda config: frozenset({STATISTICS[config.confidence][0]}),
}
"""The token statistics that each vote weighs samples by."""


def stats_needed(voting_function: str, config: VoteConfig) -> frozenset[Stat]:
    """The token statistics that a vote reads, including those that break its ties.

    Log-probs come with the samples; for any other statistic the learner runs a forward pass over the samples.
    """
    broken_by: frozenset[Stat] = frozenset({"logprob"}) if config.ties == "confidence" else frozenset()
    return READS[voting_function](config) | broken_by


__all__ = [
    "READS",
    "VOTES",
    "TiePolicy",
    "Vote",
    "VoteConfig",
    "confidence",
    "confidence_vote",
    "elect",
    "energy",
    "majority",
    "mean_logprob_confidence",
    "measure_voters",
    "stats_needed",
    "tie_confidence",
]
