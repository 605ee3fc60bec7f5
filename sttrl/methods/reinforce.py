"""When a vote leads to an update: what sttrl and ttrl have in common, and the gates of ttft."""

from __future__ import annotations

from sttrl.config import RunConfig
from sttrl.objectives.rewards import reward_of, teach_nothing
from sttrl.types import Election, GateReason, HeldVote, StopReason


def nothing_to_learn(config: RunConfig, vote: HeldVote) -> StopReason | None:
    """Why there is nothing to learn from a vote: no answer, a tie, equal rewards, or ``--stop_agreement``; None if there is."""
    election, needs_winner = vote.election, reward_of(config.reinforcement.reward).elects
    alike = teach_nothing(vote.reward_G, config.reinforcement.adv_estimator)
    if election.voters == 0 and (needs_winner or alike):
        return "unparsable"
    if needs_winner and election.abstains:
        return "tie"
    if alike:
        return "unanimous"
    return "agreement" if election.majority_ratio >= config.method.stop_agreement else None


def distrust(config: RunConfig, election: Election) -> GateReason | None:
    """The gate that does not trust an election; None if both do."""
    if election.margin < config.vote.min_margin:
        return "margin"
    return "agreement" if election.majority_ratio < config.vote.min_agreement else None


def gate_of(config: RunConfig, vote: HeldVote) -> GateReason | None:
    """The gate that prevents an update after a vote: one that does not trust its election, or its risk."""
    return distrust(config, vote.election) or ("risk" if vote.risky else None)
