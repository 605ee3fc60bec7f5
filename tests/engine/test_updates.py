"""What an update may be beside one step on one group: several groups, several steps, other losses, a vector, a critic."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from live_engine import OTHER_PROMPT_T, PROMPT_T, rollout
from safetensors.torch import load_file
from tiny_model import VOCABULARY
from transformers import AutoModelForCausalLM

from sttrl.errors import DivergedError
from sttrl.objectives.token_statistics import STATISTICS
from sttrl.types import DeltaSpec, Measure, Objective, Rollout, TrainBatch, TrainGroup

OPEN = Objective(kl_coef=0.0, max_logprob_gap=math.inf)
TEMPERATURE = 0.8
SPEC = DeltaSpec(kind="lora", lr=0.003, seed=1)
Tensors = dict[str, torch.Tensor]


def group(prompt_T: tuple[int, ...] = PROMPT_T, n: int = 8, seed: int = 0) -> TrainGroup:
    """Random responses of different lengths with random advantages."""
    chance = np.random.default_rng(seed)
    rollout_G = tuple(rollout(tuple(int(t) for t in chance.integers(len(VOCABULARY), size=1 + i % 5))) for i in range(n))
    return TrainGroup(
        prompt_T=prompt_T,
        rollout_G=rollout_G,
        advantage_GT=tuple(tuple(float(a) for a in chance.normal(size=len(r.token_T))) for r in rollout_G),
    )


def batch_of(*groups: TrainGroup) -> TrainBatch:
    return TrainBatch(group_P=groups, temperature=TEMPERATURE)


@contextmanager
def forked(learner: Any, name: str = "fork", **changes: Any) -> Iterator[str]:
    """An open slot."""
    learner.open_fork(name, replace(SPEC, kind="lora" if learner.settings.lora_rank else "full", **changes))
    try:
        yield name
    finally:
        learner.close_fork(name)


def gradients(learner: Any, name: str, data: TrainBatch, objective: Objective) -> Tensors:
    """The gradients of one update that is then not taken."""
    seen: Tensors = {}

    def look() -> float:
        for key, parameter in learner.engine.module.named_parameters():
            if parameter.grad is not None:
                seen[key] = (parameter.grad.full_tensor() if hasattr(parameter.grad, "full_tensor") else parameter.grad).clone()
        return 1.0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learner.engine, "optimizer_step", look)
        learner.update(name, data, objective)
    learner.slots.slots[name].updates -= 1
    return seen


def check_close(a: Tensors, b: Tensors, relative: float = 1e-3) -> None:
    assert a.keys() == b.keys() and a
    for n in a:
        assert float((a[n] - b[n]).norm()) <= relative * float(b[n].norm()) + 1e-7, n


def plain_logits(network: torch.nn.Module, prompt_T: tuple[int, ...], r: Rollout) -> torch.Tensor:
    """Raw logits that score a response's tokens."""
    logits: torch.Tensor = network(torch.tensor([[*prompt_T, *r.token_T]])).logits[0, len(prompt_T) - 1 : -1].float()
    return logits


@pytest.fixture(scope="module")
def network(tiny_model: Path) -> torch.nn.Module:
    """The base in plain transformers."""
    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)


@pytest.fixture(params=[True, False], ids=["packed", "spelled_out"])
def either_layout(lora_learner: Any, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The LoRA learner with prompts packed, and with rows spelled out."""
    monkeypatch.setattr(lora_learner.engine, "packs", request.param)
    return lora_learner


def test_every_statistic_is_that_of_transformers(either_layout: Any, network: torch.nn.Module) -> None:
    """Written out from the definitions, on the logits of plain transformers."""
    data, measure = group(), Measure(want=frozenset(STATISTICS), energy_temperature=2.0, top_k=3)
    found = either_layout.score(None, data, TEMPERATURE, measure)
    assert found.keys() == STATISTICS.keys()
    for i, r in enumerate(data.rollout_G):
        z = plain_logits(network, PROMPT_T, r).detach().double().numpy()
        for t, token in enumerate(r.token_T):
            p = np.exp(z[t] / TEMPERATURE) / np.exp(z[t] / TEMPERATURE).sum()
            expected = {
                "logprob": math.log(p[token]),
                "entropy": -(p * np.log(p)).sum(),
                "top_confidence": -np.log(np.sort(p)[-3:]).mean(),
                "self_certainty": np.log(np.exp(z[t] / TEMPERATURE).sum()) - (z[t] / TEMPERATURE).mean(),
                "sum_pi_squared": (p**2).sum(),
                "logit": z[t][token],
                "logsumexp": 2.0 * np.log(np.exp(z[t] / 2.0).sum()),
            }
            assert {name: found[name][i][t] for name in expected} == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_groups_of_several_prompts_are_one_mean_over_all_tokens(either_layout: Any, network: torch.nn.Module) -> None:
    first, second = group(), group(OTHER_PROMPT_T, n=5, seed=3)
    with forked(either_layout) as name:
        together = gradients(either_layout, name, batch_of(first, second), OPEN)
        alone = [gradients(either_layout, name, batch_of(g), OPEN) for g in (first, second)]
    tokens = [batch_of(g).n_tokens for g in (first, second)]
    mean = {n: (alone[0][n] * tokens[0] + alone[1][n] * tokens[1]) / sum(tokens) for n in together}
    check_close(together, mean)


def test_every_policy_loss_of_verls_makes_a_step(lora_learner: Any) -> None:
    from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY

    assert len(POLICY_LOSS_REGISTRY) >= 12
    for policy_loss in POLICY_LOSS_REGISTRY:
        with forked(lora_learner) as name:
            stats = lora_learner.update(name, batch_of(group()), replace(OPEN, policy_loss=policy_loss, kl_coef=0.01))
            assert math.isfinite(stats.loss) and stats.grad_norm > 0, policy_loss
            stats = lora_learner.update(name, batch_of(group()), replace(OPEN, policy_loss=policy_loss, mini_batches=2, ppo_epochs=2))
            assert stats.optimizer_steps == 4 and stats.grad_norm > 0, policy_loss


def test_the_nll_is_that_of_plain_autograd(lora_learner: Any, full_learner: Any, network: torch.nn.Module) -> None:
    data = group()
    with forked(full_learner) as name:
        found = gradients(full_learner, name, batch_of(data), replace(OPEN, loss="nll"))
        stats = full_learner.update(name, batch_of(data), replace(OPEN, loss="nll"))
    network.zero_grad()
    rows = [(plain_logits(network, PROMPT_T, r) / TEMPERATURE).log_softmax(-1) for r in data.rollout_G]
    nll = -sum(row.gather(1, torch.tensor(r.token_T)[:, None]).sum() for row, r in zip(rows, data.rollout_G, strict=True))
    loss = nll / batch_of(data).n_tokens
    loss.backward()  # type: ignore[union-attr]
    assert stats.loss == pytest.approx(float(loss), rel=1e-4) and stats.tokens == batch_of(data).n_tokens
    check_close(found, {n: p.grad for n, p in network.named_parameters() if p.grad is not None})


def test_only_the_scored_tokens_carry_loss(full_learner: Any, network: torch.nn.Module) -> None:
    """TTFT's and MEMO's masks: prompt and prefix count for nothing."""
    data = replace(group(), rollout_G=tuple(rollout((5, 6, 7 + i)) for i in range(4)), advantage_GT=(), scored=1)
    with forked(full_learner) as name:
        found = gradients(full_learner, name, batch_of(data), replace(OPEN, loss="nll"))
    network.zero_grad()
    rows = [(plain_logits(network, PROMPT_T, r)[-1] / TEMPERATURE).log_softmax(-1)[r.token_T[-1]] for r in data.rollout_G]
    (-torch.stack(rows).mean()).backward()
    check_close(found, {n: p.grad for n, p in network.named_parameters() if p.grad is not None})


@pytest.mark.parametrize("tokens", [4096, 6])
def test_the_marginal_entropy_is_that_of_plain_autograd(full_learner: Any, network: torch.nn.Module, tokens: int) -> None:
    """MEMO over views: the entropy of the mean next-token distribution, whatever the micro-batches."""
    views = [(5, 6, 7), (9,), (3, 4, 5, 6), (8, 7)]
    data = TrainGroup(prompt_T=PROMPT_T, rollout_G=tuple(rollout((*v, 0)) for v in views), scored=1)
    objective, settings = replace(OPEN, loss="marginal_entropy"), full_learner.settings
    with forked(full_learner) as name:
        try:
            full_learner.settings = replace(settings, micro_batch_tokens=tokens)
            found = gradients(full_learner, name, batch_of(data), objective)
            stats = full_learner.update(name, batch_of(data), objective)
        finally:
            full_learner.settings = settings
        assert (stats.micro_batches > 1) == (tokens < 4096)
    network.zero_grad()
    last = [network(torch.tensor([[*PROMPT_T, *v]])).logits[0, -1].float() / TEMPERATURE for v in views]
    p = torch.stack([z.softmax(-1) for z in last]).mean(0)
    entropy = -(p * p.log()).sum()
    entropy.backward()
    assert stats.loss == pytest.approx(float(entropy), rel=1e-4)
    assert stats.tokens == 4 and stats.logprob_gap_mean is None
    check_close(found, {n: g.grad for n, g in network.named_parameters() if g.grad is not None})


def test_a_token_that_underflows_in_every_view_adds_nothing(full_learner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large model is so sure that float32 has no number for its unlikeliest tokens."""
    data = TrainGroup(prompt_T=PROMPT_T, rollout_G=tuple(rollout((*v, 0)) for v in [(5, 6, 7), (9,), (3, 4)]), scored=1)
    objective, cold = replace(OPEN, loss="marginal_entropy"), TrainBatch(group_P=(data,), temperature=0.001)
    with forked(full_learner) as name:
        stats = full_learner.update(name, cold, objective)
    assert math.isfinite(stats.loss) and stats.loss >= 0 and math.isfinite(stats.grad_norm)


def test_mini_batches_are_single_steps_with_the_first_log_probs(lora_learner: Any) -> None:
    """Two epochs of two mini-batches, against four updates by hand: the old log-probs are those of before the first step."""
    data = batch_of(group())
    objective = replace(OPEN, mini_batches=2, ppo_epochs=2, clip_low=0.001, clip_high=0.001)
    with forked(lora_learner, "a", lr=0.02) as a, forked(lora_learner, "b", lr=0.02) as b:
        stats = lora_learner.update(a, data, objective)
        whole = lora_learner.rows(data)[0]
        halves = [replace(data, group_P=(_every_second(data.group_P[0], i),)) for i in range(2)]
        lora_learner.slots.load(b)
        old = [lora_learner.forward(lora_learner.rows(half)[0])["log_probs"] for half in halves]
        fractions = []
        for i in (0, 1, 0, 1):
            rows = lora_learner.rows(halves[i])
            rows[0]["old_log_probs"] = old[i]
            from sttrl.engine.verl.rows import total_of

            result = lora_learner.optimise(rows, lora_learner._loss(rows, total_of(halves[i]), OPEN_CLIPPED), OPEN_CLIPPED, fresh=False)
            fractions.append(result.clip_fraction)
        scores = [lora_learner.score(name, data.group_P[0], TEMPERATURE, Measure())["logprob"] for name in (a, b)]
    assert stats.optimizer_steps == 4 and stats.tokens == 2 * data.n_tokens and len(whole) == 8
    assert scores[0] == scores[1]
    assert stats.clip_fraction == pytest.approx(np.mean(fractions)) and stats.clip_fraction > 0.1


OPEN_CLIPPED = replace(OPEN, clip_low=0.001, clip_high=0.001)


def _every_second(data: TrainGroup, start: int) -> TrainGroup:
    return replace(data, rollout_G=data.rollout_G[start::2], advantage_GT=data.advantage_GT[start::2])


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_a_later_step_that_is_refused_takes_the_earlier_ones_back(request: pytest.FixtureRequest, kind: str) -> None:
    learner = request.getfixturevalue(f"{kind}_learner")
    data, honest, calls = batch_of(group()), learner.engine.forward_backward_batch, []

    def spoiled(rows: Any, *arguments: Any, **options: Any) -> Any:
        outputs = honest(rows, *arguments, **options)
        if not options.get("forward_only"):
            calls.append(1)
            if len(calls) == 3:
                outputs["loss"][0] = math.nan
        return outputs

    with forked(learner) as name:
        learner.update(name, data, OPEN)
        before = learner.score(name, data.group_P[0], 1.0, Measure())
        with pytest.MonkeyPatch.context() as patch, pytest.raises(DivergedError):
            patch.setattr(learner.engine, "forward_backward_batch", spoiled)
            learner.update(name, data, replace(OPEN, mini_batches=2, ppo_epochs=2))
        assert len(calls) == 3 and learner.slots.slots[name].updates == 1
        assert learner.score(name, data.group_P[0], 1.0, Measure()) == before
        learner.update(name, data, OPEN)
        assert learner.slots.slots[name].updates == 2


def vector_spec(lr: float = 0.1) -> DeltaSpec:
    return DeltaSpec(kind="vector", lr=lr, weight_decay=1e-8, adam_eps=1e-5)


def prompts(*prompt_P: tuple[int, ...]) -> TrainBatch:
    return TrainBatch(group_P=tuple(TrainGroup(prompt_T=p, rollout_G=()) for p in prompt_P), temperature=1.0)


def slot_by_hand(network: Any, prompt_T: tuple[int, ...], steps: int, lr: float = 0.1) -> tuple[torch.Tensor, list[float]]:
    """SLOT on plain transformers: delta added to the last hidden state, AdamW on the prompt's cross-entropy."""
    delta = torch.zeros(network.config.hidden_size, requires_grad=True)
    optimizer = torch.optim.AdamW([delta], lr=lr, weight_decay=1e-8, eps=1e-5)
    hidden = network.model(torch.tensor([prompt_T])).last_hidden_state.detach()
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        logits = network.lm_head(hidden + delta)[0]
        loss = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(prompt_T[1:]))
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    return delta.detach(), losses


def test_slots_vector_is_that_of_plain_autograd(lora_learner: Any, full_learner: Any, network: torch.nn.Module, tmp_path: Path) -> None:
    for learner in (lora_learner, full_learner):
        learner.open_fork("one", vector_spec())
        learner.open_fork("other", vector_spec())
        losses = []
        for _ in range(5):
            losses.append(learner.update("one", prompts(PROMPT_T), OPEN).loss)
            learner.update("other", prompts(OTHER_PROMPT_T), OPEN)
        expected, expected_losses = slot_by_hand(network, PROMPT_T, 5)
        learner.export("one", str(tmp_path / "one"), "float32")
        saved = load_file(tmp_path / "one" / "vector.safetensors")
        assert losses == pytest.approx(expected_losses, rel=1e-4) and losses[-1] < losses[0]
        torch.testing.assert_close(saved["delta"], expected, atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(saved["logit_bias"], network.lm_head.weight.detach() @ expected, atol=1e-3, rtol=1e-3)  # type: ignore[union-attr]
        data = group()
        scores = learner.score("one", data, TEMPERATURE, Measure())["logprob"]
        for r, found in zip(data.rollout_G, scores, strict=True):
            logits = plain_logits(network, PROMPT_T, r).detach() + saved["logit_bias"]
            plain = (logits / TEMPERATURE).log_softmax(-1).gather(1, torch.tensor(r.token_T)[:, None])[:, 0]
            assert found == pytest.approx(plain.tolist(), abs=1e-3)
        base = learner.score(None, data, TEMPERATURE, Measure())["logprob"]
        assert base != scores
        for name in ("one", "other"):
            learner.close_fork(name)


def test_a_vector_goes_on_from_its_checkpoint(lora_learner: Any, tmp_path: Path) -> None:
    for name in ("a", "b"):
        lora_learner.open_fork(name, vector_spec())
    for _ in range(3):
        lora_learner.update("a", prompts(PROMPT_T), OPEN)
    lora_learner.save_fork("a", str(tmp_path))
    lora_learner.restore_fork("b", str(tmp_path))
    stats = [replace(lora_learner.update(name, prompts(OTHER_PROMPT_T), OPEN), seconds=0.0) for name in ("a", "b")]
    assert stats[0] == stats[1]
    assert torch.equal(lora_learner.vectors.logit_bias("a"), lora_learner.vectors.logit_bias("b"))
    lora_learner.save_fork("b", str(tmp_path / "fresh"))
    for name in ("a", "b"):
        lora_learner.close_fork(name)


def test_learning_rate_zero_leaves_the_base(lora_learner: Any) -> None:
    data = group()
    lora_learner.open_fork("still", vector_spec(lr=0.0))
    for _ in range(5):
        lora_learner.update("still", prompts(PROMPT_T), OPEN)
    assert lora_learner.score("still", data, 1.0, Measure()) == lora_learner.score(None, data, 1.0, Measure())
    lora_learner.close_fork("still")


def with_returns(data: TrainGroup, value: float) -> TrainGroup:
    """Values of 0 and the same return everywhere."""
    zeros = tuple((0.0,) * len(r.token_T) for r in data.rollout_G)
    return replace(data, value_GT=zeros, return_GT=tuple((value,) * len(r.token_T) for r in data.rollout_G))


def test_a_critic_begins_at_zero_and_learns_what_came(critic: Any) -> None:
    data = with_returns(group(), 0.4)
    assert critic.describe()["packs"]
    kind = "lora" if critic.settings.lora_rank else "full"
    for name in ("one", "other"):
        critic.open_fork(name, replace(SPEC, kind=kind, lr=0.01))
    assert all(v == 0.0 for row in critic.values("one", data) for v in row)
    losses = [critic.update("one", batch_of(data), OPEN) for _ in range(8)]
    after = [v for row in critic.values("one", data) for v in row]
    assert losses[0] == pytest.approx(0.5 * 0.4**2, rel=1e-4) and losses[-1] < losses[0] / 2
    assert np.mean(np.abs(np.array(after) - 0.4)) < 0.3
    assert all(v == 0.0 for row in critic.values("other", data) for v in row), "forks are apart"
    for name in ("one", "other"):
        critic.close_fork(name)


def test_a_critics_gradient_is_that_of_plain_autograd(critic: Any, tiny_model: Path) -> None:
    """The value before token t is the head on the state of token t - 1."""
    data = with_returns(group(), 0.4)
    kind = "lora" if critic.settings.lora_rank else "full"
    critic.open_fork("one", replace(SPEC, kind=kind, lr=0.01))
    found = gradients(critic, "one", batch_of(data), OPEN)
    critic.close_fork("one")
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).model
    states = [base(torch.tensor([[*PROMPT_T, *r.token_T]])).last_hidden_state[0, len(PROMPT_T) - 1 : -1] for r in data.rollout_G]
    expected = -0.4 * torch.cat(states).detach().mean(0)  # d/dw of 1/2 (w h - 0.4)^2 at w = 0
    (head,) = [g for n, g in found.items() if "score" in n and n.endswith("weight")]
    assert float((head[0] - expected).norm()) <= 1e-3 * float(expected.norm())


def test_a_critics_packed_values_are_the_spelled_out_ones(critic: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    data = with_returns(group(), 0.4)
    critic.open_fork("one", replace(SPEC, kind="lora" if critic.settings.lora_rank else "full", lr=0.01))
    for _ in range(3):
        critic.update("one", batch_of(data), OPEN)
    packed = critic.values("one", data)
    monkeypatch.setattr(critic.engine, "packs", False)
    for a, b in zip(packed, critic.values("one", data), strict=True):
        assert a == pytest.approx(b, abs=1e-4)
    critic.close_fork("one")
