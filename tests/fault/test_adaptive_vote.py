"""`--votes_until`: the samples that are drawn are the first of the whole vote's, and a run holds and reports what was drawn."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stand_in import Faults, StandIn, attempt, config_for
from test_loaded_run import done
from test_training import Killed, kill_at_line
from test_view import questions

import sttrl
from sttrl import cli
from sttrl.config import RunConfig
from sttrl.ledger.journal import read_finished, read_lines
from sttrl.ledger.seeds import seed_source
from sttrl.methods import Tools
from sttrl.questions.answers import Judge
from sttrl.questions.prompts import AskedQuestion
from sttrl.questions.records import poll_from_json
from sttrl.report.runs import report_run
from sttrl.types import DeltaSpec, Group, HeldVote, Problem
from sttrl.voting.rounds import rounds

PROBLEM = AskedQuestion(id="q", index=0, kind="math", prompt_T=(1, 2, 3))


def a_vote(judge: Judge, **changes: Any) -> tuple[HeldVote, StandIn]:
    """A vote of the base, and the engine with its counts of calls."""
    config = RunConfig.of(**{"n_votes": 32, "n_train": 8, "ties": "first", **changes})
    engine = StandIn(faults=Faults())

    async def ballots(problem: Problem, group: Group) -> Any:
        return judge.ballots_sync(PROBLEM.kind, [(r.text, r.finish) for r in group.rollout_G])

    async def hold() -> HeldVote:
        tools = Tools(
            config=config,
            ballots=ballots,
            rows=lambda problem: (),
            response_tokens=64,
            out_of_time=lambda problem: False,
            seeds=seed_source(config.run.seed),
            observe=lambda problem, step: None,
        )
        async with engine.fork("fork", DeltaSpec(kind="lora")) as policy:
            return await tools.hold(PROBLEM, policy, 0)

    return asyncio.run(hold()), engine


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    until=st.floats(0.51, 1.0),
    n_votes=st.integers(5, 40),
    first=st.integers(2, 4),
    kind=st.sampled_from(["majority", "energy", "confidence"]),
    estimator=st.sampled_from(["grpo", "remax"]),
)
def test_the_samples_are_the_first_of_the_whole_vote_s(
    judge: Judge, seed: int, until: float, n_votes: int, first: int, kind: str, estimator: str
) -> None:
    common = {"seed": seed, "n_votes": n_votes, "n_train": 2, "voting_function": kind, "adv_estimator": estimator}
    whole, early = (a_vote(judge, **common, **more)[0] for more in ({}, {"votes_until": until, "votes_first": first}))
    drawn = len(early.group.rollout_G)
    assert len(whole.group.rollout_G) == n_votes and drawn in rounds(n_votes, until, first)
    assert early.group.rollout_G == whole.group.rollout_G[:drawn] and early.greedy == whole.greedy
    assert early.ballots.class_G == whole.ballots.class_G[:drawn] and early.ballots.stats_G == (whole.ballots.stats_G or ())[:drawn]
    assert len(early.reward_G) == early.election.samples == drawn
    assert drawn == n_votes or early.election.majority_ratio >= until


def test_a_vote_ends_at_the_first_round_that_decides_it(judge: Judge) -> None:
    """Counted from the answers of the whole vote, without the vote's own code."""
    whole, _ = a_vote(judge, temp=0.3)
    classes = whole.ballots.class_G
    first = next(count for count in (2, 4, 8, 16, 32) if max(classes[:count].count(c) for c in set(classes) - {None}) >= 0.6 * count)
    early, engine = a_vote(judge, temp=0.3, votes_until=0.6)
    assert early.election.samples == first < 32 and engine.faults.calls["sample"] == [2, 4, 8, 16, 32].index(first) + 1


def test_the_learner_measures_each_sample_once(judge: Judge) -> None:
    """The energy vote reads the learner's statistics: those of earlier rounds are kept."""
    early, engine = a_vote(judge, voting_function="energy", votes_until=0.99, votes_first=4)
    assert early.election.samples == 32 and engine.faults.calls["score"] == 4
    assert early.ballots.stats_G == a_vote(judge, voting_function="energy")[0].ballots.stats_G


METHODS: dict[str, dict[str, Any]] = {
    "sttrl": {"steps": 3},
    "sttrl, all that are drawn are trained on": {"steps": 3, "n_train": 32},
    "ttft": {"adaptation_method": "ttft", "steps": 2},
    "ttft that only votes": {"adaptation_method": "ttft", "steps": 0},
    "ttrl": {"adaptation_method": "ttrl", "epochs": 2, "train_batch_size": 2},
    "remax": {"adv_estimator": "remax"},
}


@pytest.mark.parametrize("method", METHODS)
def test_a_run_holds_what_was_drawn(method: str, tmp_path: Path, judge: Judge) -> None:
    own: dict[str, Any] = {"limit": 6, "ties": "first", "n_votes": 32, "n_train": 8, "temp": 0.4, **METHODS[method]}
    attempt(config_for(tmp_path / "run", **own, votes_until=0.6), StandIn(), judge)
    finished = read_finished(tmp_path / "run", poll_from_json)
    assert all(question.record.status == "done" for question in finished)
    steps = [step for question in finished for step in question.steps if step.election and step.ballots]
    counts = [step.election.samples for step in steps if step.election]
    assert set(counts) <= {2, 4, 8, 16, 32} and min(counts) < 32
    for step in steps:
        assert step.election and step.ballots
        assert len(step.ballots.answer_G) == len(step.reward_G) == step.election.samples
        assert step.election.samples == 32 or step.election.majority_ratio >= 0.6
    for question in finished:
        lines = (tmp_path / "run" / "rollouts" / f"{question.record.id}.jsonl").read_text().splitlines()
        if method != "ttrl":  # whose samples are not kept
            assert sum("step" in json.loads(line) for line in lines) == sum(s.election.samples for s in question.steps if s.election)
        budget, poll = question.record.tokens_sampled + question.record.tokens_trained, question.record.polls["vote_same_tokens"]
        assert poll.tokens <= budget or poll.k == 1, "the base votes with the tokens that were really spent"
        classes = poll.ballots.class_G
        shares = {n: max((classes[:n].count(c) for c in set(classes[:n]) - {None}), default=0) / n for n in (2, 4, 8, 16, 32) if n < poll.k}
        assert poll.early.samples == next((n for n, share in shares.items() if share >= 0.6), poll.k), "the first round that decides it"
        assert poll.early_tokens <= poll.tokens and (poll.early_tokens == poll.tokens) == (poll.early.samples == poll.k)


@pytest.mark.parametrize("method", ["sttrl", "ttrl"])
def test_a_killed_run_goes_on_as_if_it_had_not_been(method: str, tmp_path: Path, judge: Judge) -> None:
    """The rounds of a vote leave nothing but the journal behind, and the rounds of the vote with the same tokens are in its record."""
    own: dict[str, Any] = {"limit": 3, "ties": "first", "n_votes": 16, "n_train": 8, "temp": 0.4, "votes_until": 0.6, **METHODS[method]}
    attempt(config_for(tmp_path / "whole", **own), StandIn(), judge)
    for number in range(2, len(list(read_lines(tmp_path / "whole"))) + 1, 3):
        config = config_for(tmp_path / f"killed_{number}", **own)
        with pytest.MonkeyPatch.context() as monkeypatch:
            kill_at_line(monkeypatch, number)
            with pytest.raises(Killed):
                attempt(config, StandIn(), judge)
        attempt(config, StandIn(), judge)
        one, other = (read_finished(tmp_path / name, poll_from_json) for name in ("whole", f"killed_{number}"))
        assert [q.record.polls for q in one] == [q.record.polls for q in other], number
        assert [[(s.ballots, s.reward_G) for s in q.steps] for q in one] == [[(s.ballots, s.reward_G) for s in q.steps] for q in other]


def test_the_first_step_of_a_run_is_that_of_the_whole_vote_s_first_samples(tmp_path: Path, judge: Judge) -> None:
    for name, until in (("whole", None), ("early", 0.6)):
        config = config_for(tmp_path / name, limit=5, ties="first", n_votes=16, temp=0.4, votes_until=until)
        attempt(config, StandIn(), judge)
    assert all(q.record.polls["vote_same_tokens"].early is None for q in read_finished(tmp_path / "whole", poll_from_json))
    for whole, early in zip(*(read_finished(tmp_path / name, poll_from_json) for name in ("whole", "early")), strict=True):
        one, other = (question.steps[0].ballots for question in (whole, early))
        assert one and other and other.answer_G == one.answer_G[: len(other.answer_G)]
        assert whole.record.polls["base"] == early.record.polls["base"]


def test_report_records_and_exports_have_what_was_drawn(tmp_path: Path, judge: Judge, capsys: pytest.CaptureFixture[str]) -> None:
    sums = questions(tmp_path / "sums.jsonl", 4)
    folder = done(tmp_path / "run", judge, sums, n_votes=32, temp=0.4, votes_until=0.6)
    run, report = sttrl.load_run(folder), report_run(folder)
    counts = [len(step.rewards) for problem in run for step in problem.steps]
    assert run.summary["saved"]["samples"] == sum(32 - count for count in counts) > 0 and run.summary["saved"]["tokens"] > 0
    assert f"{run.summary['saved']['samples']} samples not drawn" in report.table
    assert (folder / "report.html").read_text().count("samples not drawn") >= 1
    for problem in run:
        assert [step.metrics["vote/samples"] for step in problem.steps] == [len(step.rewards) for step in problem.steps]
    for form in ("csv", "inspect", "parquet"):
        assert cli.main(["export", str(folder), "--to", form, "--out", str(tmp_path / form)]) == 0
    samples = pq.read_table(tmp_path / "parquet" / "samples.parquet").to_pylist()
    assert sum(sample["step"] is not None for sample in samples) == sum(counts)
