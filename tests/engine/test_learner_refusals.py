"""What the learner refuses, and leaves as it was: steps that are not finite or do not fit the sampler, and steps without memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from learner_tools import OPEN, Flat, Tensors, batch, forked, same, score, state

from sttrl.engine.failures import starting
from sttrl.errors import DivergedError, EngineError, OutOfMemoryError
from sttrl.types import Objective


@pytest.fixture(params=["lora", "full"])
def learner(request: pytest.FixtureRequest) -> Any:
    """Each kind of delta."""
    return request.getfixturevalue(f"{request.param}_learner")


def spoil_gradient(learner: Any, patch: pytest.MonkeyPatch, value: float) -> None:
    """One gradient becomes ``value`` after an honest backward pass."""
    honest = learner.engine.forward_backward_batch

    def spoiled(*arguments: Any, **options: Any) -> Any:
        outputs = honest(*arguments, **options)
        if options.get("forward_only"):
            return outputs
        first = next(p for p in learner.engine.module.parameters() if p.grad is not None)
        (first.grad.to_local() if hasattr(first.grad, "to_local") else first.grad).view(-1)[0] = value
        return outputs

    patch.setattr(learner.engine, "forward_backward_batch", spoiled)


def bad_batch(what: str, learner: Any, name: str, data: Flat) -> Flat:
    """A batch that must not be learned from."""
    if what == "advantage nan":
        return replace(data, advantage_G=(math.nan, *data.advantage_G[1:]))
    if what == "advantage inf":
        return replace(data, advantage_G=(math.inf, *data.advantage_G[1:]))
    exact = score(learner, name, data)
    off = {"gap": 0.6, "sampler nan": math.nan, "sampler -inf": -math.inf}[what]
    exact[3 if what != "gap" else 0][0] += off * (1 if what != "gap" else data.n_tokens)
    return replace(data, rollout_G=tuple(replace(r, logprob_T=tuple(row)) for r, row in zip(data.rollout_G, exact, strict=True)))


@pytest.mark.parametrize("what", ["advantage nan", "advantage inf", "gap", "sampler nan", "sampler -inf"])
def test_a_bad_batch_is_never_applied(learner: Any, what: str) -> None:
    data = batch()
    with forked(learner) as name:
        learner.update(name, [data.group], OPEN)
        before = state(learner, name)
        gate = 0.5 if what == "gap" or "sampler" in what else math.inf
        with pytest.raises(DivergedError, match="not applied"):
            learner.update(name, [bad_batch(what, learner, name, data).group], replace(OPEN, max_logprob_gap=gate))
        assert same(state(learner, name), before)
        check_goes_on(learner, name, data, before)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_is_never_applied(learner: Any, value: float) -> None:
    data = batch()
    with forked(learner) as name:
        learner.update(name, [data.group], OPEN)
        before = state(learner, name)
        with pytest.MonkeyPatch.context() as patch:
            spoil_gradient(learner, patch, value)
            with pytest.raises(DivergedError, match="norm"):
                learner.update(name, [data.group], OPEN)
        assert same(state(learner, name), before)
        check_goes_on(learner, name, data, before)


def check_goes_on(learner: Any, name: str, data: Flat, before: Tensors) -> None:
    """The next good update is the one that would have come without the bad one."""
    learner.update(name, [data.group], OPEN)
    after = state(learner, name)
    assert not same(after, before) and all(bool(t.isfinite().all()) for t in after.values())
    with forked(learner, "twin") as twin:
        learner.update(twin, [data.group], OPEN)
        learner.update(twin, [data.group], OPEN)
        assert same(state(learner, twin), after)


def test_a_gap_within_the_gate_is_applied(lora_learner: Any) -> None:
    data = batch()
    exact = score(lora_learner, None, data)
    near = tuple(replace(r, logprob_T=tuple(x + 0.4 for x in row)) for r, row in zip(data.rollout_G, exact, strict=True))
    with forked(lora_learner) as name:
        stats = lora_learner.update(name, [replace(data, rollout_G=near).group], replace(OPEN, max_logprob_gap=0.5))
    assert stats.logprob_gap_mean == pytest.approx(0.4, rel=1e-3)


def short_of_memory(learner: Any, patch: pytest.MonkeyPatch, times: int, error: Callable[[], Exception]) -> list[int]:
    """The first training passes fail at their end, when gradients are there already; returns the budgets that were tried."""
    from verl.utils import tensordict_utils as tu

    honest, budgets = learner.engine.forward_backward_batch, []

    def failing(data: Any, *arguments: Any, **options: Any) -> Any:
        outputs = honest(data, *arguments, **options)
        if options.get("forward_only"):
            return outputs
        budgets.append(int(tu.get_non_tensor_data(data, "max_token_len_per_gpu", 0)))
        if len(budgets) <= times:
            raise error()
        return outputs

    patch.setattr(learner.engine, "forward_backward_batch", failing)
    return budgets


@pytest.mark.parametrize(
    "error", [lambda: torch.OutOfMemoryError("CUDA out of memory"), lambda: RuntimeError("can't allocate memory: you tried")]
)
@pytest.mark.parametrize("times", [1, 2])
def test_out_of_memory_halves_the_micro_batch_and_keeps_the_update(learner: Any, times: int, error: Callable[[], Exception]) -> None:
    data = batch(n=16)
    with forked(learner, "a") as a, forked(learner, "b") as b:
        learner.update(a, [data.group], OPEN)
        learner.update(b, [data.group], OPEN)
        whole_stats = learner.update(a, [data.group], OPEN)
        with pytest.MonkeyPatch.context() as patch:
            budgets = short_of_memory(learner, patch, times, error)
            stats = learner.update(b, [data.group], OPEN)
        assert len(budgets) == times + 1
        assert all(after == max(10, before // 2) for before, after in zip(budgets, budgets[1:], strict=False))
        assert stats.micro_batches > whole_stats.micro_batches and stats.tokens == whole_stats.tokens
        assert stats.loss == pytest.approx(whole_stats.loss, rel=1e-4, abs=1e-6)
        assert stats.grad_norm == pytest.approx(whole_stats.grad_norm, rel=1e-4)
        for scored, expected in zip(score(learner, b, data), score(learner, a, data), strict=True):
            assert scored == pytest.approx(expected, abs=2e-3)


def test_out_of_memory_three_times_is_an_error_and_applies_nothing(learner: Any) -> None:
    data = batch()
    with forked(learner) as name:
        learner.update(name, [data.group], OPEN)
        before = state(learner, name)
        with pytest.MonkeyPatch.context() as patch:
            budgets = short_of_memory(learner, patch, 99, lambda: torch.OutOfMemoryError("CUDA out of memory"))
            with pytest.raises(OutOfMemoryError):
                learner.update(name, [data.group], OPEN)
        assert len(budgets) == 3 and same(state(learner, name), before)
        check_goes_on(learner, name, data, before)


MEMORY = (lambda: MemoryError(), lambda: RuntimeError("can't allocate memory: you tried"))


@pytest.mark.parametrize("error", [*MEMORY, lambda: ValueError("a column is missing")])
@pytest.mark.parametrize("objective", [replace(OPEN, ppo_epochs=2), replace(OPEN, mini_batches=3)])
def test_an_error_in_a_later_step_takes_the_earlier_ones_back(learner: Any, objective: Objective, error: Callable[[], Exception]) -> None:
    """Else a policy that lasts (--continuous, ttrl) has learned what the sampler never sees."""
    data = batch(n=16)
    with forked(learner) as name:
        learner.update(name, [data.group], OPEN)
        before = state(learner, name)
        with pytest.MonkeyPatch.context() as patch:
            calls = fail_from(learner, patch, 2, error)
            with pytest.raises((OutOfMemoryError, ValueError)):
                learner.update(name, [data.group], objective)
        assert len(calls) >= 2 and same(state(learner, name), before)
        check_goes_on(learner, name, data, before)


def fail_from(learner: Any, patch: pytest.MonkeyPatch, number: int, error: Callable[[], Exception]) -> list[int]:
    """Training passes fail from the one with this number on; returns those that were tried."""
    honest, calls = learner.engine.forward_backward_batch, []

    def failing(*arguments: Any, **options: Any) -> Any:
        if not options.get("forward_only"):
            calls.append(1)
            if len(calls) >= number:
                raise error()
        return honest(*arguments, **options)

    patch.setattr(learner.engine, "forward_backward_batch", failing)
    return calls


def step_half(learner: Any, patch: pytest.MonkeyPatch) -> None:
    """The optimiser moves its tensors and then runs out of memory."""
    honest = learner.engine.optimizer_step

    def half() -> float:
        honest()
        raise torch.OutOfMemoryError("CUDA out of memory")

    patch.setattr(learner.engine, "optimizer_step", half)


@pytest.mark.parametrize(("kind", "changes"), [("lora", {}), ("lora", {"ppo_epochs": 2}), ("full", {"ppo_epochs": 2})])
def test_out_of_memory_in_the_optimisers_own_step_is_taken_back(request: pytest.FixtureRequest, kind: str, changes: dict[str, int]) -> None:
    learner, data = request.getfixturevalue(f"{kind}_learner"), batch()
    with forked(learner) as name:
        learner.update(name, [data.group], OPEN)
        before = state(learner, name)
        with pytest.MonkeyPatch.context() as patch:
            step_half(learner, patch)
            with pytest.raises(OutOfMemoryError, match="optimiser"):
                learner.update(name, [data.group], replace(OPEN, **changes))
        assert same(state(learner, name), before)
        check_goes_on(learner, name, data, before)


def test_half_a_step_that_cannot_be_taken_back_ends_the_run(full_learner: Any) -> None:
    """With full weights a single step has no copy; the run must not go on with weights that nobody knows."""
    with forked(full_learner) as name, pytest.MonkeyPatch.context() as patch:
        step_half(full_learner, patch)
        with pytest.raises(EngineError, match="cannot be put back") as caught:
            full_learner.update(name, [batch().group], OPEN)
    assert not isinstance(caught.value, OutOfMemoryError)


def test_another_runtime_error_is_not_taken_for_memory(lora_learner: Any) -> None:
    with forked(lora_learner) as name, pytest.MonkeyPatch.context() as patch:
        budgets = short_of_memory(lora_learner, patch, 99, lambda: RuntimeError("a shape is wrong"))
        with pytest.raises(RuntimeError, match="shape"):
            lora_learner.update(name, [batch().group], OPEN)
    assert len(budgets) == 1


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory: you tried"), MemoryError()], ids=repr
)
def test_a_packing_test_without_memory_is_no_reason_to_compute_the_slow_way(lora_learner: Any, error: Exception) -> None:
    """Spelled out, the same responses would need more memory still."""

    def failing(*_: Any) -> Any:
        raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lora_learner.engine, "packs", True)
        patch.setattr(lora_learner, "forward", failing)
        with pytest.raises(EngineError) as caught, starting("learner"):
            lora_learner._packing_agrees()
    assert "The learner ran out of memory while it started" in caught.value.message and "smaller model" in caught.value.hint
    assert type(caught.value) is EngineError, "not one question's: no question would be better off"


def test_a_model_that_cannot_be_packed_for_another_reason_is_spelled_out(lora_learner: Any) -> None:
    def failing(*_: Any) -> Any:
        raise ValueError("this attention cannot be packed")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lora_learner.engine, "packs", True)
        patch.setattr(lora_learner, "forward", failing)
        assert lora_learner._packing_agrees() is False
