"""Outcome advantages by verl's estimators."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from verl.trainer.ppo.core_algos import get_adv_estimator_fn


def group_advantages(reward_G: Sequence[float], estimator: str = "grpo") -> tuple[float, ...]:
    """One advantage per response of a group, by verl's outcome estimator ``estimator``.

    GRPO (arXiv 2402.03300): the reward less the group's mean, divided by the group's standard deviation.
    Raises ValueError for a reward that is not finite.
    """
    if not all(np.isfinite(reward_G)):
        raise ValueError(f"rewards must be finite, got {list(reward_G)}")
    reward = torch.tensor(reward_G, dtype=torch.float64)[:, None]
    same_group = np.zeros(len(reward_G), dtype=np.int64)
    advantage, _ = get_adv_estimator_fn(estimator)(token_level_rewards=reward, response_mask=torch.ones_like(reward), index=same_group)
    return tuple(float(a) for a in advantage[:, 0])
