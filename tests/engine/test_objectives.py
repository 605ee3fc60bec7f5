"""The policy loss, the KL term, and how sampler and learner are compared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu

from sttrl.config import ReinforcementSettings
from sttrl.objectives.losses import CLIPPED, GAP_SUMS, KL, SAMPLER_WEIGHT, gap_sums, log_prob_gap, policy_loss
from sttrl.objectives.registry import policy_loss_names
from sttrl.types import Objective


def jagged(rows: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.nested.as_nested_tensor(list(rows), layout=torch.jagged)


def loss_of(
    objective: Objective,
    logprob_G: Sequence[Sequence[float]],
    advantage_G: Sequence[float],
    old_G: Sequence[Sequence[float]] | None = None,
    base_G: Sequence[Sequence[float]] | None = None,
    step: tuple[int, int] | None = None,
    ranks: int = 1,
    sampler_G: Sequence[Sequence[float]] | None = None,
    weight_G: Sequence[Sequence[float]] | None = None,
) -> tuple[float, list[list[float]], dict[str, Any]]:
    """The loss, its gradient by each token's log-prob, and the metrics. The prompt's last token leads each row, as in the learner.

    ``step``: responses and tokens of the whole step, where these are a part of it. ``sampler_G``: the sampler's log-probs, if they differ.
    ``weight_G``: of the tokens in the loss; 1 if they are not given.
    """
    logprob = [torch.tensor(row, requires_grad=True) for row in logprob_G]
    lengths = [len(row) for row in logprob_G]
    columns = {
        "prompts": [torch.zeros(1, dtype=torch.long)] * len(lengths),
        "responses": [torch.zeros(n, dtype=torch.long) for n in lengths],
        "response_mask": [torch.tensor(row) for row in weight_G] if weight_G else [torch.ones(n) for n in lengths],
        "rollout_log_probs": [torch.tensor(row) for row in sampler_G or logprob_G],
        "advantages": [torch.full((n,), a) for n, a in zip(lengths, advantage_G, strict=True)],
    }
    columns |= {"old_log_probs": [torch.tensor(row) for row in old_G]} if old_G else {}
    columns |= {"ref_log_prob": [torch.tensor(row) for row in base_G]} if base_G else {}
    data = TensorDict({name: jagged(rows) for name, rows in columns.items()}, batch_size=[len(lengths)])
    tu.assign_non_tensor(data, dp_size=ranks)
    output = {"log_probs": jagged([torch.cat([row, row.new_zeros(1)]) for row in logprob])}
    loss, metrics = policy_loss(objective, *(step or (len(lengths), sum(lengths))), output, data)
    loss.backward()
    return float(loss.detach()), [row.grad.tolist() for row in logprob if row.grad is not None], metrics


LOGPROB_G = [[-1.0, -2.0, -0.5], [-3.0], [-0.1, -0.7]]
ADVANTAGE_G = [1.0, -0.5, 2.0]


def test_on_policy_the_ratio_is_one_and_nothing_is_clipped() -> None:
    loss, gradient_G, metrics = loss_of(Objective(kl_coef=0.0), LOGPROB_G, ADVANTAGE_G)
    assert loss == pytest.approx(-(3 * 1.0 + 1 * -0.5 + 2 * 2.0) / 6)
    for gradient_T, advantage in zip(gradient_G, ADVANTAGE_G, strict=True):
        assert gradient_T == pytest.approx([-advantage / 6] * len(gradient_T))
    for name in ("actor/pg_clipfrac", "actor/pg_clipfrac_lower", "actor/ppo_kl"):
        assert metrics[name].aggregate() == 0.0


def test_off_policy_the_ratio_is_clipped() -> None:
    old = [[x - 1.0 for x in row] for row in LOGPROB_G]  # ratio e, above 1.2
    loss, gradient_G, metrics = loss_of(Objective(kl_coef=0.0), LOGPROB_G, ADVANTAGE_G, old_G=old)
    assert loss == pytest.approx(-(3 * 1.2 * 1.0 + 1 * math.e * -0.5 + 2 * 1.2 * 2.0) / 6, rel=1e-5)
    assert gradient_G[0] == [0.0] * 3 and gradient_G[2] == [0.0] * 2 and gradient_G[1] == pytest.approx([0.5 * math.e / 6])
    assert metrics["actor/pg_clipfrac"].aggregate() == pytest.approx(5 / 6)


def test_the_kl_term_is_k3_by_hand() -> None:
    base = [[-1.5, -1.0, -0.5], [-2.0], [-0.2, -0.1]]
    differences = [b - p for b_T, p_T in zip(base, LOGPROB_G, strict=True) for b, p in zip(b_T, p_T, strict=True)]
    k3 = [math.exp(d) - d - 1 for d in differences]
    loss, gradient_G, metrics = loss_of(Objective(kl_coef=0.3), LOGPROB_G, [0.0] * 3, base_G=base)
    assert metrics["kl_loss"].aggregate() == pytest.approx(sum(k3) / 6, rel=1e-5)
    assert loss == pytest.approx(0.3 * sum(k3) / 6, rel=1e-5)
    assert [g for row in gradient_G for g in row] == pytest.approx([0.3 * (1 - math.exp(d)) / 6 for d in differences], rel=1e-4)


def test_at_the_base_the_kl_term_is_nothing() -> None:
    with_term = loss_of(Objective(kl_coef=5.0), LOGPROB_G, ADVANTAGE_G)
    without = loss_of(Objective(kl_coef=0.0), LOGPROB_G, ADVANTAGE_G)
    assert with_term[:2] == without[:2] and with_term[2]["kl_loss"].aggregate() == 0.0


OLD_G = [[-1.3, -1.9, -0.6], [-2.2], [-0.4, -0.3]]
BASE_G = [[-1.5, -1.0, -0.5], [-2.0], [-0.2, -0.1]]


@pytest.mark.parametrize("policy_loss_name", [name for name in policy_loss_names() if name not in ("clip_cov", "kl_cov")])
@pytest.mark.parametrize("aggregation", get_args(get_type_hints(ReinforcementSettings)["loss_aggregation"]))
@pytest.mark.parametrize("ranks", [1, 2])
def test_the_parts_of_a_step_add_up_to_the_whole(policy_loss_name: str, aggregation: str, ranks: int) -> None:
    """Off-policy, with a KL term: passes are summed, ranks averaged. clip_cov and kl_cov choose among the tokens of a pass."""
    objective = Objective(policy_loss=policy_loss_name, loss_aggregation=aggregation, kl_coef=0.3, horizon=7)
    whole, gradient_G, metrics = loss_of(objective, LOGPROB_G, ADVANTAGE_G, OLD_G, BASE_G)
    parts = [
        loss_of(objective, LOGPROB_G[part], ADVANTAGE_G[part], OLD_G[part], BASE_G[part], step=(3, 6), ranks=ranks)
        for part in (slice(0, 1), slice(1, 3))
    ]
    assert sum(loss for loss, _, _ in parts) / ranks == pytest.approx(whole, rel=1e-5)
    expected = [g * ranks for row in gradient_G for g in row]
    assert [g for _, rows, _ in parts for row in rows for g in row] == pytest.approx(expected, rel=1e-5)
    for name in {KL, CLIPPED} & metrics.keys():
        assert sum(found[name].aggregate() for _, _, found in parts) / ranks == pytest.approx(metrics[name].aggregate(), rel=1e-5)


def test_dr_grpos_normaliser_is_the_same_for_every_response() -> None:
    """A token weighs 1 / (responses * horizon), in short and long responses alike (arXiv 2503.20783)."""
    objective = Objective(kl_coef=0.0, loss_aggregation="seq-mean-token-sum-norm", horizon=50)
    _, gradient_G, _ = loss_of(objective, LOGPROB_G, ADVANTAGE_G)
    for gradient_T, advantage in zip(gradient_G, ADVANTAGE_G, strict=True):
        assert gradient_T == pytest.approx([-advantage / (3 * 50)] * len(gradient_T))


def test_without_reference_log_probs_the_old_ones_are_the_reference() -> None:
    """A fork's first update begins at the base; its later steps do not."""
    given = loss_of(Objective(kl_coef=0.3), LOGPROB_G, ADVANTAGE_G, old_G=OLD_G, base_G=OLD_G)
    found = loss_of(Objective(kl_coef=0.3), LOGPROB_G, ADVANTAGE_G, old_G=OLD_G)
    assert found[:2] == given[:2] and found[2][KL].aggregate() > 0


PAIRS = st.lists(st.tuples(st.floats(-20, 0, width=32), st.floats(-20, 0, width=32)), min_size=3, max_size=60)


@given(PAIRS, st.lists(st.integers(1, 59), max_size=5))
def test_agreement_is_numpys_whatever_the_split(pairs: list[tuple[float, float]], cuts: list[int]) -> None:
    learner, sampler = (torch.tensor(side, dtype=torch.float32) for side in zip(*pairs, strict=True))
    assume(float(learner.double().std()) > 1e-2 and float(sampler.double().std()) > 1e-2)
    ends = sorted({0, len(pairs), *(c for c in cuts if c < len(pairs))})
    parts = [gap_sums(learner[a:b], sampler[a:b]) for a, b in zip(ends, ends[1:], strict=False)]
    sums = {k: sum(p[k] for p in parts) for k in GAP_SUMS if k not in ("gap_max", "finite")}
    sums |= {"gap_max": max(p["gap_max"] for p in parts), "finite": min(p["finite"] for p in parts)}
    mean, largest, correlation = log_prob_gap(sums)
    x, y = learner.double().numpy(), sampler.double().numpy()
    assert mean == pytest.approx(np.abs(x - y).mean()) and largest == pytest.approx(np.abs(x - y).max())
    assert correlation == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-6)


def test_agreement_of_equals() -> None:
    x = torch.tensor([-1.0, -2.0, -4.0])
    assert log_prob_gap(gap_sums(x, x)) == (0.0, 0.0, pytest.approx(1.0))
    assert log_prob_gap(gap_sums(x, torch.full((3,), -1.0)))[2] is None, "a constant correlates with nothing"


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_log_prob_that_is_not_finite_is_seen(bad: float) -> None:
    x = torch.tensor([-1.0, bad])
    assert gap_sums(x, torch.zeros(2))["finite"] == 0.0
    assert gap_sums(torch.zeros(2), torch.zeros(2))["finite"] == 1.0


SAMPLER_G = [[-1.3, -1.0, -0.6], [-3.5], [-2.1, -0.7]]
"""Of `LOGPROB_G`'s tokens, by a sampler that differs: weights exp(.3), exp(-1), exp(.1); exp(.5); exp(2) and 1."""


def weights(cap: float, learner_G: Sequence[Sequence[float]] = LOGPROB_G) -> list[list[float]]:
    """min(exp(learner - sampler), cap), without verl."""
    rows = zip(learner_G, SAMPLER_G, strict=True)
    return [[min(math.exp(p - q), cap) for p, q in zip(learner_T, sampler_T, strict=True)] for learner_T, sampler_T in rows]


@pytest.mark.parametrize("cap", [1.0, 1.2, 2.0, 100.0])
def test_truncated_importance_sampling_by_hand(cap: float) -> None:
    """In one step the old learner is the learner: the ratio is 1, and the gradient of a token is -A w / 6."""
    loss, gradient_G, metrics = loss_of(Objective(kl_coef=0.0, tis_cap=cap), LOGPROB_G, ADVANTAGE_G, sampler_G=SAMPLER_G)
    weight_G = weights(cap)
    flat = [w for row in weight_G for w in row]
    assert flat[4] == pytest.approx(min(math.exp(2), cap)) and flat[1] == pytest.approx(math.exp(-1))
    assert loss == pytest.approx(-sum(a * sum(row) for a, row in zip(ADVANTAGE_G, weight_G, strict=True)) / 6, rel=1e-5)
    for gradient_T, weight_T, advantage in zip(gradient_G, weight_G, ADVANTAGE_G, strict=True):
        assert gradient_T == pytest.approx([-advantage * w / 6 for w in weight_T], rel=1e-5)
    assert metrics[SAMPLER_WEIGHT].aggregate() == pytest.approx(sum(flat) / 6, rel=1e-5)


def test_in_later_steps_the_weight_is_the_old_learner_s_and_the_kl_term_has_none() -> None:
    """The ratio is new over old, the weight old over sampler; only the policy's loss is weighed."""
    objective = Objective(kl_coef=0.3, tis_cap=2.0, clip_low=0.5, clip_high=9.0)
    loss, gradient_G, _ = loss_of(objective, LOGPROB_G, ADVANTAGE_G, old_G=OLD_G, base_G=BASE_G, sampler_G=SAMPLER_G)
    weight_G, kl = weights(2.0, OLD_G), 0.0
    parts, gradients = [], []
    for new_T, old_T, base_T, weight_T, advantage in zip(LOGPROB_G, OLD_G, BASE_G, weight_G, ADVANTAGE_G, strict=True):
        for new, old, base, weight in zip(new_T, old_T, base_T, weight_T, strict=True):
            ratio = math.exp(new - old)
            bounded = min(max(ratio, 0.5), 10.0)
            parts.append(max(-advantage * ratio, -advantage * bounded) * weight)
            kl += math.exp(base - new) - (base - new) - 1
            inside = -advantage * ratio >= -advantage * bounded
            gradients.append((-advantage * ratio * weight * inside + 0.3 * (1 - math.exp(base - new))) / 6)
    assert loss == pytest.approx((sum(parts) + 0.3 * kl) / 6, rel=1e-5)
    assert [g for row in gradient_G for g in row] == pytest.approx(gradients, rel=1e-4)


def test_a_sampler_that_agrees_weighs_every_token_one() -> None:
    off = loss_of(Objective(kl_coef=0.1), LOGPROB_G, ADVANTAGE_G, old_G=OLD_G, sampler_G=OLD_G)
    on = loss_of(Objective(kl_coef=0.1, tis_cap=2.0), LOGPROB_G, ADVANTAGE_G, old_G=OLD_G, sampler_G=OLD_G)
    assert on[:2] == off[:2] and on[2][SAMPLER_WEIGHT].aggregate() == pytest.approx(1) and SAMPLER_WEIGHT not in off[2]


@pytest.mark.parametrize("policy_loss_name", [name for name in policy_loss_names() if name not in ("clip_cov", "kl_cov")])
def test_every_loss_but_bypass_mode_reads_the_weights(policy_loss_name: str) -> None:
    """`--tis_cap` is refused with that one. The parts of a step add up to the whole with weights too."""
    found = {}
    for cap in (None, 1.5):
        objective = Objective(kl_coef=0.2, policy_loss=policy_loss_name, clip_low=0.9, clip_high=9.0, tis_cap=cap)
        found[cap] = loss_of(objective, LOGPROB_G, ADVANTAGE_G, OLD_G, BASE_G, sampler_G=SAMPLER_G)
    assert (found[None][:2] == found[1.5][:2]) == (policy_loss_name == "bypass_mode")
    whole = found[1.5]
    parts = []
    for i in range(3):
        own = slice(i, i + 1)
        parts.append(loss_of(objective, LOGPROB_G[own], ADVANTAGE_G[own], OLD_G[own], BASE_G[own], step=(3, 6), sampler_G=SAMPLER_G[own]))
    assert sum(part[0] for part in parts) == pytest.approx(whole[0], rel=1e-4)
    for i, (_, (gradient_T,), _) in enumerate(parts):
        assert gradient_T == pytest.approx(whole[1][i], rel=1e-3, abs=1e-6)
    assert sum(part[2][SAMPLER_WEIGHT].aggregate() for part in parts) == pytest.approx(whole[2][SAMPLER_WEIGHT].aggregate())


def test_rows_that_are_only_padding_weigh_nothing() -> None:
    """A rank may hold nothing else, and all ranks must say the same numbers."""
    objective = Objective(kl_coef=0.0, tis_cap=2.0)
    loss, gradient_G, metrics = loss_of(objective, LOGPROB_G[:1], [1.0], step=(3, 6), sampler_G=SAMPLER_G[:1], weight_G=[[0.0] * 3])
    assert loss == 0.0 and gradient_G == [[0.0] * 3] and metrics[SAMPLER_WEIGHT].aggregate() == 0.0
