"""The learning-rate schedule, and forks that share a model and an optimiser without touching each other."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from sttrl.engine.verl.forks import Forks, learning_rate
from sttrl.types import DeltaSpec


def rates(**settings: object) -> list[float]:
    spec = DeltaSpec(kind="lora", lr={"main": 2.0}, total_steps=10, **settings)  # type: ignore[arg-type]
    return [learning_rate(spec, "main", update) for update in range(12)]


def test_constant() -> None:
    assert rates() == [2.0] * 12


def test_warm_up_rises_by_equal_steps_to_the_rate() -> None:
    assert rates(warmup_ratio=0.3)[:5] == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0])


def test_cosine_falls_from_the_rate_to_zero_and_stays() -> None:
    rate = rates(schedule="cosine")
    assert rate[:10] == pytest.approx([2 * 0.5 * (1 + math.cos(math.pi * n / 10)) for n in range(10)])
    assert rate[0] == 2.0 and rate[5] == pytest.approx(1.0) and rate[10] == rate[11] == pytest.approx(0.0)


def test_cosine_after_warm_up() -> None:
    rate = rates(schedule="cosine", warmup_ratio=0.2)
    assert rate[:2] == pytest.approx([2 / 3, 4 / 3]) and rate[2] == 2.0
    assert rate[6] == pytest.approx(1.0) and rate[10] == pytest.approx(0.0)


A, B = "layer.lora_A.weight", "layer.lora_B.weight"


class Net(torch.nn.Module):
    """A frozen layer with an adapter, under PEFT's names."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.base = torch.nn.Parameter(torch.randn(6, 5, generator=generator), requires_grad=False)
        self.layer = torch.nn.ModuleDict({"lora_A": torch.nn.Linear(5, 2, bias=False), "lora_B": torch.nn.Linear(2, 6, bias=False)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.base.T + self.layer["lora_B"](self.layer["lora_A"](x))


class Full(torch.nn.Module):
    """One trainable matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.base = torch.nn.Parameter(torch.randn(6, 5, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.base.T


class Trainer:
    """A model, its optimiser and its forks."""

    def __init__(self, lora: bool) -> None:
        self.module = Net() if lora else Full()
        trainable = [p for p in self.module.parameters() if p.requires_grad]
        self.forks = Forks(self.module, torch.optim.AdamW([{"params": trainable, "name": "main"}], lr=9.0))
        self.forks.load_base()

    def update(self, name: str, target: float) -> None:
        state = self.forks.load(name)
        self.forks.optimizer.zero_grad()
        (self.module(torch.eye(5)) - target).square().sum().backward()
        self.forks.optimizer.step()
        state.updates += 1

    def output(self, name: str | None) -> torch.Tensor:
        self.forks.load_base() if name is None else self.forks.load(name)
        return self.module(torch.eye(5)).detach().clone()


def spec(seed: int = 0, lr: float = 0.1) -> DeltaSpec:
    return DeltaSpec(kind="lora", lr={"main": lr}, seed=seed, weight_decay=0.01, schedule="cosine", total_steps=9)


@pytest.mark.parametrize("lora", [True, False])
def test_interleaved_forks_give_what_each_gives_alone(lora: bool) -> None:
    def alone(seed: int, target: float, lr: float) -> torch.Tensor:
        trainer = Trainer(lora)
        trainer.forks.open("only", spec(seed, lr))
        for _ in range(4):
            trainer.update("only", target)
        return trainer.output("only")

    both = Trainer(lora)
    both.forks.open("a", spec(1, 0.1))
    base = both.output(None)
    both.update("a", 3.0)
    both.forks.open("b", spec(2, 0.03))
    for fork, target in [("b", -2.0), ("b", -2.0), ("a", 3.0), ("b", -2.0), ("a", 3.0), ("a", 3.0), ("b", -2.0)]:
        both.update(fork, target)
        both.output(None)
    assert torch.equal(both.output("a"), alone(1, 3.0, 0.1))
    assert torch.equal(both.output("b"), alone(2, -2.0, 0.03))
    assert not torch.equal(both.output("a"), both.output("b"))
    both.forks.close("a")
    assert torch.equal(both.output(None), base) and torch.equal(both.output("b"), alone(2, -2.0, 0.03))


@pytest.mark.parametrize("lora", [True, False])
def test_a_new_fork_is_the_base_to_the_bit(lora: bool) -> None:
    trainer = Trainer(lora)
    base = trainer.output(None)
    trainer.forks.open("old", spec())
    trainer.update("old", 5.0)
    assert not torch.equal(trainer.output("old"), base)
    trainer.forks.open("new", spec(4))
    assert torch.equal(trainer.output("new"), base)


def test_lora_starts_at_random_a_from_its_seed_and_zero_b() -> None:
    trainer = Trainer(lora=True)
    for name, seed in (("a", 7), ("same", 7), ("other", 8)):
        trainer.forks.open(name, spec(seed))
    a, same, other = (trainer.forks.states[name].weights for name in ("a", "same", "other"))
    assert torch.equal(a[A], same[A]) and not torch.equal(a[A], other[A])
    assert not a[B].any() and a[A].abs().max() <= 1 / math.sqrt(5) and a[A].std() > 0.1


@pytest.mark.parametrize("lora", [True, False])
def test_a_restored_fork_goes_on_to_the_bit(lora: bool, tmp_path: Path) -> None:
    trainer, later = Trainer(lora), Trainer(lora)
    trainer.forks.open("a", spec(1))
    for _ in range(3):
        trainer.update("a", 3.0)
    trainer.forks.save("a", tmp_path / "fork", rank=0)
    later.forks.open("b", spec(1))
    later.forks.open("c", spec(2))
    later.update("c", 1.0)
    later.forks.restore("b", tmp_path / "fork", rank=0)
    assert torch.equal(later.output("b"), trainer.output("a"))
    for _ in range(3):
        trainer.update("a", 3.0)
        later.update("b", 3.0)
    assert torch.equal(later.output("b"), trainer.output("a"))
    assert later.forks.states["b"].updates == 6
