"""SPINE on the learner: which tokens carry the gradient, by hand; the parts of a step add up; the band holds the entropy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from learner_tools import micro_batches_of
from test_objectives import ADVANTAGE_G, BASE_G, LOGPROB_G, OLD_G, jagged
from test_updates import OPEN, TEMPERATURE, check_close, forked, gradients, group

from sttrl.objectives.forking import forks_of
from sttrl.objectives.losses import BAND_HIGH, BAND_LOW, CLIPPED, ENTROPY, FORKS, KL, policy_loss
from sttrl.types import Forking, Measure, Objective, Row, TrainGroup

FORK_G = [[1.0, 0.0, 1.0], [1.0], [0.0, 1.0]]
ENTROPY_G = [[2.0, 9.0, 0.5], [1.0], [9.0, 0.25]]
BAND_G = [(1.0, 1.5), (0.5, 1.5), (0.5, 1.0)]
"""The lower and upper end of each response's band."""


def loss_of(objective: Objective, rows: slice = slice(None), ranks: int = 1) -> tuple[float, list[list[float]], list[list[float]], Any]:
    """The loss of some of the three responses, its gradients by log-probs and entropies, and the metrics."""
    from tensordict import TensorDict
    from verl.utils import tensordict_utils as tu

    def each(rows_GT: Sequence[Sequence[float]]) -> list[torch.Tensor]:
        return [torch.tensor(row) for row in rows_GT[rows]]

    logprob, entropy = ([row.requires_grad_() for row in each(columns)] for columns in (LOGPROB_G, ENTROPY_G))
    lengths = [len(row) for row in logprob]
    columns = {
        "prompts": [torch.zeros(1, dtype=torch.long)] * len(lengths),
        "responses": [torch.zeros(n, dtype=torch.long) for n in lengths],
        "response_mask": [torch.ones(n) for n in lengths],
        "rollout_log_probs": each(LOGPROB_G),
        "old_log_probs": each(OLD_G),
        "ref_log_prob": each(BASE_G),
        "advantages": [torch.full((n,), a) for n, a in zip(lengths, ADVANTAGE_G[rows], strict=True)],
        FORKS: each(FORK_G),
        BAND_LOW: [torch.full((n,), low) for n, (low, _) in zip(lengths, BAND_G[rows], strict=True)],
        BAND_HIGH: [torch.full((n,), high) for n, (_, high) in zip(lengths, BAND_G[rows], strict=True)],
    }
    data = TensorDict({name: jagged(values) for name, values in columns.items()}, batch_size=[len(lengths)])
    tu.assign_non_tensor(data, dp_size=ranks)
    output = {"log_probs": jagged([torch.cat([row, row.new_zeros(1)]) for row in logprob])}
    if objective.forking is not None and objective.forking.band is not None:
        output[ENTROPY] = jagged([torch.cat([row, row.new_zeros(1)]) for row in entropy])
    loss, metrics = policy_loss(objective, 3, 6, output, data, forks=4)
    loss.backward()
    found = [[[0.0] * len(row) if row.grad is None else row.grad.tolist() for row in of] for of in (logprob, entropy)]
    return float(loss.detach()), found[0], found[1], metrics


def test_the_loss_by_hand() -> None:
    """Four of six tokens fork. Policy and band are divided by 6, the KL term by 4; a masked token has no gradient.

    Outside their bands: 2.0 by 0.5 above, 0.5 by 0.5 below, 0.25 by 0.25 below; the 9.0 are masked.
    """
    objective = Objective(kl_coef=0.3, clip_low=0.9, clip_high=9.0, forking=Forking(band="mad", low_coef=2.0, high_coef=3.0))
    loss, gradient_G, by_entropy_G, _ = loss_of(objective)
    policy = kl = 0.0
    expected = []
    for new_T, old_T, base_T, fork_T, advantage in zip(LOGPROB_G, OLD_G, BASE_G, FORK_G, ADVANTAGE_G, strict=True):
        for new, old, base, fork in zip(new_T, old_T, base_T, fork_T, strict=True):
            ratio = float(torch.tensor(new - old).exp())
            policy -= fork * advantage * ratio
            kl += fork * (float(torch.tensor(base - new).exp()) - (base - new) - 1)
            expected.append(fork * (-advantage * ratio / 6 + 0.3 * (1 - float(torch.tensor(base - new).exp())) / 4))
    band = 3.0 * 0.5 + 2.0 * 0.5 + 2.0 * 0.25
    assert loss == pytest.approx(policy / 6 + 0.3 * kl / 4 + band / 6, rel=1e-5)
    assert [g for row in gradient_G for g in row] == pytest.approx(expected, rel=1e-4)
    assert by_entropy_G == [[pytest.approx(3 / 6), 0.0, pytest.approx(-2 / 6)], [0.0], [0.0, pytest.approx(-2 / 6)]]


@pytest.mark.parametrize("band", [None, "mad"])
@pytest.mark.parametrize("ranks", [1, 2])
def test_the_parts_of_a_step_add_up_to_the_whole(band: Any, ranks: int) -> None:
    objective = Objective(kl_coef=0.3, clip_low=0.01, clip_high=0.01, forking=Forking(band=band, low_coef=2.0, high_coef=3.0))
    whole, gradient_G, _, metrics = loss_of(objective)
    parts = [loss_of(objective, part, ranks) for part in (slice(0, 1), slice(1, 3))]
    assert sum(part[0] for part in parts) / ranks == pytest.approx(whole, rel=1e-5)
    flat = [g for part in parts for row in part[1] for g in row]
    assert flat == pytest.approx([g * ranks for row in gradient_G for g in row], rel=1e-5)
    for name in (KL, CLIPPED):
        assert sum(part[3][name].aggregate() for part in parts) / ranks == pytest.approx(metrics[name].aggregate(), rel=1e-5), name


def entropies(learner: Any, name: str, data: TrainGroup) -> list[list[float]]:
    """Of every token, by the learner itself."""
    (stats_G,) = [learner.score(name, [data], Measure(want=frozenset({"entropy"}), temperature=TEMPERATURE))]
    return [list(stats.entropy_T) for stats in stats_G[0]]


def masked(data: TrainGroup, fork_GT: Sequence[Sequence[bool]]) -> TrainGroup:
    """The group with weight 0 for all other tokens."""
    row_G = tuple(replace(row, weight_T=tuple(map(float, fork_T))) for row, fork_T in zip(data.row_G, fork_GT, strict=True))
    return replace(data, row_G=row_G)


@pytest.mark.parametrize("forking", [Forking(), Forking(rule="top", share=0.4)])
def test_the_gradient_is_that_of_the_forking_tokens(lora_learner: Any, forking: Forking) -> None:
    """The same rows with weight 0 for other tokens are averaged over the forking ones, so they differ by a factor."""
    data = group()
    with forked(lora_learner) as name:
        fork_GT = [forks_of(entropy_T, forking).fork_T for entropy_T in entropies(lora_learner, name, data)]
        share = sum(map(sum, fork_GT)) / sum(map(len, fork_GT))
        by_mask = gradients(lora_learner, name, [data], replace(OPEN, forking=forking))
        by_weight = gradients(lora_learner, name, [masked(data, fork_GT)], OPEN)
        check_close(by_mask, {key: value * share for key, value in by_weight.items()})
        assert 0 < share < 1 and lora_learner.update(name, [data], replace(OPEN, forking=forking)).forking_share == pytest.approx(share)
    with forked(lora_learner) as name:
        assert lora_learner.update(name, [data], OPEN).forking_share is None


@pytest.mark.parametrize("passes", [1, 2])
def test_a_split_changes_nothing(lora_learner: Any, passes: int) -> None:
    """With a band and a KL term, in one and in several optimiser steps, and with rows that carry no loss in part."""
    forking = Forking(rule="top", share=0.4, band="quantiles", low_coef=0.5, high_coef=0.7)
    objective = replace(OPEN, kl_coef=0.3, forking=forking, ppo_epochs=passes)
    found = []
    for tokens in (4096, 8):
        with forked(lora_learner, lr=0.02) as name:
            lora_learner.update(name, [group()], objective)
            with micro_batches_of(lora_learner, tokens):
                found.append((gradients(lora_learner, name, [group()], objective), lora_learner.update(name, [group()], objective)))
    (whole, stats), (split, split_stats) = found
    check_close(split, whole)
    assert split_stats.micro_batches > stats.micro_batches and split_stats.forking_share == stats.forking_share
    for field in ("loss", "grad_norm", "kl_to_base"):
        assert getattr(split_stats, field) == pytest.approx(getattr(stats, field), rel=1e-3), field


def test_padding_is_never_forking(lora_learner: Any) -> None:
    """A row of weights 0 is not compared: it has no forking token, and the others' share is the same."""
    data = group(n=4)
    silent = Row(token_T=(3, 4, 5), weight_T=(0.0,) * 3, sampler_logprob_T=(-1.0,) * 3, advantage_T=(5.0,) * 3)
    with forked(lora_learner) as name:
        objective = replace(OPEN, forking=Forking(band="mad"))
        alone = gradients(lora_learner, name, [data], objective)
        check_close(gradients(lora_learner, name, [replace(data, row_G=(*data.row_G, silent))], objective), alone)


def test_the_band_holds_the_entropy_down(lora_learner: Any) -> None:
    """Without advantages only the band moves the policy: what was above the median of the forking tokens comes down."""
    data = group(n=6)
    data = replace(data, row_G=tuple(replace(row, advantage_T=(0.0,) * len(row.token_T)) for row in data.row_G))
    above = {}
    for band in (None, "mad"):
        objective = replace(OPEN, forking=Forking(rule="top", share=1.0, band=band, low_coef=1.0, high_coef=1.0))  # type: ignore[arg-type]
        with forked(lora_learner, lr=0.02) as name:
            before = entropies(lora_learner, name, data)
            highs = [forks_of(entropy_T, Forking(rule="top", share=1.0, band="mad")).high for entropy_T in before]
            for _ in range(5):
                lora_learner.update(name, [data], objective)
            after = entropies(lora_learner, name, data)
            outside = [[max(0.0, h - high) for h in row] for row, high in zip(after, highs, strict=True)]
            above[band] = sum(map(sum, outside))
            if band is None:
                assert after == [pytest.approx(row) for row in before], "nothing moves without advantages"
    assert above["mad"] < 0.9 * above[None]
