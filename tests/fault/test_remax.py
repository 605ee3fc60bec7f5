"""ReMax's greedy response is a baseline: it changes no sample's vote or reward, and earns what a sample would."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import pytest
from stand_in import CHOICES, StandIn

from sttrl.config import RunConfig
from sttrl.ledger.seeds import seed_source
from sttrl.methods import Tools
from sttrl.objectives.rewards import REWARDS
from sttrl.questions.answers import Judge
from sttrl.questions.prompts import AskedQuestion
from sttrl.types import DeltaSpec, Group, HeldVote, Measure, Problem, Row, TrainGroup

PROBLEM = AskedQuestion(id="q", index=0, kind="math", prompt_T=(1, 2, 3))
ANSWERS = ("7", r"\frac{1}{2}", "0.5", "3", "0")


def a_vote(judge: Judge, greedy: str | None = None, **settings: Any) -> tuple[HeldVote, Any]:
    """A vote on samples that answer one of `ANSWERS`, and the policy; the greedy response answers ``greedy``."""
    config = RunConfig.of(**{"n_votes": 12, "n_train": 8, "temp": 0.5, "ties": "first", **settings})
    seeds = seed_source(config.run.seed)
    own = seeds(PROBLEM, "baseline", 0, 1)

    def texts(prompt_T: Sequence[int], seed: int, answer: int) -> Any:
        said = greedy if seed in own and greedy is not None else ANSWERS[answer % CHOICES]
        return rf"The answer is \boxed{{{said}}}.", "stop"

    async def ballots(problem: Problem, group: Group) -> Any:
        return judge.ballots_sync(problem.kind, [(r.text, r.finish) for r in group.rollout_G])

    async def hold() -> tuple[HeldVote, Any]:
        tools = Tools(
            config=config,
            ballots=ballots,
            rows=lambda problem: (),
            response_tokens=64,
            out_of_time=lambda problem: False,
            seeds=seeds,
            observe=lambda problem, step: None,
        )
        async with StandIn(texts=texts).fork("fork", DeltaSpec(kind="lora")) as policy:
            return await tools.hold(PROBLEM, policy, 0), policy

    return asyncio.run(hold())


@pytest.mark.parametrize("reward", [name for name, reward in REWARDS.items() if not reward.held_out and name != "restrain"])
@pytest.mark.parametrize("greedy", [None, "nothing that was sampled", "0.50"])
def test_the_samples_earn_and_elect_what_they_do_without_a_greedy_response(judge: Judge, reward: str, greedy: str | None) -> None:
    with_one, without = (a_vote(judge, greedy, reward=reward, adv_estimator=name)[0] for name in ("remax", "grpo"))
    assert with_one.greedy is not None and with_one.baseline is not None and without.baseline is None
    for field in ("group", "ballots", "election", "majority", "reward_G"):
        assert getattr(with_one, field) == getattr(without, field), field


@pytest.mark.parametrize("reward", ["agreement", "frequency", "scrl", "format"])
def test_a_greedy_response_earns_what_a_sample_with_its_answer_does(judge: Judge, reward: str) -> None:
    seen = 0
    for greedy, kin in (("7.0", ("7",)), (r"\frac{2}{4}", ("0.5", r"\frac{1}{2}")), ("3", ("3",))):
        vote, _ = a_vote(judge, greedy, reward=reward, adv_estimator="remax")
        earned = {r for r, a in zip(vote.reward_G, vote.ballots.answer_G, strict=True) if a.text in kin}
        assert earned in (set(), {vote.baseline}), greedy
        seen += len(earned)
    assert seen >= 2


def test_an_answer_that_no_sample_gave_agrees_with_nobody(judge: Judge) -> None:
    for reward in ("agreement", "frequency"):
        assert a_vote(judge, "123456", reward=reward, adv_estimator="remax")[0].baseline == 0.0
    assert a_vote(judge, "123456", reward="format", adv_estimator="remax")[0].baseline == 1.0


@pytest.mark.parametrize(("reward", "stat"), [("logprob", "logprob"), ("self_certainty", "self_certainty"), ("neg_entropy", "entropy")])
def test_a_greedy_response_is_measured_at_the_samples_temperature(judge: Judge, reward: str, stat: Any) -> None:
    """The sampler scores it at temperature 1."""
    vote, policy = a_vote(judge, "7", reward=reward, adv_estimator="remax")
    assert vote.greedy is not None
    alone = TrainGroup(prefix_T=PROBLEM.prompt_T, row_G=(Row.of(vote.greedy),))
    measures = [Measure(want=frozenset({stat}), temperature=t) for t in (0.5, 1.0)]
    ((at_half,),), ((at_one,),) = (asyncio.run(policy.score([alone], measure)) for measure in measures)
    expected, other = (fmean(getattr(stats, f"{stat}_T")) * (-1 if stat == "entropy" else 1) for stats in (at_half, at_one))
    assert vote.baseline == pytest.approx(expected) and abs(expected - other) > 1e-3
