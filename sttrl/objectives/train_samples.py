"""Which samples of a vote are trained on. Pure functions that give the numbers of the samples, in rising order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from sttrl.config import TrainSamples
from sttrl.types import Ballots, Election

Choose = Callable[[Ballots, Election, int], tuple[int, ...]]
"""(ballots of a group, result of the vote, how many) -> numbers of the samples."""


def first(ballots: Ballots, election: Election, count: int) -> tuple[int, ...]:
    """The first ``count`` samples (TTRL, arXiv 2504.16084)."""
    return tuple(range(min(count, election.samples)))


def balanced(ballots: Ballots, election: Election, count: int) -> tuple[int, ...]:
    """Winners up to half of ``count``, and the samples with the rarest answers (DDRL, arXiv 2604.21327: balanced sampling).

    A sample without an answer is the rarest, as in the authors' code. If the losers do not suffice, more winners fill the places. Among
    samples that are equally rare the first ones are taken (derived).
    """
    size, number_G = Counter(ballots.class_G), range(election.samples)
    winners = [i for i in number_G if election.in_winner_G[i]][: count // 2]

    def rarity(i: int) -> tuple[float, int]:
        own = ballots.class_G[i]
        return election.in_winner_G[i], 0 if own is None else size[own]

    others = sorted(set(number_G) - set(winners))
    return tuple(sorted([*winners, *sorted(others, key=rarity)[: count - len(winners)]]))


TRAIN_SAMPLES: Final[dict[TrainSamples, Choose]] = {
    "first": first,
    "balanced": balanced,
}
