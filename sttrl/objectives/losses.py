"""The loss of an update: verl's PPO loss, with the on-policy ratio made explicit and the sampler held to account."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict
from verl.workers.config import FSDPActorConfig
from verl.workers.config.actor import PolicyLossConfig
from verl.workers.utils.losses import ppo_loss
from verl.workers.utils.padding import no_padding_2_padding

from sttrl.types import Objective

GAP_SUMS = ("count", "gap", "gap_max", "x", "y", "xx", "yy", "xy", "finite")


def actor_config(objective: Objective, rows: int) -> FSDPActorConfig:
    """verl's actor configuration that says what ``objective`` says, for an update of ``rows`` responses."""
    return FSDPActorConfig(
        strategy="fsdp2",
        ppo_mini_batch_size=rows,
        ppo_micro_batch_size_per_gpu=1,
        use_dynamic_bsz=True,
        rollout_n=rows,
        clip_ratio=objective.clip_low,
        clip_ratio_low=objective.clip_low,
        clip_ratio_high=objective.clip_high,
        clip_ratio_c=objective.clip_dual,
        loss_agg_mode=objective.loss_aggregation,
        use_kl_loss=objective.kl_coef > 0,
        kl_loss_coef=objective.kl_coef,
        kl_loss_type=objective.kl_estimator,
        policy_loss=PolicyLossConfig(loss_mode=objective.policy_loss),
    )


def policy_loss(
    config: FSDPActorConfig, model_output: dict[str, torch.Tensor], data: TensorDict, dp_group: Any = None
) -> tuple[torch.Tensor, dict[str, Any]]:
    """verl's `ppo_loss`; without old log-probs in ``data`` the update is on-policy and the ratio is exactly 1.

    Without reference log-probs where the KL term wants them, the policy still is the base: the term is exactly 0.

    Metrics also carry the sums of `GAP_SUMS` over the response tokens, from which `agreement` compares the learner's
    log-probs with the sampler's.
    """
    logprob = no_padding_2_padding(model_output["log_probs"], data).detach()
    lengths = data["responses"].offsets().diff().tolist()
    learner = [row[:n] for row, n in zip(logprob, lengths, strict=True)]
    for column in ("old_log_probs", "ref_log_prob"):
        if column not in data.keys():
            data[column] = torch.nested.as_nested_tensor(learner, layout=torch.jagged)
    loss, metrics = ppo_loss(config, model_output, data, dp_group)
    return loss, metrics | {"sums": gap_sums(torch.cat(learner), data["rollout_log_probs"].values())}


def gap_sums(learner_S: torch.Tensor, sampler_S: torch.Tensor) -> dict[str, float]:
    """Sums over tokens from which mean and maximal difference and correlation follow, whatever the split."""
    x, y = learner_S.double(), sampler_S.double()
    gap = (x - y).abs()
    values = (
        float(len(x)),
        gap.sum(),
        gap.max(),
        x.sum(),
        y.sum(),
        (x * x).sum(),
        (y * y).sum(),
        (x * y).sum(),
        float(torch.isfinite(x).all()),
    )
    return dict(zip(GAP_SUMS, (float(v) for v in values), strict=True))


def agreement(sums: dict[str, float]) -> tuple[float, float, float | None]:
    """Mean and maximal absolute log-prob difference per token, and the correlation (None where it is undefined)."""
    n = sums["count"]
    covariance = sums["xy"] / n - sums["x"] / n * (sums["y"] / n)
    variance = (sums["xx"] / n - (sums["x"] / n) ** 2) * (sums["yy"] / n - (sums["y"] / n) ** 2)
    correlation = covariance / variance**0.5 if variance > 0 else None
    return sums["gap"] / n, sums["gap_max"], correlation
