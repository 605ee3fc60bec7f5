"""Advantage estimators that verl does not have, with verl's arguments. `sttrl.objectives.registry` registers them with verl."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch


def dae(token_level_rewards: torch.Tensor, response_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """1 for every token of a response with reward 1, and -1 where the reward is 0 (DDRL, arXiv 2604.21327: debiased advantage estimation).

    Rewards and mask: (responses, tokens). The advantage does not depend on the group, so it does not grow where few samples are rewarded.

    Raises:
        ValueError: a reward that is neither 0 nor 1.
    """
    reward = token_level_rewards.sum(dim=-1)
    if not bool(((reward == 0) | (reward == 1)).all()):
        raise ValueError(f"the advantage estimator dae takes rewards of 0 and 1, got {sorted(set(reward.tolist()))}")
    advantage = (2 * reward - 1).unsqueeze(-1) * response_mask
    return advantage, advantage


def reinforce(token_level_rewards: torch.Tensor, response_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The reward of a response for each of its tokens, without a baseline (REINFORCE, Williams 1992).

    Rewards and mask: (responses, tokens).
    """
    advantage = token_level_rewards.sum(dim=-1, keepdim=True) * response_mask
    return advantage, advantage


OWN_ESTIMATORS: Final[dict[str, Callable[..., Any]]] = {
    "dae": dae,
    "reinforce": reinforce,
}
