"""The advantage of every token, by one of verl's estimators."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from verl.trainer.config import AlgoConfig

from sttrl.objectives.registry import estimator_needs, estimator_of

_SINGLE_PRECISION: Final = frozenset({"grpo_vectorized"})
"""verl computes the group means of these in float32. A float64 reward minus such a mean would leave a rounding error, which is then
divided by a standard deviation near 1e-6."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What the advantages of one group are computed from. `estimator_needs` says which optional fields an estimator needs.

    ``length_G``: response tokens, at least 1. ``value_GT``: the critic's estimate at each token (needed: values).
    ``logprob_GT`` and ``sum_pi_squared_GT``: log-prob of each token, and the sum of the squared probabilities of the
    distribution it was sampled from (needed: token_stats). ``baseline``: reward of the greedy response (needed: baseline).
    """

    reward_G: tuple[float, ...]
    length_G: tuple[int, ...]
    value_GT: tuple[tuple[float, ...], ...] | None = None
    logprob_GT: tuple[tuple[float, ...], ...] | None = None
    sum_pi_squared_GT: tuple[tuple[float, ...], ...] | None = None
    baseline: float | None = None


@dataclass(frozen=True, kw_only=True)
class Advantages:
    """Advantage and return of every response token of a group."""

    advantage_GT: tuple[tuple[float, ...], ...]
    return_GT: tuple[tuple[float, ...], ...]


def advantages(group_P: Sequence[Evidence], estimator: str = "grpo", gamma: float = 1.0, gae_lambda: float = 1.0) -> tuple[Advantages, ...]:
    """Advantages by verl's ``estimator``, with all groups as one batch. The last token of a response has its reward.

    Most estimators look at one group at a time: grpo (arXiv 2402.03300) divides the reward minus the group's mean by the group's
    standard deviation. gae, reinforce_plus_plus, reinforce_plus_plus_baseline and gdpo whiten over the whole batch; gpg counts
    the rewarded samples of the whole batch. gae and reinforce_plus_plus read ``gamma``; gae reads ``gae_lambda``.

    Raises:
        ValueError: a reward or baseline is not finite; or verl refuses to whiten a batch of one token, or a group of one sample
            with grpo_passk.
    """
    for group in group_P:
        _check(group, estimator)
    if not group_P:
        return ()
    config = AlgoConfig(gamma=gamma, lam=gae_lambda, adv_estimator=estimator, norm_adv_by_std_in_grpo=True)
    columns = _columns(group_P, torch.float32 if estimator in _SINGLE_PRECISION else torch.float64)
    offered = columns | {"gamma": gamma, "lam": gae_lambda, "config": config}
    function = estimator_of(estimator)
    taken = inspect.signature(function).parameters
    advantage, returns = function(**{name: value for name, value in offered.items() if name in taken})
    return _cut(group_P, advantage.tolist(), returns.tolist())


def _check(group: Evidence, estimator: str) -> None:
    if not all(math.isfinite(number) for number in (*group.reward_G, group.baseline or 0.0)):
        raise ValueError(f"rewards must be finite, got {list(group.reward_G)}, and a baseline of {group.baseline}")
    assert group.reward_G and len(group.reward_G) == len(group.length_G) and min(group.length_G) >= 1, "a reward and tokens a sample"
    for column_GT in (group.value_GT, group.logprob_GT, group.sum_pi_squared_GT):
        assert column_GT is None or tuple(map(len, column_GT)) == group.length_G, "one number a token"
    given = {
        "values": group.value_GT is not None,
        "token_stats": group.logprob_GT is not None and group.sum_pi_squared_GT is not None,
        "baseline": group.baseline is not None,
    }
    missing = [need for need in estimator_needs(estimator) if not given[need]]
    assert not missing, f"the estimator {estimator} needs {missing}"


def _columns(group_P: Sequence[Evidence], dtype: torch.dtype) -> dict[str, Any]:
    """The batch as verl's arguments, by name. Each response is a row, padded at the end with 0."""
    length = [n for group in group_P for n in group.length_G]
    reward = [[0.0] * (n - 1) + [r] for group in group_P for n, r in zip(group.length_G, group.reward_G, strict=True)]
    columns: dict[str, Any] = {
        "token_level_rewards": _padded(reward, dtype),
        "response_mask": _padded([[1.0] * n for n in length], dtype),
        "index": np.repeat(np.arange(len(group_P)), [len(group.length_G) for group in group_P]),
        "reward_baselines": torch.tensor([group.baseline or 0.0 for group in group_P for _ in group.length_G], dtype=dtype),
    }
    for argument, field in (("values", "value_GT"), ("old_log_probs", "logprob_GT"), ("sum_pi_squared", "sum_pi_squared_GT")):
        column_PGT = [getattr(group, field) for group in group_P]
        if all(column_GT is not None for column_GT in column_PGT):
            columns[argument] = _padded([row_T for column_GT in column_PGT for row_T in column_GT], dtype)
    return columns


def _padded(rows: Sequence[Sequence[float]], dtype: torch.dtype) -> torch.Tensor:
    return pad_sequence([torch.tensor(row, dtype=dtype) for row in rows], batch_first=True)


def _cut(group_P: Sequence[Evidence], advantage: list[list[float]], returns: list[list[float]]) -> tuple[Advantages, ...]:
    """The rows of each group, without padding."""
    row = iter(zip(advantage, returns, strict=True))
    cut_P = []
    for group in group_P:
        cut_G = [(tuple(a[:n]), tuple(r[:n])) for n, (a, r) in zip(group.length_G, islice(row, len(group.length_G)), strict=True)]
        cut_P.append(Advantages(advantage_GT=tuple(a for a, _ in cut_G), return_GT=tuple(r for _, r in cut_G)))
    return tuple(cut_P)
