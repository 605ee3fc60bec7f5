"""The names of verl's advantage estimators and policy losses, and what each estimator needs."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Final, Literal

from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, POLICY_LOSS_REGISTRY, get_adv_estimator_fn

from sttrl.errors import UsageError

Need = Literal["values", "baseline", "token_stats"]
"""A critic's values; the reward of a greedy response; log-prob and sum of squared probabilities of every token."""

_NEED_OF_ARGUMENT: Final[dict[str, Need]] = {
    "values": "values",
    "reward_baselines": "baseline",
    "old_log_probs": "token_stats",
    "sum_pi_squared": "token_stats",
}


def estimator_names() -> tuple[str, ...]:
    """Every advantage estimator, sorted."""
    return tuple(sorted(ADV_ESTIMATOR_REGISTRY))


def policy_loss_names() -> tuple[str, ...]:
    """Every policy loss, sorted."""
    return tuple(sorted(POLICY_LOSS_REGISTRY))


def estimator_needs(name: str) -> frozenset[Need]:
    """What an estimator needs besides rewards and lengths. It is read from the arguments of verl's function."""
    arguments = inspect.signature(get_adv_estimator_fn(name)).parameters
    return frozenset(need for argument, need in _NEED_OF_ARGUMENT.items() if argument in arguments)


def check_estimator(name: str) -> None:
    """Raises UsageError for an advantage estimator that verl does not register."""
    _check("adv_estimator", name, estimator_names())


def check_policy_loss(name: str) -> None:
    """Raises UsageError for a policy loss that verl does not register."""
    _check("policy_loss", name, policy_loss_names())


def _check(flag: str, name: str, names: Sequence[str]) -> None:
    if name not in names:
        raise UsageError(f"--{flag} {name!r} is unknown.", f"Use one of {', '.join(names)}.")
