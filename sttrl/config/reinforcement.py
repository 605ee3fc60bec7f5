"""Pseudo-reward, advantages and policy loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from sttrl.config.rules import NOT_NEGATIVE, OPTIONAL_COUNT, SHARE, Group, at_least

RewardKind = Literal["agreement", "frequency", "neg_entropy", "self_certainty", "logprob", "random", "format"]
REINFORCING = frozenset({"sttrl", "ttrl"})
"""The methods that reward the samples of a vote."""


@dataclass(frozen=True, kw_only=True)
class ReinforcementSettings(Group):
    """Pseudo-reward, advantages and policy loss."""

    methods: ClassVar[frozenset[str] | None] = REINFORCING

    reward: RewardKind = "agreement"
    """Pseudo-reward: agreement with the vote (TTRL), frequency of the answer (EMPO), neg_entropy (RENT), self_certainty (Intuitor),
    logprob (RLSC); random and format are negative controls."""
    adv_estimator: str = "grpo"
    """Advantage estimator, any outcome estimator of verl's, or gae: PPO with a critic (TTRL: grpo)."""
    policy_loss: str = "vanilla"
    """Policy loss, any of verl's: vanilla is PPO's clipped loss (TTRL), gspo, clip_cov, kl_cov, ..."""
    loss_aggregation: Literal["token-mean", "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm"] = "token-mean"
    """How token losses become one (TTRL: token-mean)."""
    ppo_epochs: Annotated[int, at_least(1)] = 1
    """Passes over the samples of a step (TTRL: 1)."""
    mini_batches: Annotated[int | None, OPTIONAL_COUNT] = None
    """Optimiser steps of a pass; unset: 1, ttrl: one a question of the batch (TTRL's scripts)."""
    clip_low: Annotated[float, NOT_NEGATIVE] = 0.2
    """PPO's clip below 1 (TTRL: 0.2)."""
    clip_high: Annotated[float, NOT_NEGATIVE] = 0.2
    """PPO's clip above 1 (TTRL: 0.2)."""
    gamma: Annotated[float, SHARE] = 1.0
    """Discount of later tokens (verl: 1.0)."""
    gae_lambda: Annotated[float, SHARE] = 1.0
    """Lambda of generalised advantage estimation (verl: 1.0)."""
    critic_lr: Annotated[float, NOT_NEGATIVE] = 1e-5
    """Learning rate of the critic of --adv_estimator gae (verl: 1e-5)."""
