"""Votes: each gives every sample a weight; the class with the greatest sum wins. Pure functions.

To add a vote: write it in a file of its own as ``(Ballots, VoteConfig) -> Election`` on top of `elect`, and give it a line in `VOTES`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sttrl.types import Ballots, Election
from sttrl.voting.elect import TiePolicy, VoteConfig, elect
from sttrl.voting.majority import majority

Vote = Callable[[Ballots, VoteConfig], Election]
"""A voting function; a sample without an answer never has a say in it."""

VOTES: Final[dict[str, Vote]] = {
    "majority": majority,
}

__all__ = ["VOTES", "TiePolicy", "Vote", "VoteConfig", "elect", "majority"]
