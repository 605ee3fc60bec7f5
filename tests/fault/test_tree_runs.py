"""ETTRL in whole runs on the stand-in engine: tokens, log-probs, advantages, a killed run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from stand_in import Faults, StandIn, StandInPolicy, attempt, config_for, digest, results, rollouts

from sttrl.engine.base import JUST_LOGPROBS
from sttrl.ledger.journal import read_finished
from sttrl.questions.answers import Judge
from sttrl.questions.records import poll_from_json
from sttrl.types import Measure, Objective, TokenStats, TrainGroup, UpdateStats

SETTINGS: dict[str, Any] = {"limit": 5, "steps": 2, "n_votes": 15, "n_train": 10, "val_samples": 2, "rollouts": "tree", "ties": "first"}
Updates = list[tuple[TrainGroup, Objective]]


class Unsure(StandInPolicy):
    """A policy whose entropy differs from token to token."""

    async def score(self, groups: Sequence[TrainGroup], measure: Measure = JUST_LOGPROBS, at: Any = "policy") -> Any:
        """Entropies by a hash of the tokens; the other statistics are the stand-in's."""
        if measure.want != {"entropy"}:
            return await super().score(groups, measure, at)
        return tuple(tuple(TokenStats(entropy_T=entropies(row.token_T)) for row in group.row_G) for group in groups)


def entropies(token_T: Sequence[int]) -> tuple[float, ...]:
    """Of each token of a response, in nats."""
    return tuple(digest("entropy", tuple(token_T[: place + 1])) % 1000 / 500 for place in range(len(token_T)))


class Engine(StandIn):
    """Makes policies of that kind, and keeps what they are updated on."""

    def __init__(self, faults: Faults | None = None) -> None:
        super().__init__(faults)
        self.updates: Updates = []

    def policy(self, delta: Any) -> Any:
        """A new policy."""
        updates, made = self.updates, Unsure(self, delta)
        plain = made.update

        async def update(groups: Sequence[TrainGroup], objective: Objective) -> UpdateStats:
            updates.extend((group, objective) for group in groups)
            return await plain(groups, objective)

        made.update = update  # type: ignore[method-assign]
        return made


def lines_of(folder: Path) -> list[list[dict[str, Any]]]:
    """The samples of each step of each question."""
    steps: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for name, text in rollouts(folder).items():
        for line in map(json.loads, text.decode().splitlines()):
            if "step" in line:
                steps.setdefault((name, line["step"]), []).append(line)
    return list(steps.values())


@pytest.mark.parametrize("method", ["sttrl", "ttft"])
def test_branches_share_the_beginning_of_their_trunk_and_only_what_is_sampled_counts(tmp_path: Path, judge: Judge, method: str) -> None:
    attempt(config_for(tmp_path / "run", **{**SETTINGS, "adaptation_method": method}), Engine(), judge)
    shared = sampled = 0
    for step in lines_of(tmp_path / "run"):
        assert len(step) == 15
        for number, line in enumerate(step):
            trunk, begun = step[number - number % 5], line.get("begun", 0)
            assert line is not trunk or begun == 0
            assert line["tokens"][:begun] == trunk["tokens"][:begun] and line["logprobs"][:begun] == trunk["logprobs"][:begun]
            order = sorted(range(len(trunk["tokens"])), key=lambda t: (-entropies(trunk["tokens"])[t], t))
            assert line is trunk or begun in order[:2]
            shared, sampled = shared + begun, sampled + len(line["tokens"]) - begun
    finished = read_finished(tmp_path / "run", poll_from_json)
    assert sum(q.record.tokens_sampled for q in finished) == sampled and shared > 0
    for question in finished:
        spent, poll = question.record.tokens_sampled + question.record.tokens_trained, question.record.polls["vote_same_tokens"]
        assert poll.tokens <= spent or poll.k == 1
    poll_lines = [
        line for text in rollouts(tmp_path / "run").values() for line in map(json.loads, text.decode().splitlines()) if "poll" in line
    ]
    assert poll_lines and not any("begun" in line for line in poll_lines), "the base votes with independent samples"


@pytest.mark.parametrize("estimator", ["grpo", "remax"])
def test_advantages_are_scaled_by_relative_entropy(tmp_path: Path, judge: Judge, estimator: str) -> None:
    """The same run without the scaling has the same first steps, so its advantages times the factors are those of the run with it."""
    found = {}
    for shaping in ("none", "relative_entropy"):
        engine = Engine()
        own = {**SETTINGS, "steps": 1, "adv_estimator": estimator, "advantage_shaping": shaping}
        attempt(config_for(tmp_path / shaping, **own), engine, judge)
        found[shaping] = sorted((group.prefix_T, group) for group, _ in engine.updates)
    assert len(found["none"]) == len(found["relative_entropy"]) > 2
    for (_, plain), (_, shaped) in zip(found["none"], found["relative_entropy"], strict=True):
        entropy_G = [fmean(entropies(row.token_T)) for row in plain.row_G]
        mean = fmean(entropy_G)
        for before, after, entropy in zip(plain.row_G, shaped.row_G, entropy_G, strict=True):
            assert after.token_T == before.token_T
            assert after.advantage_T == pytest.approx([(2 - entropy / mean) * a for a in before.advantage_T or ()])


def test_advantages_are_clipped(tmp_path: Path, judge: Judge) -> None:
    engine = Engine()
    attempt(config_for(tmp_path / "run", **{**SETTINGS, "advantage_shaping": "clip", "advantage_clip": 0.75}), engine, judge)
    advantages = {a for group, _ in engine.updates for row in group.row_G for a in row.advantage_T or ()}
    assert advantages and max(map(abs, advantages)) == 0.75


@pytest.mark.parametrize("method", ["sttrl", "ttrl"])
def test_a_run_that_failed_goes_on_as_it_would_have(tmp_path: Path, judge: Judge, method: str) -> None:
    own = {**SETTINGS, "adaptation_method": method, "advantage_shaping": "relative_entropy"}
    own |= {"epochs": 2, "train_batch_size": 3} if method == "ttrl" else {}
    attempt(config_for(tmp_path / "whole", **own), Engine(), judge)
    config = config_for(tmp_path / "killed", **own)
    with pytest.raises(KeyboardInterrupt):
        attempt(config, Engine(Faults(plan={("sample", 9): KeyboardInterrupt()})), judge)
    attempt(config, Engine(), judge)
    assert results(tmp_path / "whole") == results(tmp_path / "killed")
    assert rollouts(tmp_path / "whole") == rollouts(tmp_path / "killed")
