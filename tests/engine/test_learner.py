"""The learner against plain transformers and PEFT, and against itself: the layout never shows, a bad step is never taken."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from live_engine import PROMPT_T, rollout
from peft import PeftModel
from tiny_model import VOCABULARY
from transformers import AutoModelForCausalLM

from sttrl.engine.base import JUST_LOGPROBS
from sttrl.errors import DivergedError, OutOfMemoryError
from sttrl.types import DeltaSpec, Objective, Rollout, TrainBatch, TrainGroup

OPEN = Objective(kl_coef=0.1, max_logprob_gap=math.inf)
Tensors = dict[str, torch.Tensor]


def spec(kind: str = "lora", lr: float = 0.003, seed: int = 1, **changes: Any) -> DeltaSpec:
    return DeltaSpec(kind=kind, lr=lr, seed=seed, weight_decay=0.01, **changes)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Flat:
    """One group with an advantage for each response."""

    prompt_T: tuple[int, ...]
    rollout_G: tuple[Rollout, ...]
    advantage_G: tuple[float, ...]
    temperature: float

    @property
    def n_tokens(self) -> int:
        return sum(len(r.token_T) for r in self.rollout_G)

    @property
    def group(self) -> TrainGroup:
        spread = tuple((a,) * len(r.token_T) for a, r in zip(self.advantage_G, self.rollout_G, strict=True))
        return TrainGroup(prompt_T=self.prompt_T, rollout_G=self.rollout_G, advantage_GT=spread)

    @property
    def batch(self) -> TrainBatch:
        return TrainBatch(group_P=(self.group,), temperature=self.temperature)


def score(learner: Any, name: str | None, data: Flat) -> list[list[float]]:
    """Log-probs of the responses."""
    found: list[list[float]] = learner.score(name, data.group, data.temperature, JUST_LOGPROBS)["logprob"]
    return found


def batch(n: int = 12, seed: int = 0, longest: int = 9, temperature: float = 0.8) -> Flat:
    """Random responses of different lengths with random advantages."""
    chance = np.random.default_rng(seed)
    tokens_G = [tuple(int(t) for t in chance.integers(len(VOCABULARY), size=1 + i % longest)) for i in range(n)]
    advantage_G = tuple(float(a) for a in chance.normal(size=n))
    return Flat(
        prompt_T=PROMPT_T,
        rollout_G=tuple(rollout(t, tuple(chance.normal(-2, 1, len(t)))) for t in tokens_G),
        advantage_G=advantage_G,
        temperature=temperature,
    )


@contextmanager
def forked(learner: Any, name: str = "fork", **changes: Any) -> Iterator[str]:
    """An open slot."""
    learner.open_fork(name, spec("lora" if learner.settings.lora_rank else "full", **changes))
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
        learner.update(name, data.batch, OPEN)
    learner.slots.slots[name].updates -= 1
    return seen


def whole(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor  # type: ignore[no-any-return]


def state(learner: Any, name: str) -> Tensors:
    """Everything a fork holds: weights, moments, number of updates."""
    learner.slots._store()
    slot = learner.slots.slots[name]
    tensors = {f"weight/{n}": w.clone() for n, w in slot.weights.items()}
    for n, moments in slot.moments.items():
        tensors |= {f"{key}/{n}": whole(value).clone() for key, value in moments.items()}
    return tensors | {"updates": torch.tensor(slot.updates)}


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
        logits = network(tokens).logits[0, len(data.prompt_T) - 1 : -1].float() / data.temperature
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


@pytest.fixture(params=["lora", "full"])
def learner(request: pytest.FixtureRequest) -> Any:
    """Each kind of delta."""
    return request.getfixturevalue(f"{request.param}_learner")


@pytest.fixture(scope="module")
def network(tiny_model: Path) -> torch.nn.Module:
    """The base in plain transformers."""
    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)


def test_prompts_are_packed(learner: Any) -> None:
    described = learner.describe()
    assert described["packs"] and described["world_size"] == 1 and described["device"] == "cpu" and described["trainable"] > 1000


def test_log_probs_are_those_of_transformers(learner: Any, network: torch.nn.Module) -> None:
    data = batch()
    for found, plain in zip(score(learner, None, data), plain_logprobs(network, data), strict=True):
        torch.testing.assert_close(torch.tensor(found), plain.detach(), atol=1e-4, rtol=0)


def test_an_adapted_fork_is_what_peft_makes_of_its_export(lora_learner: Any, tiny_model: Path, tmp_path: Path) -> None:
    data = batch()
    with forked(lora_learner) as name:
        for _ in range(3):
            lora_learner.update(name, data.batch, OPEN)
        lora_learner.export(name, str(tmp_path), "float32")
        scored = score(lora_learner, name, data)
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32), tmp_path)
    for found, plain, base in zip(scored, plain_logprobs(adapted, data), score(lora_learner, None, data), strict=True):
        torch.testing.assert_close(torch.tensor(found), plain.detach(), atol=1e-4, rtol=0)
        assert found != base


def test_packed_gradients_are_those_of_plain_autograd(lora_learner: Any, tiny_model: Path, tmp_path: Path, monkeypatch: Any) -> None:
    data = batch()
    with forked(lora_learner) as name:
        lora_learner.update(name, batch(seed=5).batch, OPEN)
        found = gradients(lora_learner, name, data, monkeypatch)
        lora_learner.export(name, str(tmp_path), "float32")
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    base_G = [row.detach() for row in plain_logprobs(base, data)]
    adapted = PeftModel.from_pretrained(base, tmp_path, is_trainable=True)
    plain_loss(adapted, base_G, data, OPEN.kl_coef).backward()
    expected = {n: p.grad for n, p in adapted.named_parameters() if p.grad is not None}
    assert len(expected) == 28 and all(float(g.norm()) > 1e-4 for g in expected.values())
    check_close(found, expected, 1e-3)


def test_full_gradients_are_those_of_plain_autograd(full_learner: Any, network: torch.nn.Module, monkeypatch: Any) -> None:
    data = batch()
    with forked(full_learner) as name:
        found = gradients(full_learner, name, data, monkeypatch)
    network.zero_grad()
    plain_loss(network, [row.detach() for row in plain_logprobs(network, data)], data, OPEN.kl_coef).backward()
    check_close(found, {n: p.grad for n, p in network.named_parameters() if p.grad is not None}, 1e-3)


def test_packed_gradients_are_the_spelled_out_ones(learner: Any, monkeypatch: Any) -> None:
    data = batch()
    with forked(learner) as name:
        learner.update(name, batch(seed=5).batch, OPEN)
        packed = gradients(learner, name, data, monkeypatch)
        monkeypatch.setattr(learner.engine, "packs", False)
        check_close(packed, gradients(learner, name, data, monkeypatch), 1e-3)


def test_accumulated_micro_batches_are_one_batch(learner: Any, monkeypatch: Any) -> None:
    data = batch(n=16)
    with forked(learner, lr=0.0) as name:
        with micro_batches_of(learner, 4096):
            one, one_stats = gradients(learner, name, data, monkeypatch), learner.update(name, data.batch, OPEN)
        with micro_batches_of(learner, 40):
            many, many_stats = gradients(learner, name, data, monkeypatch), learner.update(name, data.batch, OPEN)
        assert one_stats.micro_batches == 1 and many_stats.micro_batches >= 3
        check_close(many, one, 1e-4)
        for field in ("loss", "grad_norm", "logprob_gap_mean", "logprob_gap_max", "logprob_correlation"):
            assert getattr(many_stats, field) == pytest.approx(getattr(one_stats, field), rel=1e-4, abs=1e-6), field


def test_order_and_neighbours_change_nothing(learner: Any, monkeypatch: Any) -> None:
    data = batch()
    order = np.random.default_rng(3).permutation(len(data.rollout_G))
    shuffled = replace(data, rollout_G=tuple(data.rollout_G[i] for i in order), advantage_G=tuple(data.advantage_G[i] for i in order))
    with forked(learner) as name:
        check_close(gradients(learner, name, shuffled, monkeypatch), gradients(learner, name, data, monkeypatch), 1e-4)
        found, plain = score(learner, name, shuffled), score(learner, name, data)
        alone = replace(data, rollout_G=data.rollout_G[5:6], advantage_G=(0.0,))
        assert score(learner, name, alone)[0] == pytest.approx(plain[5], abs=1e-5)
    for position, i in enumerate(order):
        assert found[position] == pytest.approx(plain[i], abs=1e-5)


def test_stats_compare_the_learner_with_the_sampler(learner: Any) -> None:
    data = batch()
    noise = np.random.default_rng(1)
    exact = score(learner, None, data)
    heard = [tuple(float(np.float32(x + d)) for x, d in zip(row, noise.normal(0, 0.05, len(row)), strict=True)) for row in exact]
    data = replace(data, rollout_G=tuple(replace(r, logprob_T=row) for r, row in zip(data.rollout_G, heard, strict=True)))
    with forked(learner) as name:
        stats = learner.update(name, data.batch, OPEN)
    x, y = (np.concatenate([np.asarray(row) for row in rows]) for rows in (exact, heard))
    assert stats.logprob_gap_mean == pytest.approx(np.abs(x - y).mean(), rel=1e-3)
    assert stats.logprob_gap_max == pytest.approx(np.abs(x - y).max(), rel=1e-3)
    assert stats.logprob_correlation == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-5)


def test_learning_rate_zero_goes_nowhere_in_fifty_updates(learner: Any) -> None:
    data = batch(n=6)
    before = score(learner, None, data)
    with forked(learner, lr=0.0) as name:
        stats = [learner.update(name, data.batch, OPEN) for _ in range(50)]
        assert score(learner, name, data) == before
    assert all(s.kl_to_base == 0.0 and s.lr == 0.0 and s.grad_norm > 0 for s in stats)


def test_an_update_makes_good_responses_likelier_and_bad_ones_less(learner: Any) -> None:
    data = batch(n=8)
    data = replace(data, advantage_G=(1.0, -1.0) * 4)
    before = [sum(row) for row in score(learner, None, data)]
    with forked(learner, lr=0.003) as name:
        for _ in range(3):
            stats = learner.update(name, data.batch, OPEN)
        after = [sum(row) for row in score(learner, name, data)]
    change_G = np.array(after) - np.array(before)
    assert change_G[::2].sum() > 0.05 and change_G[1::2].sum() < -0.05
    assert (np.sign(change_G) == np.sign(data.advantage_G)).mean() >= 0.75
    assert stats.kl_to_base is not None and stats.kl_to_base > 0


def test_kl_to_base_is_the_k3_of_the_scores(learner: Any) -> None:
    data = batch()
    with forked(learner, lr=0.0003) as name:
        learner.update(name, batch(seed=5).batch, OPEN)
        here, base = (np.concatenate(score(learner, at, data)) for at in (name, None))
        stats = learner.update(name, data.batch, OPEN)
    assert stats.kl_to_base == pytest.approx(float((np.exp(base - here) - (base - here) - 1).mean()), rel=1e-3)


def test_the_schedule_is_the_forks_own(lora_learner: Any) -> None:
    data = batch(n=4)
    with forked(lora_learner, "a", lr=0.1, total_steps=4, schedule="cosine") as a, forked(lora_learner, "b", lr=0.5) as b:
        rates = [lora_learner.update(name, data.batch, OPEN).lr for name in (a, b, a, b, a, a)]
    assert rates == pytest.approx(
        [0.1, 0.5, 0.1 * 0.5 * (1 + math.cos(math.pi / 4)), 0.5, 0.05, 0.1 * 0.5 * (1 + math.cos(0.75 * math.pi))]
    )


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
        learner.update(name, data.batch, OPEN)
        before = state(learner, name)
        gate = 0.5 if what == "gap" or "sampler" in what else math.inf
        with pytest.raises(DivergedError, match="not applied"):
            learner.update(name, bad_batch(what, learner, name, data).batch, replace(OPEN, max_logprob_gap=gate))
        assert same(state(learner, name), before)
        check_goes_on(learner, name, data, before)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_is_never_applied(learner: Any, value: float) -> None:
    data = batch()
    with forked(learner) as name:
        learner.update(name, data.batch, OPEN)
        before = state(learner, name)
        with pytest.MonkeyPatch.context() as patch:
            spoil_gradient(learner, patch, value)
            with pytest.raises(DivergedError, match="norm"):
                learner.update(name, data.batch, OPEN)
        assert same(state(learner, name), before)
        check_goes_on(learner, name, data, before)


def check_goes_on(learner: Any, name: str, data: Flat, before: Tensors) -> None:
    """The next good update is the one that would have come without the bad one."""
    learner.update(name, data.batch, OPEN)
    after = state(learner, name)
    assert not same(after, before) and all(bool(t.isfinite().all()) for t in after.values())
    with forked(learner, "twin") as twin:
        learner.update(twin, data.batch, OPEN)
        learner.update(twin, data.batch, OPEN)
        assert same(state(learner, twin), after)


def test_a_gap_within_the_gate_is_applied(lora_learner: Any) -> None:
    data = batch()
    exact = score(lora_learner, None, data)
    near = tuple(replace(r, logprob_T=tuple(x + 0.4 for x in row)) for r, row in zip(data.rollout_G, exact, strict=True))
    with forked(lora_learner) as name:
        stats = lora_learner.update(name, replace(data, rollout_G=near).batch, replace(OPEN, max_logprob_gap=0.5))
    assert stats.logprob_gap_mean == pytest.approx(0.4, rel=1e-3)


def test_a_saved_fork_goes_on_to_the_bit(learner: Any, tmp_path: Path) -> None:
    data = batch()
    with forked(learner, "a", schedule="cosine", total_steps=9) as a, forked(learner, "b", schedule="cosine", total_steps=9) as b:
        for _ in range(3):
            learner.update(a, data.batch, OPEN)
        learner.save_fork(a, str(tmp_path))
        learner.update(b, batch(seed=8).batch, OPEN)
        learner.restore_fork(b, str(tmp_path))
        assert score(learner, b, data) == score(learner, a, data) != score(learner, None, data)
        stats = [replace(learner.update(name, data.batch, OPEN), seconds=0.0) for name in (a, b)]
        assert stats[0] == stats[1]
        assert same(state(learner, a), state(learner, b))
        assert score(learner, b, data) == score(learner, a, data)


def test_the_base_is_the_same_to_the_bit_after_forks(learner: Any) -> None:
    data = batch()
    before, scores = learner.fingerprint(), score(learner, None, data)
    with forked(learner, "a", lr=0.1) as a, forked(learner, "b", seed=2) as b:
        for name in (a, b, a):
            learner.update(name, data.batch, OPEN)
        assert learner.fingerprint() == before and score(learner, None, data) == scores
        assert score(learner, a, data) != score(learner, b, data) != scores
        learner.update(a, data.batch, OPEN)
    assert learner.fingerprint() == before
    assert score(learner, None, data) == scores


def test_a_changed_base_has_another_fingerprint(lora_learner: Any) -> None:
    before = lora_learner.fingerprint()
    frozen = next(p for p in lora_learner.engine.module.parameters() if not p.requires_grad)
    cell = (frozen.to_local() if hasattr(frozen, "to_local") else frozen).detach().view(-1)[:1]
    kept = cell.clone()
    cell.add_(1.0)
    assert lora_learner.fingerprint() != before
    cell.copy_(kept)
    assert lora_learner.fingerprint() == before


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
        learner.update(a, data.batch, OPEN)
        learner.update(b, data.batch, OPEN)
        whole_stats = learner.update(a, data.batch, OPEN)
        with pytest.MonkeyPatch.context() as patch:
            budgets = short_of_memory(learner, patch, times, error)
            stats = learner.update(b, data.batch, OPEN)
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
        learner.update(name, data.batch, OPEN)
        before = state(learner, name)
        with pytest.MonkeyPatch.context() as patch:
            budgets = short_of_memory(learner, patch, 99, lambda: torch.OutOfMemoryError("CUDA out of memory"))
            with pytest.raises(OutOfMemoryError):
                learner.update(name, data.batch, OPEN)
        assert len(budgets) == 3 and same(state(learner, name), before)
        check_goes_on(learner, name, data, before)


def test_another_runtime_error_is_not_taken_for_memory(lora_learner: Any) -> None:
    with forked(lora_learner) as name, pytest.MonkeyPatch.context() as patch:
        budgets = short_of_memory(lora_learner, patch, 99, lambda: RuntimeError("a shape is wrong"))
        with pytest.raises(RuntimeError, match="shape"):
            lora_learner.update(name, batch().batch, OPEN)
    assert len(budgets) == 1
