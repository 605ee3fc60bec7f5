"""Majority vote: every sample with an answer counts once (TTRL, arXiv 2504.16084)."""

from __future__ import annotations

from sttrl.types import Ballots, Election
from sttrl.voting.confidence import tie_confidence
from sttrl.voting.elect import VoteConfig, elect


def majority(ballots: Ballots, config: VoteConfig) -> Election:
    """The class with the most samples.

    Raises:
        ValueError: the tie policy is "confidence" and the ballots come without log-probs, or with some that are not finite.
    """
    return elect(ballots, majority_weights(ballots, config), config.ties, tie_confidence(ballots, config.ties))


def majority_weights(ballots: Ballots, config: VoteConfig) -> tuple[float, ...]:
    """1 for every sample."""
    return (1.0,) * len(ballots.class_G)
