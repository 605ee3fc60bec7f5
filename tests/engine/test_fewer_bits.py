"""A base in 8 or 4 bits and an optimiser in 8 bits, by bitsandbytes, on the learner's platform."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from learner_tools import OPEN, batch, forked, score

from sttrl.config import RunConfig
from sttrl.engine.base import AdapterShape
from sttrl.engine.environment import check_bits
from sttrl.errors import UsageError
from sttrl.types import Objective

pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
PLAIN = AdapterShape(rank=8, alpha=16)
GAP = {"int8": 0.2, "nf4": 1.5}
"""Nats a token by which the base's log-probs may differ on average: the tiny model has far larger weights than a trained one."""


def mean_gap(a: list[list[float]], b: list[list[float]]) -> float:
    flat_a, flat_b = (torch.tensor([x for row in rows for x in row]) for rows in (a, b))
    return float((flat_a - flat_b).abs().mean())


@pytest.mark.slow
@pytest.mark.parametrize("bits", ["int8", "nf4"])
def test_a_base_in_fewer_bits_is_nearly_the_base_and_learns(local_learner: Callable[..., Any], lora_learner: Any, bits: Any) -> None:
    learner, data = local_learner(adapter=replace(PLAIN, base=bits)), batch()
    kinds = {type(module).__name__ for module in learner.engine.module.modules()}
    assert {"int8": "Linear8bitLt", "nf4": "Linear4bit"}[bits] in kinds
    plain, few = score(lora_learner, None, data), score(learner, None, data)
    assert 0 < mean_gap(plain, few) < GAP[bits]
    print_of_base = learner.fingerprint()
    rows = [replace(row, advantage_T=None, sampler_logprob_T=None) for row in data.group.row_G]
    group = replace(data.group, row_G=tuple(rows))
    with forked(learner, lr=0.02) as fork:
        losses = [learner.update(fork, [group], Objective(loss="nll")).loss for _ in range(6)]
        assert losses[-1] < losses[0] and score(learner, fork, data) != few
    assert score(learner, None, data) == few and learner.fingerprint() == print_of_base


@pytest.mark.slow
def test_moments_in_8_bits_move_the_weights_as_adamw_does_and_survive_a_restart(
    local_learner: Callable[..., Any], lora_learner: Any, tmp_path: Path
) -> None:
    learner, data = local_learner(optimizer="adamw_8bit"), batch()
    assert type(learner.engine.optimizer).__module__.startswith("bitsandbytes")
    scores = {}
    for name, one in (("adamw", lora_learner), ("adamw_8bit", learner)):
        with forked(one) as fork:
            for _ in range(3):
                one.update(fork, [data.group], OPEN)
            scores[name] = score(one, fork, data)
    assert mean_gap(scores["adamw"], scores["adamw_8bit"]) < 0.1 * mean_gap(scores["adamw"], score(learner, None, data))
    with forked(learner) as fork:
        for _ in range(2):
            learner.update(fork, [data.group], OPEN)
        learner.save_fork(fork, str(tmp_path))
        learner.update(fork, [data.group], OPEN)
        expected = score(learner, fork, data)
    with forked(learner, "again") as fork:
        learner.restore_fork(fork, str(tmp_path))
        learner.update(fork, [data.group], OPEN)
        assert score(learner, fork, data) == expected == scores["adamw_8bit"]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "ranks": ({"base_dtype": "int8", "learner_ranks": 2}, "--base_dtype int8 with --learner_ranks 2: it cannot be sharded"),
    "ranks of the optimiser": ({"optimizer": "adamw_8bit", "learner_ranks": 2}, "--optimizer adamw_8bit with --learner_ranks 2"),
    "full weights": ({"base_dtype": "nf4", "lora_rank": 0}, "--base_dtype nf4 with --lora_rank 0: all weights are trained"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused_in_one_line(name: str) -> None:
    settings, message = REFUSED[name]
    with pytest.raises(UsageError, match=message) as stop:
        RunConfig.of(**settings)
    assert stop.value.hint and "\n" not in str(stop.value)


def test_a_missing_package_is_named_with_the_setting_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sttrl.engine.environment.installed", lambda package: False)
    check_bits({})
    with pytest.raises(UsageError, match="--base_dtype needs the package bitsandbytes. pip install bitsandbytes, or use --base_dtype same"):
        check_bits({"base_dtype": "same"})
