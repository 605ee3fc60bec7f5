"""Updates in many passes and steps: how a step is split changes nothing, the first update has a KL term, no mini-batch is empty."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, get_args, get_type_hints

import pytest
import torch
from learner_tools import micro_batches_of, scored
from live_engine import OTHER_PROMPT_T
from test_updates import OPEN, TEMPERATURE, check_close, forked, gradients, group

from sttrl.config import ReinforcementSettings
from sttrl.objectives.registry import policy_loss_names

AGGREGATIONS = get_args(get_type_hints(ReinforcementSettings)["loss_aggregation"])
SMALL = 8
"""Tokens of a pass that holds few of the responses of `group`."""
CHOOSE_IN_A_PASS = ("clip_cov", "kl_cov")
"""verl's losses that choose among the tokens of a micro-batch: they cannot be the same however a step is split."""
SPLIT_ALIKE = [name for name in policy_loss_names() if name not in CHOOSE_IN_A_PASS]


@pytest.mark.parametrize("policy_loss", SPLIT_ALIKE)
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_accumulated_is_the_whole_batch(lora_learner: Any, policy_loss: str, aggregation: str) -> None:
    objective = replace(OPEN, policy_loss=policy_loss, loss_aggregation=aggregation, horizon=7)
    with forked(lora_learner) as name:
        whole = gradients(lora_learner, name, [group()], objective)
        with micro_batches_of(lora_learner, SMALL):
            check_close(gradients(lora_learner, name, [group()], objective), whole)
            assert lora_learner.update(name, [group()], objective).micro_batches > 2


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_what_is_said_of_an_update_is_the_same_however_it_is_split(lora_learner: Any, aggregation: str) -> None:
    objective = replace(OPEN, kl_coef=0.3, loss_aggregation=aggregation, horizon=7, ppo_epochs=2, clip_low=0.01, clip_high=0.01)
    found = []
    for tokens in (4096, SMALL):
        with forked(lora_learner, lr=0.02) as name:
            lora_learner.update(name, [group()], objective)
            with micro_batches_of(lora_learner, tokens):
                found.append(lora_learner.update(name, [group()], objective))
    whole, split = found
    assert split.micro_batches > whole.micro_batches and 0 < whole.clip_fraction < 1 and whole.kl_to_base > 0
    for field in ("loss", "grad_norm", "kl_to_base", "clip_fraction"):
        assert getattr(split, field) == pytest.approx(getattr(whole, field), rel=1e-3), field


def test_the_kl_divergence_is_nats_a_token_however_the_loss_is_aggregated(lora_learner: Any) -> None:
    """--kl_budget is compared with it."""
    found = []
    for aggregation in AGGREGATIONS:
        with forked(lora_learner, lr=0.02) as name:
            lora_learner.update(name, [group()], OPEN)
            objective = replace(OPEN, kl_coef=1e-6, loss_aggregation=aggregation, horizon=7)
            found.append(lora_learner.update(name, [group()], objective).kl_to_base)
    assert found == [found[0]] * len(AGGREGATIONS) and found[0] > 0


def test_in_the_first_update_the_kl_term_holds_the_later_steps_back(lora_learner: Any) -> None:
    """The reference of a fork's first update is the fork as it was: the old log-probs."""
    data = group()
    base_G = scored(lora_learner, None, data, TEMPERATURE)
    row_G = tuple(replace(row, base_logprob_T=tuple(base_T)) for row, base_T in zip(data.row_G, base_G, strict=True))
    given = replace(data, row_G=row_G)
    for changes in ({"ppo_epochs": 3}, {"mini_batches": 2}, {"ppo_epochs": 2, "policy_loss": "bypass_mode"}):
        scores = {}
        for name, kl_coef, trained in (("free", 0.0, data), ("held", 100.0, data), ("given", 100.0, given)):
            with forked(lora_learner, lr=0.02):
                lora_learner.update("fork", [trained], replace(OPEN, kl_coef=kl_coef, **changes))
                scores[name] = scored(lora_learner, "fork", data, TEMPERATURE)
        assert scores["held"] != scores["free"], changes
        for held, expected in zip(scores["held"], scores["given"], strict=True):
            assert held == pytest.approx(expected, abs=1e-3), changes


@pytest.mark.parametrize("passes", [1, 2])
def test_the_weights_of_truncated_importance_sampling_are_the_old_learner_s(lora_learner: Any, passes: int) -> None:
    """By hand from the learner's log-probs before the update; `group` says that the sampler's are all -1. Splits change nothing."""
    cap, data = 0.9 * math.e, group()
    with forked(lora_learner) as name:
        logprob_G = scored(lora_learner, name, data, TEMPERATURE)
    flat = [min(math.exp(logprob + 1), cap) for logprob_T in logprob_G for logprob in logprob_T]
    objective = replace(OPEN, tis_cap=cap, ppo_epochs=passes)
    for tokens in (4096, SMALL):
        with forked(lora_learner) as name, micro_batches_of(lora_learner, tokens):
            assert lora_learner.update(name, [data], objective).tis_weight == pytest.approx(sum(flat) / len(flat), rel=1e-3)
    with forked(lora_learner) as name:
        weighed, plain = (gradients(lora_learner, name, [data], o) for o in (objective, replace(objective, tis_cap=None)))
        assert any(not torch.allclose(weighed[key], plain[key]) for key in plain)
        assert lora_learner.update(name, [data], replace(objective, tis_cap=None)).tis_weight is None


def test_more_mini_batches_than_responses_are_as_many_as_responses(lora_learner: Any) -> None:
    data = [group(n=3)]
    with forked(lora_learner) as name:
        assert lora_learner.update(name, data, replace(OPEN, mini_batches=32)).optimizer_steps == 3
    with forked(lora_learner) as name:
        several = [group(n=3), group(OTHER_PROMPT_T, n=5)]
        assert lora_learner.update(name, several, replace(OPEN, mini_batches=32, ppo_epochs=2)).optimizer_steps == 4
