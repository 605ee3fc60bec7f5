"""The losses of an update: verl's own, with the on-policy ratio made explicit and the sampler held to account.

A loss is ``(model_output, data) -> (loss of the micro-batch, metrics)``; the losses of all micro-batches on all ranks add
up (over ranks: average) to the mean over the whole optimiser step.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from tensordict import TensorDict
from verl.trainer.ppo.core_algos import agg_loss, kl_penalty
from verl.trainer.ppo.rollout_corr_helper import compute_rollout_correction_weights
from verl.utils import tensordict_utils as tu
from verl.utils.metric import AggregationType, Metric
from verl.workers.config import CriticConfig, FSDPActorConfig
from verl.workers.config.actor import PolicyLossConfig
from verl.workers.utils.losses import ppo_loss, sft_loss
from verl.workers.utils.losses import value_loss as verl_value_loss
from verl.workers.utils.padding import no_padding_2_padding

from sttrl.types import Forking, Objective

GAP_SUMS = ("count", "gap", "gap_max", "x", "y", "xx", "yy", "xy", "finite")
KL, CLIPPED = "kl_loss", "actor/pg_clipfrac"
"""verl's names of the KL divergence to the base and the share of clipped ratios."""
FORKS, BAND_LOW, BAND_HIGH, ENTROPY = "forks", "band_low", "band_high", "entropy"
"""The columns that say which tokens are forking, and the ends of the band of each token's entropy; the name of that entropy."""
SAMPLER_WEIGHT = "sampler_weight"
"""The name of the mean weight of truncated importance sampling."""
NOTHING = math.log(torch.finfo(torch.float32).tiny)
"""Log of the least probability that float32 holds in full."""
DRO_BETA = 0.1
"""Direct reward optimisation's quadratic penalty, for which verl has no default (derived)."""

Output = dict[str, torch.Tensor]
Loss = tuple[torch.Tensor, dict[str, Any]]


def actor_config(objective: Objective, rows: int) -> FSDPActorConfig:
    """verl's actor configuration that says what ``objective`` says, for a step on ``rows`` responses.

    ``loss_scale_factor`` is Dr. GRPO's constant normaliser; verl's default is the longest response of a micro-batch.
    """
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
        loss_scale_factor=objective.horizon,
        use_kl_loss=objective.kl_coef > 0,
        kl_loss_coef=objective.kl_coef,
        kl_loss_type=objective.kl_estimator,
        policy_loss=PolicyLossConfig(loss_mode=objective.policy_loss, dro_beta=DRO_BETA),
    )


def policy_loss(
    objective: Objective, rows: int, weight: float, model_output: Output, data: TensorDict, dp_group: Any = None, forks: float = 0.0
) -> Loss:
    """verl's `ppo_loss`; without old log-probs in ``data`` the step is on-policy and the ratio is exactly 1.

    Without reference log-probs the policy was the base when the update began, so its old log-probs are the reference.
    ``rows``, ``weight``: how many rows and the sum of their weights, of the whole step. ``forks``: how many tokens of the step are forking,
    if ``objective`` masks the others; then the losses of policy and band are divided by all tokens, the KL term by the forking ones.

    Metrics also carry the sums of `GAP_SUMS` over the tokens that carry loss, from which `log_prob_gap` compares the learner's log-probs
    with the sampler's. Whatever ``objective`` aggregates the loss by, the KL divergence and the share of clipped ratios are reported as
    means over tokens: the first over all, the second over the forking ones where there is a mask.
    """
    learner_G = _response_rows(model_output["log_probs"], data)
    if "old_log_probs" not in data.keys():
        data["old_log_probs"] = torch.nested.as_nested_tensor(learner_G, layout=torch.jagged)
    if "ref_log_prob" not in data.keys():
        data["ref_log_prob"] = data["old_log_probs"]
    _average_over(data, rows, weight)
    if objective.policy_loss == "bypass_mode":  # its old policy is the sampler by definition
        data["old_log_probs"] = data["rollout_log_probs"]
    weighed = {} if objective.tis_cap is None else {SAMPLER_WEIGHT: _weigh_by_sampler(data, objective.tis_cap)}
    if objective.policy_loss == "geo_mean":  # verl takes the mean of the micro-batch; the loss is linear in the advantage
        data["advantages"] = data["advantages"] * (len(learner_G) * data["dp_size"] / rows)
    if objective.forking is None:
        loss, metrics = ppo_loss(actor_config(objective, rows), model_output, data, dp_group)
    else:
        loss, metrics = _forking_loss(objective, objective.forking, rows, weight / forks, model_output, data, dp_group)
    return loss, metrics | weighed | _means_over_tokens(metrics, objective, model_output, data) | _compared(learner_G, data)


def _forking_loss(
    objective: Objective, forking: Forking, rows: int, scale: float, model_output: Output, data: TensorDict, dp_group: Any
) -> Loss:
    """verl's `ppo_loss` of the forking tokens, and the loss of those whose entropy is outside its band (SPINE, arXiv 2511.17938).

    ``scale``: all tokens of the step over the forking ones. The share of clipped ratios is one of the forking tokens.
    """
    masked = data.clone(recurse=False)
    masked["response_mask"] = data[FORKS]
    kl_scaled = replace(objective, kl_coef=objective.kl_coef * scale)
    plain = {name: output for name, output in model_output.items() if name != ENTROPY}
    loss, metrics = ppo_loss(actor_config(kl_scaled, rows), plain, masked, dp_group)
    if CLIPPED in metrics:  # verl's is a mean over the forking tokens of this micro-batch
        share = float(data[FORKS].values().sum() / data["response_mask"].values().sum().clamp(min=1)) * scale
        metrics[CLIPPED] = Metric(value=metrics[CLIPPED].aggregate() * share, aggregation=AggregationType.MEAN)
    if forking.band is not None:
        entropy = no_padding_2_padding(model_output[ENTROPY], data)
        band = data.select(FORKS, BAND_LOW, BAND_HIGH).to_padded_tensor()
        below, above = (band[BAND_LOW] - entropy).relu(), (entropy - band[BAND_HIGH]).relu()
        outside = (forking.low_coef * below + forking.high_coef * above) * band[FORKS]
        loss = loss + outside.sum() / data["batch_num_tokens"] * data["dp_size"]
    return loss, metrics


def _weigh_by_sampler(data: TensorDict, cap: float) -> Metric:
    """Give each token verl's weight min(exp(old learner's log-prob - sampler's), ``cap``), which `ppo_loss` multiplies its loss by.

    Truncated importance sampling of single tokens, verl's ``RolloutCorrectionConfig.decoupled_token_is``. The weights carry no gradient.
    Rows that nobody sampled weigh 1. Returns this micro-batch's part of the mean weight over the step's tokens.
    """
    old, mask_S = data["old_log_probs"], data["response_mask"].values()
    weight_S = torch.zeros_like(old.values())
    if mask_S.any():  # verl refuses rows that are only padding
        sampler = data["rollout_log_probs"] if "rollout_log_probs" in data.keys() else old
        log_ratio_S = old.values() - sampler.values()
        weight_S = compute_rollout_correction_weights(log_ratio_S[None], mask_S[None], "token", cap)[0][0]
    rows = weight_S.split(old.offsets().diff().tolist())
    data["rollout_is_weights"] = torch.nested.as_nested_tensor(list(rows), layout=torch.jagged)
    return Metric(value=float(weight_S.sum()) / data["batch_num_tokens"] * data["dp_size"], aggregation=AggregationType.SUM)


def nll_loss(rows: int, weight: float, model_output: Output, data: TensorDict, dp_group: Any = None) -> Loss:
    """verl's `sft_loss`: the mean of the tokens' negative log-likelihood by their weights, whose sum over the whole step is ``weight``."""
    learner_G = _response_rows(model_output["log_probs"], data)
    _average_over(data, rows, weight)
    loss, metrics = sft_loss(None, model_output, data, dp_group)
    return loss, metrics | _compared(learner_G, data)


def marginal_entropy_loss(
    log_marginal_V: torch.Tensor, rows: int, model_output: Output, final_logits_GV: torch.Tensor, data: TensorDict
) -> Loss:
    """Entropy of the mean p of the rows' next-token distributions, as a sum over rows whose gradient is the entropy's.

    ``log_marginal_V``: log of that mean, without gradient. The gradient of -sum_v p_v log p_v is that of
    -sum_v p_v stop(log p_v), because the p_v sum to 1; and p is linear in the rows (MEMO, NeurIPS 2022, transposed). A token
    whose probability is too small for float32 in every row adds nothing.
    """
    cross_G = -(final_logits_GV.softmax(dim=-1) * log_marginal_V.clamp(min=NOTHING)).sum(dim=-1)
    loss = (cross_G * carries_loss(data)).sum() / rows * data["dp_size"]
    learner_G = _response_rows(model_output["log_probs"], data)
    return loss, {"sums": gap_sums(torch.cat(learner_G), torch.cat(learner_G))}


def value_loss(rows: int, weight: float, clip: float, model_output: Output, data: TensorDict, dp_group: Any = None) -> Loss:
    """verl's clipped value loss (PPO, arXiv 1707.06347)."""
    _average_over(data, rows, weight)
    config = CriticConfig(strategy="fsdp2", ppo_micro_batch_size_per_gpu=1, use_dynamic_bsz=True, cliprange_value=clip)
    loss, metrics = verl_value_loss(config, model_output, data, dp_group)
    finite = float(torch.isfinite(model_output["values"].values()).all())
    return loss, metrics | {"sums": dict.fromkeys(GAP_SUMS, 0.0) | {"count": float(data["response_mask"].values().sum()), "finite": finite}}


def carries_loss(data: TensorDict) -> torch.Tensor:
    """1.0 for each row that carries loss, ``[G]``, and 0.0 for one that is padding."""
    return torch.stack([(mask.max() > 0).float() for mask in data["response_mask"].unbind()])


def _means_over_tokens(metrics: dict[str, Any], objective: Objective, model_output: Output, data: TensorDict) -> dict[str, Metric]:
    """`KL` and `CLIPPED`, as far as ``metrics`` have them, as this micro-batch's part of a mean over the step's tokens."""
    scale, found = {"dp_size": data["dp_size"], "batch_num_tokens": data["batch_num_tokens"]}, {}
    padded = data.select("response_mask", "ref_log_prob").to_padded_tensor()
    if KL in metrics:
        learner = no_padding_2_padding(model_output["log_probs"], data).detach()
        divergence = kl_penalty(learner, padded["ref_log_prob"], objective.kl_estimator)
        found[KL] = agg_loss(divergence, padded["response_mask"], "token-mean", **scale)
    if CLIPPED in metrics:
        share = float(padded["response_mask"].sum()) / scale["batch_num_tokens"] * scale["dp_size"]
        found[CLIPPED] = metrics[CLIPPED].aggregate() * share
    return {name: Metric(value=value, aggregation=AggregationType.SUM) for name, value in found.items()}


def _compared(learner_G: list[torch.Tensor], data: TensorDict) -> dict[str, dict[str, float]]:
    """The sums of `GAP_SUMS` over the tokens that carry loss; rows that nobody sampled are compared with themselves."""
    scored_S, learner_S = data["response_mask"].values() > 0, torch.cat(learner_G)
    sampler_S = data["rollout_log_probs"].values() if "rollout_log_probs" in data.keys() else learner_S
    return {"sums": gap_sums(learner_S[scored_S], sampler_S[scored_S])}


def _average_over(data: TensorDict, rows: int, weight: float) -> None:
    """verl averages over what one call computes on; a step may hold several calls, one for each prompt."""
    tu.assign_non_tensor(data, batch_num_tokens=weight, global_batch_size=rows)


def _response_rows(log_probs: torch.Tensor, data: TensorDict) -> list[torch.Tensor]:
    """Log-probs of the response tokens, without gradient."""
    padded = no_padding_2_padding(log_probs, data).detach()
    lengths = data["responses"].offsets().diff().tolist()
    return [row[:n] for row, n in zip(padded, lengths, strict=True)]


def gap_sums(learner_S: torch.Tensor, sampler_S: torch.Tensor) -> dict[str, float]:
    """Sums over tokens from which mean and maximal difference and correlation follow, whatever the split."""
    x, y = learner_S.double(), sampler_S.double()
    gap = (x - y).abs()
    values = (
        float(len(x)),
        gap.sum(),
        gap.max() if len(gap) else 0.0,
        x.sum(),
        y.sum(),
        (x * x).sum(),
        (y * y).sum(),
        (x * y).sum(),
        float(torch.isfinite(x).all()),
    )
    return dict(zip(GAP_SUMS, (float(v) for v in values), strict=True))


def log_prob_gap(sums: dict[str, float]) -> tuple[float, float, float | None]:
    """Mean and maximal absolute log-prob difference per token, and the correlation (None where it is undefined)."""
    n = sums["count"]
    covariance = sums["xy"] / n - sums["x"] / n * (sums["y"] / n)
    variance = (sums["xx"] / n - (sums["x"] / n) ** 2) * (sums["yy"] / n - (sums["y"] / n) ** 2)
    correlation = covariance / variance**0.5 if variance > 0 else None
    return sums["gap"] / n, sums["gap_max"], correlation
