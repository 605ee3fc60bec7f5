"""How all votes on a question so far, with the present one, change the update on it: RESTRAIN's weight, and the parts of TTRL-Guard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from sttrl.config import RunConfig
from sttrl.ledger.records import StepRecord
from sttrl.objectives.guard import PastVote, flips, frs_weight, is_risky, most_skipped, mps_bonus
from sttrl.objectives.restrain import prompt_weight
from sttrl.types import HeldVote


def with_past(config: RunConfig, vote: HeldVote, past: Sequence[StepRecord], chance: Callable[[], float]) -> HeldVote:
    """A vote with the weight of its question, its bonus and its risk. ``past``: the earlier steps that asked the same prompt.

    ``chance``: draws a number in [0, 1).
    """
    if config.reinforcement.reward == "restrain" and config.restrain.restrain_prompt_weight:
        first = next((step.ballots.class_G for step in past if step.ballots is not None), vote.ballots.class_G)
        vote = replace(vote, weight=prompt_weight(_largest_share(first), config.restrain))
    return vote if not config.ttrl_guard.guard else _guarded(config, vote, past, chance)


def _guarded(config: RunConfig, vote: HeldVote, past: Sequence[StepRecord], chance: Callable[[], float]) -> HeldVote:
    """The vote as TTRL-Guard takes it."""
    chosen = config.ttrl_guard
    held = [(step.elected, step.election) for step in past]
    votes = [PastVote(elected=texts, majority_ratio=e.majority_ratio) for texts, e in held if texts is not None and e is not None]
    votes.append(PastVote(elected=frozenset(vote.elected), majority_ratio=vote.election.majority_ratio))
    if "frs" in chosen.guard:
        vote = replace(vote, weight=(1.0 if vote.weight is None else vote.weight) * frs_weight(votes, chosen.guard_window))
    if "mps" in chosen.guard and flips(votes)[-1]:
        vote = replace(vote, bonus_G=mps_bonus(vote.ballots, vote.election))
    risky = "rcsu" in chosen.guard and is_risky(votes, chosen.guard_window, chosen.guard_share) and chance() < chosen.guard_skip
    return replace(vote, risky=risky)


def capped(votes: Sequence[HeldVote]) -> list[HeldVote]:
    """The votes of a step. Only the first `most_skipped` risky ones stay risky: a step leaves out no more updates than that."""
    risky = [i for i, vote in enumerate(votes) if vote.risky][: most_skipped(len(votes))]
    return [replace(vote, risky=i in risky) for i, vote in enumerate(votes)]


def _largest_share(class_G: Sequence[int | None]) -> float:
    """The share of the samples that gave the most frequent answer; 0 if none gave any."""
    count = Counter(c for c in class_G if c is not None)
    return max(count.values(), default=0) / len(class_G)
