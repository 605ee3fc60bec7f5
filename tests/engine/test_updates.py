"""What an update may be beside one step on one group: several groups, several steps, other losses, a vector."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from learner_tools import micro_batches_of, scored
from live_engine import OTHER_PROMPT_T, PROMPT_T
from safetensors.torch import load_file
from tiny_model import VOCABULARY
from transformers import AutoModelForCausalLM

from sttrl.errors import DivergedError
from sttrl.objectives.token_statistics import STATISTICS
from sttrl.types import DeltaSpec, Measure, Objective, Row, TrainGroup

TEMPERATURE = 0.8
OPEN = Objective(kl_coef=0.0, max_logprob_gap=math.inf, temperature=TEMPERATURE)
SPEC = DeltaSpec(kind="lora", lr={"main": 0.003}, seed=1)
Tensors = dict[str, torch.Tensor]


def row(token_T: tuple[int, ...], weight_T: tuple[float, ...] | None = None, **columns: Any) -> Row:
    """A row whose tokens all carry loss, or as ``weight_T`` says."""
    return Row(token_T=token_T, weight_T=weight_T or (1.0,) * len(token_T), **columns)


def group(prompt_T: tuple[int, ...] = PROMPT_T, n: int = 8, seed: int = 0) -> TrainGroup:
    """Random rows of different lengths with random advantages."""
    chance = np.random.default_rng(seed)
    tokens_G = [tuple(int(t) for t in chance.integers(len(VOCABULARY), size=1 + i % 5)) for i in range(n)]
    advantage_GT = [tuple(float(a) for a in chance.normal(size=len(token_T))) for token_T in tokens_G]
    return TrainGroup(
        prefix_T=prompt_T,
        row_G=tuple(row(t, sampler_logprob_T=(-1.0,) * len(t), advantage_T=a) for t, a in zip(tokens_G, advantage_GT, strict=True)),
    )


@contextmanager
def forked(learner: Any, name: str = "fork", lr: float = 0.003) -> Iterator[str]:
    """An open fork."""
    learner.open_fork(name, replace(SPEC, kind="lora" if learner.settings.adapter else "full", lr={"main": lr}))
    try:
        yield name
    finally:
        learner.close_fork(name)


def gradients(learner: Any, name: str, groups: Sequence[TrainGroup], objective: Objective) -> Tensors:
    """The gradients of one update that is then not taken."""
    seen: Tensors = {}

    def look() -> float:
        for key, parameter in learner.engine.module.named_parameters():
            if parameter.grad is not None:
                seen[key] = (parameter.grad.full_tensor() if hasattr(parameter.grad, "full_tensor") else parameter.grad).clone()
        return 1.0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learner.engine, "optimizer_step", look)
        learner.update(name, groups, objective)
    learner.forks.states[name].updates -= 1
    return seen


def check_close(a: Tensors, b: Tensors, relative: float = 1e-3) -> None:
    assert a.keys() == b.keys() and a
    for n in a:
        assert float((a[n] - b[n]).norm()) <= relative * float(b[n].norm()) + 1e-7, n


def plain_logits(network: torch.nn.Module, prompt_T: tuple[int, ...], r: Row) -> torch.Tensor:
    """Raw logits that score a row's tokens."""
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
    data, measure = group(), Measure(want=frozenset(STATISTICS), temperature=TEMPERATURE, energy_temperature=2.0, top_k=3)
    (stats_G,) = either_layout.score(None, [data], measure)
    for r, found in zip(data.row_G, stats_G, strict=True):
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
            assert expected.keys() == STATISTICS.keys()
            assert {name: getattr(found, f"{name}_T")[t] for name in expected} == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_groups_of_several_prompts_are_one_mean_over_all_tokens(either_layout: Any, network: torch.nn.Module) -> None:
    first, second = group(), group(OTHER_PROMPT_T, n=5, seed=3)
    with forked(either_layout) as name:
        together = gradients(either_layout, name, [first, second], OPEN)
        alone = [gradients(either_layout, name, [g], OPEN) for g in (first, second)]
    tokens = [g.n_tokens for g in (first, second)]
    mean = {n: (alone[0][n] * tokens[0] + alone[1][n] * tokens[1]) / sum(tokens) for n in together}
    check_close(together, mean)


def test_every_policy_loss_of_verls_makes_a_step(lora_learner: Any) -> None:
    from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY

    assert len(POLICY_LOSS_REGISTRY) >= 12
    for policy_loss in POLICY_LOSS_REGISTRY:
        with forked(lora_learner) as name:
            stats = lora_learner.update(name, [group()], replace(OPEN, policy_loss=policy_loss, kl_coef=0.01))
            assert math.isfinite(stats.loss) and stats.grad_norm > 0, policy_loss
            stats = lora_learner.update(name, [group()], replace(OPEN, policy_loss=policy_loss, mini_batches=2, ppo_epochs=2))
            assert stats.optimizer_steps == 4 and stats.grad_norm > 0, policy_loss


def test_the_nll_is_that_of_plain_autograd(lora_learner: Any, full_learner: Any, network: torch.nn.Module) -> None:
    data = group()
    with forked(full_learner) as name:
        found = gradients(full_learner, name, [data], replace(OPEN, loss="nll"))
        stats = full_learner.update(name, [data], replace(OPEN, loss="nll"))
    network.zero_grad()
    loss = plain_nll(network, data)
    loss.backward()
    assert stats.loss == pytest.approx(float(loss), rel=1e-4) and stats.tokens == data.n_tokens
    check_close(found, {n: p.grad for n, p in network.named_parameters() if p.grad is not None})


def plain_nll(network: torch.nn.Module, *groups: TrainGroup) -> torch.Tensor:
    """The weighted mean of the tokens' negative log-likelihood, as anybody would write it."""
    total, weight = torch.tensor(0.0), 0.0
    for g in groups:
        for r in g.row_G:
            logprob = (plain_logits(network, g.prefix_T, r) / TEMPERATURE).log_softmax(-1)
            total = total - (torch.tensor(r.weight_T) * logprob.gather(1, torch.tensor(r.token_T)[:, None])[:, 0]).sum()
            weight += sum(r.weight_T)
    return total / weight


MASKED = (
    TrainGroup(prefix_T=PROMPT_T, row_G=(row((5, 6, 7, 8, 9), (0.0, 1.0, 1.0, 0.0, 1.0)), row((5, 6, 4), (0.0, 0.0, 1.0)))),
    TrainGroup(prefix_T=OTHER_PROMPT_T, row_G=(row((3, 4, 5, 6), (0.0, 1.0, 0.0, 1.0)),)),
    TrainGroup(prefix_T=OTHER_PROMPT_T[:1], row_G=(row((8, 8, 3), (1.0, 0.0, 1.0)),)),
)
"""Supervised rows of three prompts with masked spans."""
WEIGHED = (
    TrainGroup(prefix_T=PROMPT_T, row_G=(row((5, 6, 7), (0.25, 2.0, 0.5)), row((5, 6, 4), (0.0, 0.125, 1.0)))),
    TrainGroup(prefix_T=OTHER_PROMPT_T, row_G=(row((3, 4, 5, 6), (3.0, 0.0, 0.5, 1.0)),)),
)
"""Rows of two prompts with weights of every size."""


@pytest.mark.parametrize("groups", [MASKED, WEIGHED], ids=["masked", "weighed"])
@pytest.mark.parametrize("tokens", [4096, 6], ids=["one pass", "many passes"])
def test_rows_of_several_prompts_count_by_their_weights(
    full_learner: Any, network: torch.nn.Module, groups: tuple[TrainGroup, ...], tokens: int
) -> None:
    """Supervised fine-tuning with masked spans: what has no weight is read and not learned."""
    with forked(full_learner) as name, micro_batches_of(full_learner, tokens):
        found = gradients(full_learner, name, groups, replace(OPEN, loss="nll"))
        stats = full_learner.update(name, groups, replace(OPEN, loss="nll"))
    network.zero_grad()
    loss = plain_nll(network, *groups)
    loss.backward()
    assert stats.loss == pytest.approx(float(loss), rel=1e-4) and stats.logprob_gap_mean is None
    assert stats.tokens == sum(w > 0 for g in groups for r in g.row_G for w in r.weight_T)
    check_close(found, {n: p.grad for n, p in network.named_parameters() if p.grad is not None})


def test_a_policy_loss_refuses_weights_that_verl_would_take_for_a_mask(lora_learner: Any) -> None:
    with forked(lora_learner) as name, pytest.raises(AssertionError, match="weights of 0 and 1"):
        lora_learner.update(name, WEIGHED, OPEN)


def views_group(views: list[tuple[int, ...]]) -> TrainGroup:
    """Views of a prompt, of which only the token that would follow counts."""
    return TrainGroup(prefix_T=PROMPT_T, row_G=tuple(row((*v, 0), (*(0.0,) * len(v), 1.0)) for v in views))


@pytest.mark.parametrize("tokens", [4096, 6])
def test_the_marginal_entropy_is_that_of_plain_autograd(full_learner: Any, network: torch.nn.Module, tokens: int) -> None:
    """MEMO over views: the entropy of the mean next-token distribution, whatever the micro-batches."""
    views = [(5, 6, 7), (9,), (3, 4, 5, 6), (8, 7)]
    data, objective = views_group(views), replace(OPEN, loss="marginal_entropy")
    with forked(full_learner) as name:
        with micro_batches_of(full_learner, tokens):
            found = gradients(full_learner, name, [data], objective)
            stats = full_learner.update(name, [data], objective)
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
    data, cold = views_group([(5, 6, 7), (9,), (3, 4)]), replace(OPEN, loss="marginal_entropy", temperature=0.001)
    with forked(full_learner) as name:
        stats = full_learner.update(name, [data], cold)
    assert math.isfinite(stats.loss) and stats.loss >= 0 and math.isfinite(stats.grad_norm)


def test_mini_batches_are_single_steps_with_the_first_log_probs(lora_learner: Any) -> None:
    """Two epochs of two mini-batches, against four updates by hand: the old log-probs are those of before the first step."""
    data = group()
    objective = replace(OPEN, mini_batches=2, ppo_epochs=2, clip_low=0.001, clip_high=0.001)
    with forked(lora_learner, "a", lr=0.02) as a, forked(lora_learner, "b", lr=0.02) as b:
        stats = lora_learner.update(a, [data], objective)
        (whole,) = lora_learner.rows([data], TEMPERATURE)
        halves = [[replace(data, row_G=data.row_G[i::2])] for i in range(2)]
        lora_learner.forks.load(b)
        old = [lora_learner.forward(lora_learner.rows(half, TEMPERATURE)[0])["log_probs"] for half in halves]
        fractions = []
        for i in (0, 1, 0, 1):
            rows = lora_learner.rows(halves[i], TEMPERATURE)
            rows[0]["old_log_probs"] = old[i]
            from sttrl.engine.verl.rows import total_of

            result = lora_learner.optimise(rows, lora_learner._loss(rows, total_of(halves[i]), OPEN_CLIPPED), OPEN_CLIPPED, fresh=False)
            fractions.append(result.clip_fraction)
        scores = [scored(lora_learner, name, data, TEMPERATURE) for name in (a, b)]
    assert stats.optimizer_steps == 4 and stats.tokens == 2 * data.n_tokens and len(whole) == 8
    assert scores[0] == scores[1]
    assert stats.clip_fraction == pytest.approx(np.mean(fractions)) and stats.clip_fraction > 0.1


OPEN_CLIPPED = replace(OPEN, clip_low=0.001, clip_high=0.001)


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_a_later_step_that_is_refused_takes_the_earlier_ones_back(request: pytest.FixtureRequest, kind: str) -> None:
    learner = request.getfixturevalue(f"{kind}_learner")
    data, honest, calls = [group()], learner.engine.forward_backward_batch, []

    def spoiled(rows: Any, *arguments: Any, **options: Any) -> Any:
        outputs = honest(rows, *arguments, **options)
        if not options.get("forward_only"):
            calls.append(1)
            if len(calls) == 3:
                outputs["loss"][0] = math.nan
        return outputs

    with forked(learner) as name:
        learner.update(name, data, OPEN)
        before = scored(learner, name, data[0])
        with pytest.MonkeyPatch.context() as patch, pytest.raises(DivergedError):
            patch.setattr(learner.engine, "forward_backward_batch", spoiled)
            learner.update(name, data, replace(OPEN, mini_batches=2, ppo_epochs=2))
        assert len(calls) == 3 and learner.forks.states[name].updates == 1
        assert scored(learner, name, data[0]) == before
        learner.update(name, data, OPEN)
        assert learner.forks.states[name].updates == 2


def vector_spec(lr: float = 0.1) -> DeltaSpec:
    return DeltaSpec(kind="vector", lr={"main": lr}, weight_decay=1e-8, adam_eps=1e-5)


def prompts(*prompt_P: tuple[int, ...]) -> list[TrainGroup]:
    """Prompts as SLOT learns them: every token behind the first."""
    return [TrainGroup(prefix_T=p[:1], row_G=(row(p[1:]),)) for p in prompt_P]


NLL = Objective(loss="nll")


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
            losses.append(learner.update("one", prompts(PROMPT_T), NLL).loss)
            learner.update("other", prompts(OTHER_PROMPT_T), NLL)
        expected, expected_losses = slot_by_hand(network, PROMPT_T, 5)
        learner.export("one", str(tmp_path / "one"), "float32")
        saved = load_file(tmp_path / "one" / "vector.safetensors")
        assert losses == pytest.approx(expected_losses, rel=1e-4) and losses[-1] < losses[0]
        torch.testing.assert_close(saved["delta"], expected, atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(saved["logit_bias"], network.lm_head.weight.detach() @ expected, atol=1e-3, rtol=1e-3)  # type: ignore[union-attr]
        data = group()
        scores = scored(learner, "one", data, TEMPERATURE)
        for r, found in zip(data.row_G, scores, strict=True):
            logits = plain_logits(network, PROMPT_T, r).detach() + saved["logit_bias"]
            plain = (logits / TEMPERATURE).log_softmax(-1).gather(1, torch.tensor(r.token_T)[:, None])[:, 0]
            assert found == pytest.approx(plain.tolist(), abs=1e-3)
        base = scored(learner, None, data, TEMPERATURE)
        assert base != scores
        for name in ("one", "other"):
            learner.close_fork(name)


def test_a_vector_counts_rows_by_their_weights(lora_learner: Any, network: torch.nn.Module) -> None:
    """Of several prompts, at another temperature: the first step goes by the mean over all weights."""
    lora_learner.open_fork("one", vector_spec())
    stats = lora_learner.update("one", WEIGHED, replace(NLL, temperature=TEMPERATURE))
    lora_learner.close_fork("one")
    assert stats.loss == pytest.approx(float(plain_nll(network, *WEIGHED)), rel=1e-4) and stats.tokens == 8


def test_a_vector_goes_on_from_its_checkpoint(lora_learner: Any, tmp_path: Path) -> None:
    for name in ("a", "b"):
        lora_learner.open_fork(name, vector_spec())
    for _ in range(3):
        lora_learner.update("a", prompts(PROMPT_T), NLL)
    lora_learner.save_fork("a", str(tmp_path))
    lora_learner.restore_fork("b", str(tmp_path))
    stats = [replace(lora_learner.update(name, prompts(OTHER_PROMPT_T), NLL), seconds=0.0) for name in ("a", "b")]
    assert stats[0] == stats[1]
    assert torch.equal(lora_learner.vectors.logit_bias("a"), lora_learner.vectors.logit_bias("b"))
    lora_learner.save_fork("b", str(tmp_path / "fresh"))
    for name in ("a", "b"):
        lora_learner.close_fork(name)


def test_learning_rate_zero_leaves_the_base(lora_learner: Any) -> None:
    data = group()
    lora_learner.open_fork("still", vector_spec(lr=0.0))
    for _ in range(5):
        lora_learner.update("still", prompts(PROMPT_T), NLL)
    assert scored(lora_learner, "still", data) == scored(lora_learner, None, data)
    lora_learner.close_fork("still")
