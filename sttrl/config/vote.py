"""How samples elect a pseudo-label, and when the vote is not trusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Literal, get_args

from sttrl.config.extensions import Choice
from sttrl.config.rules import FRACTION, Group, Rule, at_least

VotingFunction = Literal["majority", "energy", "confidence", "harmony"]
VOTE = Choice(setting="voting_function", noun="vote", group="sttrl.votes", ours=get_args(VotingFunction))
WEIGHING: Final = ("majority", "energy", "confidence")
"""The votes of ours that give each sample a weight of its own: the names in `sttrl.voting.WEIGHTS`."""
ELECTING = frozenset({"sttrl", "ttrl", "ttft"})
"""The methods that hold votes."""
SUPERMAJORITY = Rule(lambda value: 0.5 < value <= 1, "Use a share above 0.5, at most 1, such as 0.75; or leave it out.")


@dataclass(frozen=True, kw_only=True)
class VoteSettings(Group):
    """How samples elect a pseudo-label, and when the vote is not trusted."""

    methods: ClassVar[frozenset[str] | None] = ELECTING
    needs: ClassVar[Mapping[str, tuple[str, tuple[Any, ...]]]] = {"votes_first": ("votes_until", ())}

    voting_function: Annotated[VotingFunction | str, VOTE, VOTE.flag] = "majority"
    """How samples elect the pseudo-label: by majority of equal answers, with each sample weighed by its energy or confidence, or by the
    harmonic mean of the answer's frequencies under several views of the question (harmony, Self-Harmony). Or package.module:Name, a vote
    of your own."""
    ties: Literal["abstain", "first", "confidence"] = "abstain"
    """In a tied vote elect no answer (abstain), the one that was sampled first, or the one with the higher mean confidence."""
    votes_until: Annotated[float | None, SUPERMAJORITY] = None
    """Sample 2, 4, 8, ... responses until the elected answer has at least this share of them, at most --n_votes (derived); unset:
    always --n_votes."""
    votes_first: Annotated[int, at_least(2, ": one sample always agrees with itself")] = 2
    """Responses in the first round of --votes_until; each later round doubles their number (derived)."""
    min_margin: Annotated[float, FRACTION] = 0.0
    """Gate: no update after a vote whose winner leads the runner-up by less than this fraction of the vote weight."""
    min_agreement: Annotated[float, FRACTION] = 0.0
    """Gate: no update after a vote whose winner has less than this fraction of all samples."""
