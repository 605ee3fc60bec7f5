"""Pseudo-reward, advantages and policy loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, get_args

from sttrl.config.extensions import Choice
from sttrl.config.rules import ABOVE_ZERO, FRACTION, NOT_NEGATIVE, OPTIONAL_COUNT, Group, Rule, at_least

RewardKind = Literal[
    "agreement", "frequency", "neg_entropy", "self_certainty", "logprob", "scrl", "scope", "restrain", "random", "format",
    "demonstrations", "demonstrations_random",
]  # fmt: skip
BINARY = frozenset({"agreement", "scope", "random", "format", "demonstrations_random"})
"""The rewards that are 0 or 1."""
OF_WHOLE_RESPONSES = frozenset({"gspo", "sapo", "geo_mean"})
"""The policy losses that are no sum of the losses of single tokens."""
TrainSamples = Literal["first", "balanced"]
AdvantageShaping = Literal["none", "relative_entropy", "clip"]
REWARD = Choice(setting="reward", noun="reward", group="sttrl.rewards", ours=get_args(RewardKind))
ESTIMATOR = Choice(setting="adv_estimator", noun="estimator", group="sttrl.adv_estimators", open=True)
CAP = Rule(lambda value: 1 <= value < float("inf"), "Use a finite number, 1 or more, such as 2; or leave it out.")
REINFORCING = frozenset({"sttrl", "ttrl"})
"""The methods that reward the samples of a vote."""


@dataclass(frozen=True, kw_only=True)
class ReinforcementSettings(Group):
    """Pseudo-reward, advantages and policy loss."""

    methods: ClassVar[frozenset[str] | None] = REINFORCING
    needs: ClassVar[Mapping[str, tuple[str, tuple[Any, ...]]]] = {"advantage_clip": ("advantage_shaping", ("clip",))}

    reward: Annotated[RewardKind | str, REWARD, REWARD.flag] = "agreement"
    """Pseudo-reward: agreement with the elected answer (TTRL), frequency of the answer (EMPO), neg_entropy (RENT), self_certainty
    (Intuitor), logprob (RLSC), scrl (SCRL: only a clear majority is rewarded, rare and unsure answers are punished), scope (SCOPE:
    agreement with the label of the sample's own subgroup), restrain (RESTRAIN: every answer is a pseudo-label, weighed by its share);
    demonstrations: of a puzzle, held out, so the answer is known; random, format and demonstrations_random (on the same demonstrations)
    are negative controls. Or package.module:Name, a reward of your own."""
    train_samples: TrainSamples = "first"
    """Which n_train of the samples that vote are trained on: the first ones (TTRL), or balanced, winners up to half and then those with
    the rarest answers (DDRL)."""
    adv_estimator: Annotated[str, ESTIMATOR, ESTIMATOR.flag] = "grpo"
    """Any advantage estimator of verl (TTRL: grpo); gae is PPO with a critic; dae is 1 or -1, whatever the group (DDRL); reinforce
    is the reward itself. Or package.module:Name, one of your own."""
    advantage_shaping: AdvantageShaping = "none"
    """What is done to the advantages of the estimator: nothing; relative_entropy, scale those of a response by how much lower its entropy
    is than the group's; or clip, bound them (ETTRL)."""
    advantage_clip: Annotated[float, ABOVE_ZERO] = 2.0
    """The largest advantage, and the lowest is minus this, with --advantage_shaping clip (ETTRL: 2)."""
    policy_loss: str = "vanilla"
    """Any policy loss of verl: vanilla is PPO's clipped loss (TTRL), gspo, clip_cov, kl_cov, ..."""
    loss_aggregation: Literal["token-mean", "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm"] = "token-mean"
    """How the losses of the tokens are combined into one (TTRL: token-mean)."""
    ppo_epochs: Annotated[int, at_least(1)] = 1
    """Passes over the samples of a step (TTRL: 1)."""
    mini_batches: Annotated[int | None, OPTIONAL_COUNT] = None
    """Optimiser steps in a pass; unset: 1, in ttrl one for each question of the batch (TTRL's scripts)."""
    clip_low: Annotated[float, NOT_NEGATIVE] = 0.2
    """PPO clips the ratio at 1 minus this (TTRL: 0.2)."""
    clip_high: Annotated[float, NOT_NEGATIVE] = 0.2
    """PPO clips the ratio at 1 plus this (TTRL: 0.2)."""
    tis_cap: Annotated[float | None, CAP] = None
    """Truncated importance sampling: weigh each token by the ratio of the old learner's probability to the sampler's, at most this (verl:
    2.0); unset: all tokens weigh 1."""
    gamma: Annotated[float, FRACTION] = 1.0
    """Discount of later tokens (verl: 1.0)."""
    gae_lambda: Annotated[float, FRACTION] = 1.0
    """Lambda of generalised advantage estimation (verl: 1.0)."""
    critic_lr: Annotated[float, NOT_NEGATIVE] = 1e-5
    """Learning rate of the critic, for --adv_estimator gae (verl: 1e-5)."""
