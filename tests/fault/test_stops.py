"""Why a question's adaptation ended, as the journal has it; and what the vote with the same tokens may spend."""

from __future__ import annotations

import random
from math import sqrt
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import pytest
from stand_in import StandIn, Texts, attempt, config_for, digest, rollouts

from sttrl.ledger.journal import read_finished
from sttrl.ledger.records import FinishedQuestion
from sttrl.ledger.seeds import seed_of
from sttrl.questions.answers import Judge
from sttrl.questions.polls import enough, within
from sttrl.questions.prompts import AskedQuestion
from sttrl.questions.records import poll_from_json
from sttrl.types import Rollout


def says(*answers: str) -> Texts:
    """Texts that ignore the policy: one of these answers, in turns by seed."""
    return lambda prompt_T, seed, answer: (f"The answer is {answers[digest(seed) % len(answers)]}.", "stop")


def one_question(tmp_path: Path, judge: Judge, texts: Texts | None = None, **settings: Any) -> FinishedQuestion:
    engine = StandIn(texts=texts) if texts else StandIn()
    attempt(config_for(tmp_path / "run", limit=1, **settings), engine, judge)
    (found,) = read_finished(tmp_path / "run", poll_from_json)
    assert found.record.status == "done", found.record.error
    return found


def test_unanimous(tmp_path: Path, judge: Judge) -> None:
    found = one_question(tmp_path, judge, says("7"))
    assert found.record.stop == "unanimous"
    assert [step.update for step in found.steps] == [None]
    assert found.record.polls["adapted"].version == 0 and found.record.tokens_trained == 0


def test_nothing_parsable(tmp_path: Path, judge: Judge) -> None:
    found = one_question(tmp_path, judge, lambda prompt_T, seed, answer: ("no idea", "stop"))
    assert found.record.stop == "unparsable" and found.record.answer is None
    assert set(found.steps[0].ballots.invalid_G) == {"unparsable"} and found.steps[0].update is None


def test_cut_at_the_token_limit(tmp_path: Path, judge: Judge) -> None:
    found = one_question(tmp_path, judge, lambda prompt_T, seed, answer: ("The answer is 7.", "length"))
    assert found.record.stop == "unparsable" and set(found.steps[0].ballots.invalid_G) == {"cut"}


def test_tie(tmp_path: Path, judge: Judge) -> None:
    def texts(prompt_T: Any, seed: int, answer: int) -> Any:
        return f"The answer is {places.get(seed, 0) % 2}.", "stop"

    places = {seed_of(0, "2-plus-5", "vote", 0, sample): sample for sample in range(12)}
    found = one_question(tmp_path, judge, texts)
    assert found.record.stop == "tie" and found.steps[0].election.tied_C == [0, 1] and found.steps[0].update is None


def test_a_tie_may_go_to_the_first(tmp_path: Path, judge: Judge) -> None:
    places = {seed_of(0, "2-plus-5", "vote", step, sample): sample for step in range(3) for sample in range(12)}
    found = one_question(
        tmp_path, judge, lambda prompt_T, seed, answer: (f"The answer is {places.get(seed, 0) % 2}.", "stop"), ties="first"
    )
    assert found.record.stop == "steps" and [step.election.answer for step in found.steps] == ["0"] * 3


def test_agreement_threshold(tmp_path: Path, judge: Judge) -> None:
    places = {seed_of(0, "2-plus-5", "vote", 0, sample): sample for sample in range(12)}
    texts: Texts = lambda prompt_T, seed, answer: (f"The answer is {1 if places.get(seed, 9) < 3 else 2}.", "stop")  # noqa: E731
    found = one_question(tmp_path, judge, texts, stop_agreement=0.75)
    assert found.record.stop == "agreement" and found.steps[0].election.majority_ratio == 0.75 and found.steps[0].update is None


def test_just_below_the_threshold_goes_on(tmp_path: Path, judge: Judge) -> None:
    places = {seed_of(0, "2-plus-5", "vote", 0, sample): sample for sample in range(12)}
    texts: Texts = lambda prompt_T, seed, answer: (f"The answer is {1 if places.get(seed, 9) < 3 else 2}.", "stop")  # noqa: E731
    assert one_question(tmp_path, judge, texts, stop_agreement=0.76).steps[0].update is not None


def test_kl_budget(tmp_path: Path, judge: Judge) -> None:
    free = one_question(tmp_path / "free", judge, ties="first", steps=6)
    spent = [float(step.update["kl_to_base"] or 0.0) for step in free.steps if step.update]
    assert len(spent) == 6 and spent[1] > spent[0] > 0
    held = one_question(tmp_path / "held", judge, ties="first", steps=6, kl_budget=(spent[0] + spent[1]) / 2)
    assert held.record.stop == "kl_budget" and len(held.steps) == 2 and held.steps[-1].update is not None


def votes_on(judge: Judge, tmp_path: Path, *answers: str) -> FinishedQuestion:
    """Each step elects its own one of these answers, against some other; more than half of the changes stop."""
    problem = AskedQuestion(id="q", index=0, kind="math", prompt_T=(1, 2))
    step_of = {seed_of(0, "q", "vote", step, sample): step for step in range(len(answers)) for sample in range(12)}

    def texts(prompt_T: Any, seed: int, answer: int) -> Any:
        return rf"The answer is \boxed{{{answers[step_of.get(seed, 0)] if digest(seed) % 3 else 99}}}.", "stop"

    config = config_for(tmp_path / "run", steps=len(answers), max_flip_rate=0.5)
    attempt(config, StandIn(texts=texts), judge, problems=[problem])
    (found,) = read_finished(tmp_path / "run", poll_from_json)
    assert found.record.status == "done", found.record.error
    return found


def test_an_answer_that_is_written_otherwise_is_no_flip(tmp_path: Path, judge: Judge) -> None:
    found = votes_on(judge, tmp_path, r"\frac{1}{2}", "0.5", r"\frac{2}{4}")
    assert len({step.election.answer for step in found.steps}) > 1, "or the judge is not asked"
    assert found.record.stop == "steps" and len(found.steps) == 3


def test_another_answer_is_a_flip(tmp_path: Path, judge: Judge) -> None:
    found = votes_on(judge, tmp_path, "7", "7", "8", "7", "8")
    assert found.record.stop == "flip_rate" and len(found.steps) == 4 and found.steps[-1].update is None


def test_to_abstain_is_a_flip_from_an_answer(tmp_path: Path, judge: Judge) -> None:
    found = votes_on(judge, tmp_path, "7", "?", "7")
    assert found.steps[1].election.answer == "99" and found.record.stop == "flip_rate"


def test_steps(tmp_path: Path, judge: Judge) -> None:
    found = one_question(tmp_path, judge, ties="first", steps=2)
    assert found.record.stop == "steps" and found.record.steps == len(found.steps) == 2
    assert [step.version for step in found.steps] == [0, 1]
    assert found.record.polls["adapted"].version == 2


def test_no_steps_at_all(tmp_path: Path, judge: Judge) -> None:
    found = one_question(tmp_path, judge, steps=0)
    assert found.record.stop == "steps" and found.steps == ()
    assert "vote_same_tokens" not in found.record.polls and found.record.polls["adapted"].version == 0


def test_no_adaptation(tmp_path: Path, judge: Judge) -> None:
    found = one_question(tmp_path, judge, adaptation_method="none")
    assert found.record.stop == "no_adaptation" and set(found.record.polls) == {"base"}
    assert found.record.answer_source == "base" and not (tmp_path / "run" / "adapters").exists()


def test_an_adapted_policy_is_better_at_what_it_voted_for(tmp_path: Path, judge: Judge) -> None:
    """The stand-in learns, or none of these tests would show anything."""
    found = one_question(tmp_path, judge, ties="first", steps=12, val_samples=32)
    winner = found.steps[-1].election.answer
    before, after = (sum(a == winner for a in found.record.polls[name].ballots.answer_G[:32]) for name in ("base", "adapted"))
    assert after > before


# The vote with the same tokens


@pytest.mark.parametrize("settings", [{}, {"continuous": True}, {"n_train": 3}, {"steps": 1}, {"val_samples": 1}])
def test_the_vote_spends_no_more_than_the_adaptation(settings: dict[str, Any], tmp_path: Path, judge: Judge) -> None:
    attempt(config_for(tmp_path / "run", **{"limit": 6, "ties": "first", "steps": 4, **settings}), StandIn(), judge)
    spent = 0
    for question in read_finished(tmp_path / "run", poll_from_json):
        poll, budget = question.record.polls["vote_same_tokens"], question.record.tokens_sampled + question.record.tokens_trained
        assert poll.tokens <= budget or poll.k == 1
        assert poll.tokens > 0.8 * budget, "and hardly less"
        assert poll.version == 0 and not poll.greedy and poll.temperature == 1.0
        spent += poll.k
    assert spent > 50


@pytest.mark.parametrize("settings", [{}, {"adaptation_method": "ttrl", "steps": None, "epochs": 2, "train_batch_size": 2}])
def test_without_that_vote_nothing_else_changes(settings: dict[str, Any], tmp_path: Path, judge: Judge) -> None:
    for name, more in (("with", True), ("without", False)):
        config = config_for(tmp_path / name, **{"limit": 4, "ties": "first", "vote_same_tokens": more, **settings})
        attempt(config, StandIn(), judge)
    full, spared = (read_finished(tmp_path / name, poll_from_json) for name in ("with", "without"))
    assert all({"base", "adapted"} == set(question.record.polls) for question in spared)
    for one, other in zip(full, spared, strict=True):
        polls = {name: poll for name, poll in one.record.polls.items() if name != "vote_same_tokens"}
        assert polls == other.record.polls and len(polls) < len(one.record.polls)
        assert one.record.answer == other.record.answer
        assert [(s.reward_G, s.tokens_trained) for s in one.steps] == [(s.reward_G, s.tokens_trained) for s in other.steps]


def test_few_batches_are_sampled(tmp_path: Path, judge: Judge) -> None:
    """Each batch waits for its longest response: the greedy one comes with the samples, the vote's in one round or, at worst, two."""
    engine = StandIn()
    attempt(config_for(tmp_path / "run", limit=6, ties="first", steps=4, n_votes=32, n_train=32), engine, judge)
    found = read_finished(tmp_path / "run", poll_from_json)
    votes, polls = sum(len(q.steps) for q in found), sum(1 + (q.record.polls["adapted"].version > 0) for q in found)
    rounds = engine.faults.calls["sample"] - votes - polls
    assert len(found) == 6 and len(found) <= rounds <= len(found) + 1


@pytest.mark.parametrize("lengths", [[7], [3, 9], [1, 1, 1, 60], list(range(1, 32))])
@pytest.mark.parametrize("tokens", [1, 50, 2000])
def test_enough_samples_are_asked_for_and_not_many_too_many(lengths: list[int], tokens: int) -> None:
    count, chance = enough(tokens, lengths), random.Random(0)
    taken = [sum(chance.choices(lengths, k=count)) for _ in range(400)]
    assert sum(total >= tokens for total in taken) > 370
    mean, deviation = fmean(lengths), pstdev(lengths)
    assert count - 1 <= tokens / mean + (2 * deviation / mean) ** 2 + 2 * deviation / mean * sqrt(tokens / mean)


def test_the_vote_takes_base_samples_only(tmp_path: Path, judge: Judge) -> None:
    attempt(config_for(tmp_path / "run", limit=3, ties="first", continuous=True), StandIn(), judge)
    import json

    for number, question in enumerate(read_finished(tmp_path / "run", poll_from_json)):
        lines = [json.loads(line) for line in rollouts(tmp_path / "run")[f"{question.record.id}.jsonl"].decode().split("\n") if line]
        vote = [line for line in lines if line.get("poll") == "vote_same_tokens"]
        assert {line["version"] for line in vote} == {0}
        assert len({line["seed"] for line in vote}) == len(vote), "no sample votes twice"
        first_step = [line["seed"] for line in lines if line.get("step") == 0]
        same = [(line["seed"], line["text"]) for line in lines if line.get("step") == 0] == [
            (v["seed"], v["text"]) for v in vote[: len(first_step)]
        ]
        assert same == (number == 0), "the first group counts where it came from the base, and only there"


def response(tokens: int) -> Rollout:
    return Rollout(seed=0, version=0, token_T=(1,) * tokens, logprob_T=(-1.0,) * tokens, finish="stop", text="")


@pytest.mark.parametrize(
    ("lengths", "budget", "kept"), [([3, 3, 3], 9, 3), ([3, 3, 3], 8, 2), ([9], 2, 1), ([9, 1], 2, 1), ([], 5, 0), ([2, 9, 1], 3, 1)]
)
def test_the_longest_prefix_within_a_budget(lengths: list[int], budget: int, kept: int) -> None:
    assert len(within([response(n) for n in lengths], budget)) == kept
