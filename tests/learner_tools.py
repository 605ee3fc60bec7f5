"""What tests of the learner share: batches, open forks, gradients and everything that a fork holds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from live_engine import PROMPT_T, rollout
from tiny_model import VOCABULARY

from sttrl.types import DeltaSpec, Measure, Objective, Rollout, Row, TrainGroup

TEMPERATURE = 0.8
OPEN = Objective(kl_coef=0.1, max_logprob_gap=math.inf, temperature=TEMPERATURE)
Tensors = dict[str, torch.Tensor]


def spec(kind: str = "lora", lr: float = 0.003, seed: int = 1, **changes: Any) -> DeltaSpec:
    return DeltaSpec(kind=kind, lr={"main": lr, "embedding": lr}, seed=seed, weight_decay=0.01, **changes)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Flat:
    """One group with an advantage for each response."""

    prompt_T: tuple[int, ...]
    rollout_G: tuple[Rollout, ...]
    advantage_G: tuple[float, ...]

    @property
    def n_tokens(self) -> int:
        return sum(len(r.token_T) for r in self.rollout_G)

    @property
    def group(self) -> TrainGroup:
        row_G = tuple(Row.of(r, (a,) * len(r.token_T)) for a, r in zip(self.advantage_G, self.rollout_G, strict=True))
        return TrainGroup(prefix_T=self.prompt_T, row_G=row_G)


def score(learner: Any, name: str | None, data: Flat) -> list[list[float]]:
    """Log-probs of the responses."""
    return scored(learner, name, data.group, TEMPERATURE)


def scored(learner: Any, name: str | None, group: TrainGroup, temperature: float = 1.0) -> list[list[float]]:
    """Log-probs of the rows of a group."""
    (stats_G,) = learner.score(name, [group], Measure(temperature=temperature))
    return [list(stats.logprob_T) for stats in stats_G]


def batch(n: int = 12, seed: int = 0, longest: int = 9) -> Flat:
    """Random responses of different lengths with random advantages; some begin as the one before, some are equal to an earlier one."""
    chance = np.random.default_rng(seed)
    tokens_G = [tuple(int(t) for t in chance.integers(len(VOCABULARY), size=1 + i % longest)) for i in range(n)]
    for i in range(2, n, 3):
        tokens_G[i] = tokens_G[i - 1][: 1 + i // 2] + tokens_G[i][1 + i // 2 :]
    for i in range(6, n, 5):
        tokens_G[i] = tokens_G[i - 2]
    advantage_G = tuple(float(a) for a in chance.normal(size=n))
    return Flat(
        prompt_T=PROMPT_T,
        rollout_G=tuple(rollout(t, tuple(chance.normal(-2, 1, len(t)))) for t in tokens_G),
        advantage_G=advantage_G,
    )


@contextmanager
def forked(learner: Any, name: str = "fork", **changes: Any) -> Iterator[str]:
    """An open fork."""
    learner.open_fork(name, spec("lora" if learner.settings.adapter else "full", **changes))
    try:
        yield name
    finally:
        learner.close_fork(name)


@contextmanager
def micro_batches_of(learner: Any, tokens: int) -> Iterator[None]:
    """Another bound on the tokens of one pass."""
    before = learner.settings
    learner.settings = replace(before, micro_batch_tokens=tokens)
    try:
        yield
    finally:
        learner.settings = before


def gradients(learner: Any, name: str, data: Flat, monkeypatch: pytest.MonkeyPatch) -> Tensors:
    """The gradients of one update that is then not taken."""
    seen: Tensors = {}

    def look() -> float:
        for key, parameter in learner.engine.module.named_parameters():
            if parameter.grad is not None:
                seen[key] = whole(parameter.grad).clone()
        return 1.0

    with monkeypatch.context() as patch:
        patch.setattr(learner.engine, "optimizer_step", look)
        learner.update(name, [data.group], OPEN)
    learner.forks.states[name].updates -= 1
    return seen


def whole(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor  # type: ignore[no-any-return]


def state(learner: Any, name: str) -> Tensors:
    """Everything a fork holds: weights, moments, number of updates."""
    learner.forks._store()
    fork = learner.forks.states[name]
    tensors = {f"weight/{n}": w.clone() for n, w in fork.weights.items()}
    for n, moments in fork.moments.items():
        tensors |= {f"{key}/{n}": whole(value).clone() for key, value in moments.items()}
    return tensors | {"updates": torch.tensor(fork.updates)}


def same(a: Tensors, b: Tensors) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


def check_close(a: Tensors, b: Tensors, relative: float) -> None:
    """Each tensor within a share of its own size."""
    assert a.keys() == b.keys()
    for n in a:
        assert float((a[n] - b[n]).norm()) <= relative * float(b[n].norm()) + 1e-7, n


def plain_logprobs(network: torch.nn.Module, data: Flat) -> list[torch.Tensor]:
    """Log-probs of every response by itself, as anybody would write it."""
    found = []
    for r in data.rollout_G:
        tokens = torch.tensor([[*data.prompt_T, *r.token_T]])
        logits = network(tokens).logits[0, len(data.prompt_T) - 1 : -1].float() / TEMPERATURE
        found.append(logits.log_softmax(-1).gather(1, torch.tensor(r.token_T)[:, None])[:, 0])
    return found


def plain_loss(network: torch.nn.Module, base_G: list[torch.Tensor], data: Flat, kl_coef: float) -> torch.Tensor:
    """On-policy policy gradient and the k3 estimate of the KL divergence to the base, a mean over all tokens."""
    total = torch.tensor(0.0)
    for logprob_T, base_T, advantage in zip(plain_logprobs(network, data), base_G, data.advantage_G, strict=True):
        ratio_T = (logprob_T - logprob_T.detach()).exp()
        difference_T = base_T - logprob_T
        total = total - (advantage * ratio_T).sum() + kl_coef * (difference_T.exp() - difference_T - 1).sum()
    return total / data.n_tokens
