"""The learner against plain transformers and PEFT, and against itself: the layout never shows, a bad step is never taken."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from learner_tools import OPEN, batch, check_close, forked, gradients, micro_batches_of, plain_logprobs, plain_loss, same, score, state
from peft import PeftModel
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM

from sttrl.types import Row, TrainGroup


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


def test_a_lone_rank_shards_what_it_trains_and_casts_and_leaves_the_frozen_base_where_it_is(
    lora_learner: Any, full_learner: Any, local_learner: Callable[..., Any]
) -> None:
    for name, parameter in local_learner(dtype="bfloat16").engine.module.named_parameters():
        assert isinstance(parameter, DTensor) == ("lora_" in name) == parameter.requires_grad, name
    assert not any(isinstance(p, DTensor) for p in lora_learner.engine.module.parameters()), "nothing is cast in float32"
    assert all(isinstance(p, DTensor) for p in full_learner.engine.module.parameters())


@pytest.mark.parametrize("wrong", [None, "responses see what follows", "responses do not see their prompt", "responses see padding"])
def test_packing_is_refused_where_a_response_scores_differently(
    lora_learner: Any, monkeypatch: pytest.MonkeyPatch, wrong: str | None
) -> None:
    from sttrl.engine.verl import packing

    right = packing.layout_of

    def layout_of(prompt: int, *others: Any) -> packing.Layout:
        layout = right(prompt, *others)
        mask, seen = layout.mask_TK.clone(), layout.seen
        if wrong == "responses see what follows":
            mask[:, seen:] = True
        elif wrong == "responses do not see their prompt":
            mask[:, :seen] = False
        elif wrong == "responses see padding":
            seen = layout.prompt_length
            mask = torch.nn.functional.pad(mask, (seen - prompt, 0), value=True)
        return replace(layout, mask_TK=mask, seen=seen)

    monkeypatch.setattr(packing, "layout_of", layout_of)
    monkeypatch.setattr(lora_learner.engine, "packs", True)
    assert lora_learner._packing_agrees() is (wrong is None)


def test_groups_of_many_lengths_are_computed_in_few_shapes(lora_learner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from sttrl.engine.verl.training_engine import SHAPES

    shapes, prepare = set[int](), lora_learner.engine.prepare_model_inputs

    def watched(micro_batch: Any) -> Any:
        inputs, rest = prepare(micro_batch)
        shapes.update((inputs["input_ids"].shape[1], len(inputs["logits_to_keep"])))
        return inputs, rest

    monkeypatch.setattr(lora_learner.engine, "prepare_model_inputs", watched)
    for n in range(1, 15):
        score(lora_learner, None, batch(n=n, longest=n))
    assert shapes and not any(size % SHAPES for size in shapes) and len(shapes) <= 8


def test_log_probs_are_those_of_transformers(learner: Any, network: torch.nn.Module) -> None:
    data = batch()
    for found, plain in zip(score(learner, None, data), plain_logprobs(network, data), strict=True):
        torch.testing.assert_close(torch.tensor(found), plain.detach(), atol=1e-4, rtol=0)


def test_an_adapted_fork_is_what_peft_makes_of_its_export(lora_learner: Any, tiny_model: Path, tmp_path: Path) -> None:
    data = batch()
    with forked(lora_learner) as name:
        for _ in range(3):
            lora_learner.update(name, [data.group], OPEN)
        lora_learner.export(name, str(tmp_path), "float32")
        scored = score(lora_learner, name, data)
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32), tmp_path)
    for found, plain, base in zip(scored, plain_logprobs(adapted, data), score(lora_learner, None, data), strict=True):
        torch.testing.assert_close(torch.tensor(found), plain.detach(), atol=1e-4, rtol=0)
        assert found != base


def test_packed_gradients_are_those_of_plain_autograd(lora_learner: Any, tiny_model: Path, tmp_path: Path, monkeypatch: Any) -> None:
    data = batch()
    with forked(lora_learner) as name:
        lora_learner.update(name, [batch(seed=5).group], OPEN)
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
        learner.update(name, [batch(seed=5).group], OPEN)
        packed = gradients(learner, name, data, monkeypatch)
        monkeypatch.setattr(learner.engine, "packs", False)
        check_close(packed, gradients(learner, name, data, monkeypatch), 1e-3)


def test_accumulated_micro_batches_are_one_batch(learner: Any, monkeypatch: Any) -> None:
    data = batch(n=16)
    with forked(learner, lr=0.0) as name:
        with micro_batches_of(learner, 4096):
            one, one_stats = gradients(learner, name, data, monkeypatch), learner.update(name, [data.group], OPEN)
        with micro_batches_of(learner, 28):
            many, many_stats = gradients(learner, name, data, monkeypatch), learner.update(name, [data.group], OPEN)
        assert one_stats.micro_batches == 1 and many_stats.micro_batches >= 3
        check_close(many, one, 1e-4)
        for field in ("loss", "grad_norm", "logprob_gap_mean", "logprob_gap_max", "logprob_correlation"):
            assert getattr(many_stats, field) == pytest.approx(getattr(one_stats, field), rel=1e-4, abs=1e-6), field


def test_a_pass_holds_a_row_whatever_its_budget(learner: Any) -> None:
    settings = learner.settings
    learner.settings = replace(settings, micro_batch_tokens=None)
    try:
        budgets = [learner._row_budget(group_of(prompt, tokens)) for prompt, tokens in ((1, 3), (500, 3), (1, 1100))]
        assert budgets == [1024, 1024, 1101]
        learner.settings = replace(settings, micro_batch_tokens=100)
        assert [learner._row_budget(group_of(500, tokens)) for tokens in (3, 120)] == [100, 121], "what the user says holds"
    finally:
        learner.settings = settings


def test_responses_that_begin_alike_share_a_pass_where_what_they_do_not_share_fits(learner: Any, monkeypatch: Any) -> None:
    data = batch(n=24)
    alike = replace(data, rollout_G=tuple(data.rollout_G[i % 6] for i in range(24)))
    with forked(learner, lr=0.0) as name, micro_batches_of(learner, 30):
        assert learner.update(name, [alike.group], OPEN).micro_batches == 1
        found = gradients(learner, name, alike, monkeypatch)
        assert learner.update(name, [data.group], OPEN).micro_batches > 1
        monkeypatch.setattr(learner.engine, "packs", False)
        check_close(found, gradients(learner, name, alike, monkeypatch), 1e-3)


def group_of(prompt: int, length: int) -> TrainGroup:
    return TrainGroup(prefix_T=(1,) * prompt, row_G=(Row(token_T=(1,) * length, weight_T=(1.0,) * length),))


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
        stats = learner.update(name, [data.group], OPEN)
    x, y = (np.concatenate([np.asarray(row) for row in rows]) for rows in (exact, heard))
    assert stats.logprob_gap_mean == pytest.approx(np.abs(x - y).mean(), rel=1e-3)
    assert stats.logprob_gap_max == pytest.approx(np.abs(x - y).max(), rel=1e-3)
    assert stats.logprob_correlation == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-5)


def test_learning_rate_zero_goes_nowhere_in_fifty_updates(learner: Any) -> None:
    data = batch(n=6)
    before = score(learner, None, data)
    with forked(learner, lr=0.0) as name:
        stats = [learner.update(name, [data.group], OPEN) for _ in range(50)]
        assert score(learner, name, data) == before
    assert all(s.kl_to_base == 0.0 and s.lr == 0.0 and s.grad_norm > 0 for s in stats)


def test_an_update_makes_good_responses_likelier_and_bad_ones_less(learner: Any) -> None:
    data = batch(n=8)
    data = replace(data, advantage_G=(1.0, -1.0) * 4)
    before = [sum(row) for row in score(learner, None, data)]
    with forked(learner, lr=0.003) as name:
        for _ in range(3):
            stats = learner.update(name, [data.group], OPEN)
        after = [sum(row) for row in score(learner, name, data)]
    change_G = np.array(after) - np.array(before)
    assert change_G[::2].sum() > 0.05 and change_G[1::2].sum() < -0.05
    assert (np.sign(change_G) == np.sign(data.advantage_G)).mean() >= 0.75
    assert stats.kl_to_base is not None and stats.kl_to_base > 0


def test_kl_to_base_is_the_k3_of_the_scores(learner: Any) -> None:
    data = batch()
    with forked(learner, lr=0.0003) as name:
        learner.update(name, [batch(seed=5).group], OPEN)
        here, base = (np.concatenate(score(learner, at, data)) for at in (name, None))
        stats = learner.update(name, [data.group], OPEN)
    assert stats.kl_to_base == pytest.approx(float((np.exp(base - here) - (base - here) - 1).mean()), rel=1e-3)


def test_the_schedule_is_the_forks_own(lora_learner: Any) -> None:
    data = batch(n=4)
    with forked(lora_learner, "a", lr=0.1, total_steps=4, schedule="cosine") as a, forked(lora_learner, "b", lr=0.5) as b:
        rates = [lora_learner.update(name, [data.group], OPEN).lr for name in (a, b, a, b, a, a)]
    assert rates == pytest.approx(
        [0.1, 0.5, 0.1 * 0.5 * (1 + math.cos(math.pi / 4)), 0.5, 0.05, 0.1 * 0.5 * (1 + math.cos(0.75 * math.pi))]
    )


def test_a_saved_fork_goes_on_to_the_bit(learner: Any, tmp_path: Path) -> None:
    data = batch()
    with forked(learner, "a", schedule="cosine", total_steps=9) as a, forked(learner, "b", schedule="cosine", total_steps=9) as b:
        for _ in range(3):
            learner.update(a, [data.group], OPEN)
        learner.save_fork(a, str(tmp_path))
        learner.update(b, [batch(seed=8).group], OPEN)
        learner.restore_fork(b, str(tmp_path))
        assert score(learner, b, data) == score(learner, a, data) != score(learner, None, data)
        stats = [replace(learner.update(name, [data.group], OPEN), seconds=0.0) for name in (a, b)]
        assert stats[0] == stats[1]
        assert same(state(learner, a), state(learner, b))
        assert score(learner, b, data) == score(learner, a, data)


def test_the_base_is_the_same_to_the_bit_after_forks(learner: Any) -> None:
    data = batch()
    before, scores = learner.fingerprint(), score(learner, None, data)
    with forked(learner, "a", lr=0.1) as a, forked(learner, "b", seed=2) as b:
        for name in (a, b, a):
            learner.update(name, [data.group], OPEN)
        assert learner.fingerprint() == before and score(learner, None, data) == scores
        assert score(learner, a, data) != score(learner, b, data) != scores
        learner.update(a, [data.group], OPEN)
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
