"""RESTRAIN (arXiv 2510.02172): self-penalisation. Pure functions of a vote."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sttrl.config import RunConfig
from sttrl.types import Ballots, Election

_GRPO_EPSILON: Final = 1e-6
"""What verl's grpo adds to the standard deviation."""


@dataclass(frozen=True, kw_only=True)
class RestrainConfig:
    """The settings of `restrain`; defaults are those of the command line (derived).

    ``sigma`` and ``center``: width and centre of the Gaussian g over shares, fractions of all samples, those without an answer included.
    ``min_share``: the least share of the majority that is trusted. ``offset``: delta, what advantages lose below it.
    """

    sigma: float = 0.25
    center: float = 1.0
    min_share: float = 0.125
    offset: float = 1.0

    @classmethod
    def of(cls, config: RunConfig) -> RestrainConfig:
        """The settings of a run."""
        chosen = config.restrain
        return cls(
            sigma=chosen.restrain_sigma,
            center=chosen.restrain_center,
            min_share=chosen.restrain_min_share,
            offset=chosen.restrain_offset,
        )


_DEFAULTS: Final = RestrainConfig()


def restrain(ballots: Ballots, election: Election, seeds_G: Sequence[int], config: RestrainConfig = _DEFAULTS) -> tuple[float, ...]:
    """The advantage of each sample, as the mean over all answers as pseudo-labels (RESTRAIN, arXiv 2510.02172).

    Each answer j with a share f_j of the samples is taken for the label: GRPO's advantage is (r - f_j) / std, with r = 1 for its samples
    and 0 for all others. The mean over j is weighed by w_j = g(f_j) / (sum of g), with g(f) = exp(-(f - center)^2 / (2 sigma^2)). If no
    f_j is at least ``min_share``, all rewards are 0, and every sample has the advantage -``offset``. All are 0 if no sample has an answer.
    """
    count = Counter(c for c in ballots.class_G[: election.samples] if c is not None)
    share = {c: n / election.samples for c, n in count.items()}
    if not share:
        return (0.0,) * len(ballots.class_G)
    if max(share.values()) < config.min_share:
        return (-config.offset,) * len(ballots.class_G)
    height = {c: _log_gaussian(f, config) for c, f in share.items()}
    top = max(height.values())
    total = math.fsum(math.exp(h - top) for h in height.values())
    weight = {c: math.exp(h - top) / total for c, h in height.items()}
    deviation = {c: math.sqrt(f * (1 - f) * election.samples / max(1, election.samples - 1)) for c, f in share.items()}
    pull = {c: weight[c] / (deviation[c] + _GRPO_EPSILON) if share[c] < 1 else 0.0 for c in share}
    against = 0.0 - math.fsum(pull[c] * share[c] for c in share)
    return tuple(against if c is None else against + pull.get(c, 0.0) for c in ballots.class_G)


def prompt_weight(largest_share: float, config: RestrainConfig = _DEFAULTS) -> float:
    """u_x = g(share of the majority): what all advantages of a question are multiplied by, in (0, 1]."""
    return math.exp(_log_gaussian(largest_share, config))


def _log_gaussian(share: float, config: RestrainConfig) -> float:
    return -(((share - config.center) / config.sigma) ** 2) / 2
