"""The names of the advantage estimators and policy losses that verl knows, and what each estimator needs.

Those of `sttrl.objectives.estimators` are registered with verl here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, POLICY_LOSS_REGISTRY, get_adv_estimator_fn, register_adv_est

from sttrl.config.extensions import imported, place_of
from sttrl.config.reinforcement import ESTIMATOR
from sttrl.errors import UsageError
from sttrl.objectives.estimators import OWN_ESTIMATORS

Need = Literal["values", "baseline", "token_stats"]
"""A critic's values; the reward of a greedy response; log-prob and sum of squared probabilities of every token."""

_NEED_OF_ARGUMENT: Final[dict[str, Need]] = {
    "values": "values",
    "reward_baselines": "baseline",
    "old_log_probs": "token_stats",
    "sum_pi_squared": "token_stats",
}

OFFERED: Final = (
    "token_level_rewards", "response_mask", "index", "reward_baselines", "values", "old_log_probs", "sum_pi_squared", "gamma", "lam",
    "config",
)  # fmt: skip
"""What an estimator may take, by name."""

for _name, _estimator in OWN_ESTIMATORS.items():
    register_adv_est(_name)(_estimator)


def estimator_names() -> tuple[str, ...]:
    """Every advantage estimator, sorted."""
    return tuple(sorted(ADV_ESTIMATOR_REGISTRY))


def policy_loss_names() -> tuple[str, ...]:
    """Every policy loss, sorted."""
    return tuple(sorted(POLICY_LOSS_REGISTRY))


def estimator_of(name: str) -> Callable[..., tuple[Any, Any]]:
    """verl's estimator of this name, or the function that ``package.module:Name`` names. Raises `UsageError` if that is no function."""
    if name in ADV_ESTIMATOR_REGISTRY or ESTIMATOR.reference(name) is None:
        return get_adv_estimator_fn(name)
    function = imported(ESTIMATOR, name)
    required = (
        [p.name for p in inspect.signature(function).parameters.values() if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
        if callable(function)
        else ["()"]
    )
    if not set(required) <= set(OFFERED):
        raise UsageError(
            f"--adv_estimator {name} does not fit: {place_of(function)} needs {', '.join(sorted(set(required) - set(OFFERED)))}.",
            f"It is a function of some of {', '.join(OFFERED)}, as in verl.",
        )
    estimator: Callable[..., tuple[Any, Any]] = function
    return estimator


def estimator_needs(name: str) -> frozenset[Need]:
    """What an estimator needs besides rewards and lengths. It is read from the arguments of verl's function."""
    arguments = inspect.signature(estimator_of(name)).parameters
    return frozenset(need for argument, need in _NEED_OF_ARGUMENT.items() if argument in arguments)


def check_estimator(name: str) -> None:
    """Raises UsageError for an advantage estimator that verl does not register, unless it is code of others that fits."""
    if name not in ADV_ESTIMATOR_REGISTRY and ESTIMATOR.reference(name) is not None:
        estimator_of(name)
        return
    _check("adv_estimator", name, estimator_names())


def check_policy_loss(name: str) -> None:
    """Raises UsageError for a policy loss that verl does not register."""
    _check("policy_loss", name, policy_loss_names())


def _check(flag: str, name: str, names: Sequence[str]) -> None:
    if name not in names:
        raise UsageError(f"--{flag} {name!r} is unknown.", f"Use one of {', '.join(names)}.")
