"""RESTRAIN (arXiv 2510.02172): self-penalisation. Pure functions of a vote."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Final

from sttrl.config import RestrainSettings
from sttrl.types import Ballots, Election

_GRPO_EPSILON: Final = 1e-6
"""What verl's grpo adds to the standard deviation."""


_DEFAULTS: Final = RestrainSettings()


def restrain(ballots: Ballots, election: Election, seeds_G: Sequence[int], settings: RestrainSettings = _DEFAULTS) -> tuple[float, ...]:
    """The advantage of each sample, as the mean over all answers as pseudo-labels (RESTRAIN, arXiv 2510.02172).

    Each answer j with a share f_j of the samples is taken for the label: GRPO's advantage is (r - f_j) / std, with r = 1 for its samples
    and 0 for all others. The mean over j is weighed by w_j = g(f_j) / (sum of g), with g(f) = exp(-(f - center)^2 / (2 sigma^2)). If no
    f_j is at least ``restrain_min_share``, all rewards are 0, and every sample has the advantage -``restrain_offset``. All are 0 if no
    sample has an answer. Shares are fractions of all samples, those without an answer included.
    """
    count = Counter(c for c in ballots.class_G[: election.samples] if c is not None)
    share = {c: n / election.samples for c, n in count.items()}
    if not share:
        return (0.0,) * len(ballots.class_G)
    if max(share.values()) < settings.restrain_min_share:
        return (-settings.restrain_offset,) * len(ballots.class_G)
    height = {c: _log_gaussian(f, settings) for c, f in share.items()}
    top = max(height.values())
    total = math.fsum(math.exp(h - top) for h in height.values())
    weight = {c: math.exp(h - top) / total for c, h in height.items()}
    deviation = {c: math.sqrt(f * (1 - f) * election.samples / max(1, election.samples - 1)) for c, f in share.items()}
    pull = {c: weight[c] / (deviation[c] + _GRPO_EPSILON) if share[c] < 1 else 0.0 for c in share}
    against = 0.0 - math.fsum(pull[c] * share[c] for c in share)
    return tuple(against if c is None else against + pull.get(c, 0.0) for c in ballots.class_G)


def prompt_weight(largest_share: float, settings: RestrainSettings = _DEFAULTS) -> float:
    """u_x = g(share of the majority): what all advantages of a question are multiplied by, in (0, 1]."""
    return math.exp(_log_gaussian(largest_share, settings))


def _log_gaussian(share: float, settings: RestrainSettings) -> float:
    return -(((share - settings.restrain_center) / settings.restrain_sigma) ** 2) / 2
