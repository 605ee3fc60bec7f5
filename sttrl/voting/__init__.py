"""Votes: each gives every sample a weight; the class with the greatest sum wins. Pure functions.

To add a vote: write it in a file of its own as ``(Ballots, VoteConfig) -> Election`` on top of `elect`, and give it a line in `VOTES`
and one in `READS`. A vote that lives elsewhere is named as ``package.module:Name``; see `StatVote`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sttrl.config.extensions import Part, check_fits, imported
from sttrl.config.vote import VOTE
from sttrl.types import Ballots, Election, Stat
from sttrl.voting.confidence import STATISTICS, confidence, confidence_vote, confidence_weights, mean_logprob_confidence, tie_confidence
from sttrl.voting.elect import TiePolicy, VoteConfig, elect, measure_voters
from sttrl.voting.energy import ENERGIES, energy, energy_weights
from sttrl.voting.harmony import harmony
from sttrl.voting.majority import majority, majority_weights

Vote = Callable[[Ballots, VoteConfig], Election]
"""A voting function. A sample without an answer has no vote."""

VOTES: Final[dict[str, Vote]] = {
    "majority": majority,
    "energy": energy,
    "confidence": confidence,
    "harmony": harmony,
}

WEIGHTS: Final[dict[str, Callable[[Ballots, VoteConfig], Sequence[float]]]] = {
    "majority": majority_weights,
    "energy": energy_weights,
    "confidence": confidence_weights,
}
"""The weight of each sample in each of these votes, ``_G``; 0 for a sample that does not vote, or any number."""

READS: Final[dict[str, Callable[[VoteConfig], frozenset[Stat]]]] = {
    "majority": lambda config: frozenset(),
    "energy": lambda config: frozenset({ENERGIES[config.energy]}),
    "confidence": lambda config: frozenset({STATISTICS[config.confidence][0]}),
    "harmony": lambda config: frozenset(),
}
"""The token statistics that each vote weighs samples by."""


@dataclass(frozen=True, kw_only=True)
class StatVote:
    """A vote that is named as ``package.module:Name`` and reads token statistics. A function is taken to read none."""

    function: Vote
    stats: frozenset[Stat]

    def __call__(self, ballots: Ballots, config: VoteConfig) -> Election:
        """Hold the vote."""
        return self.function(ballots, config)


def vote_of(name: str) -> Vote:
    """The vote of this name, or what ``package.module:Name`` names. Raises `UsageError` if that is no vote."""
    if name in VOTES:
        return VOTES[name]
    vote: Any = imported(VOTE, name)
    function = vote.function if isinstance(vote, StatVote) else vote
    check_fits(VOTE, name, function, [Part("", ("ballots", "config"))], "how_to_add_a_vote.md")
    checked: Vote = vote
    return checked


def elect_by(name: str, ballots: Ballots, config: VoteConfig) -> Election:
    """What a vote elects. Raises TypeError if one of one's own returns no election."""
    election: object = vote_of(name)(ballots, config)
    if not isinstance(election, Election):
        raise TypeError(f"the vote {name} returned {type(election).__name__}, not an Election")
    return election


def stats_needed(voting_function: str, config: VoteConfig) -> frozenset[Stat]:
    """The token statistics that a vote reads, including those that break its ties.

    Log-probs come with the samples; for any other statistic the learner runs a forward pass over the samples.
    """
    broken_by: frozenset[Stat] = frozenset({"logprob"}) if config.ties == "confidence" else frozenset()
    if voting_function in READS:
        return READS[voting_function](config) | broken_by
    vote = vote_of(voting_function)
    return (vote.stats if isinstance(vote, StatVote) else frozenset()) | broken_by


__all__ = [
    "READS",
    "VOTES",
    "WEIGHTS",
    "StatVote",
    "TiePolicy",
    "Vote",
    "VoteConfig",
    "confidence",
    "confidence_vote",
    "elect",
    "elect_by",
    "energy",
    "harmony",
    "majority",
    "mean_logprob_confidence",
    "measure_voters",
    "stats_needed",
    "tie_confidence",
    "vote_of",
]
