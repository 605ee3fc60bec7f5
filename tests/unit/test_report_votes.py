"""What is said of votes: flips, gates, the majority beside the run's own vote, confidence, and methods that hold none."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from pages import held, loaded
from test_report_metrics import LABELLED, a_run, election, poll, question, step, voteless

from sttrl.ledger.records import BallotsRecord
from sttrl.ledger.step_metrics import UPDATE_METRICS, step_metrics
from sttrl.report import NO_GRADES, before_after_table, metrics_lines, results_lines, summarise, write_report
from sttrl.report.metrics import flip_rate, score_questions, score_vote


def elected(*answers: str | None) -> float | None:
    """The flip rate of votes that elected these answers."""
    return flip_rate([step(number, [answer, answer]) for number, answer in enumerate(answers)])


@pytest.mark.parametrize(
    ("answers", "rate"),
    [([], None), (["7"], None), (["7", "7"], 0.0), (["7", "3"], 1.0), (["7", "3", "7", "7"], 2 / 3), (["7", "7", "7", "3", "3"], 0.25)],
)
def test_flip_rate_by_hand(answers: Sequence[str], rate: float | None) -> None:
    assert elected(*answers) == rate


def test_to_abstain_is_an_answer_of_its_own() -> None:
    assert flip_rate([step(0, ["7", "3"]), step(1, ["5", "3"])]) == 0.0
    assert flip_rate([step(0, ["7", "7"]), step(1, ["7", "3"]), step(2, ["7", "7"])]) == 1.0


def test_two_texts_of_one_class_are_no_flip() -> None:
    both = BallotsRecord(answer_G=["0.5", "1/2"], invalid_G=[None, None], class_G=[0, 0], representative_C=["0.5"])
    vote = election(["0.5", "0.5"])
    merged = step(1, ["0.5", "0.5"], ballots=both, election=vote)
    assert flip_rate([step(0, ["1/2", "1/2"]), merged]) == 0.0
    assert flip_rate([merged, step(2, ["1/2", "1/2"])]) == 0.0
    assert flip_rate([merged, step(2, ["2", "2"])]) == 1.0


def test_steps_without_a_vote_stand_between_no_votes() -> None:
    assert flip_rate([step(0, ["7", "7"]), voteless(1), step(2, ["3", "3"])]) == 1.0
    assert flip_rate([voteless(0), voteless(1)]) is None


def test_the_flip_rate_of_a_run_is_over_its_questions() -> None:
    flipping = question(0, {}, [step(0, ["7"]), step(1, ["3"])])
    steady = question(1, {}, [step(0, ["7"]), step(1, ["7"]), step(2, ["7"])])
    once = question(2, {}, [step(0, ["7"])])
    summary = summarise([flipping, steady, once], NO_GRADES, {})
    assert summary["flip_rate"] == 0.5
    assert "flips .500" in before_after_table(summary)
    assert summarise([once], NO_GRADES, {})["flip_rate"] is None


def test_gated_votes_are_counted() -> None:
    doubted = step(1, ["7", "3", "3"], updated=False, gate="margin")
    finished = [question(0, {"base": poll(["7"])}, [step(0, ["7"]), doubted, step(2, ["7"], updated=False, gate="agreement")]),
                question(1, {"base": poll(["7"])}, [step(0, ["7"], updated=False, gate="margin")])]  # fmt: skip
    summary = summarise(finished, LABELLED, {})
    assert summary["votes"] == {"held": 4, "equal_rewards": 3, "gated": {"margin": 2, "agreement": 1, "risk": 0}}
    assert "4 held, 3 with equal rewards, gated 2 by margin, 1 by agreement" in before_after_table(summary)
    entries = json.loads(results_lines(finished).splitlines()[0])["steps"]
    assert [(entry["trained"], entry["gate"]) for entry in entries] == [(True, None), (False, "margin"), (False, "agreement")]


def test_equal_rewards_teach_nothing_or_with_the_estimator_reinforce_if_they_are_zero() -> None:
    """RESTRAIN's penalty gives all samples the reward -1, and such a step has an update."""
    finished = [question(0, {"base": poll(["7"])}, [step(0, ["7", "7"], reward_G=[-1.0, -1.0]), step(1, ["7", "7"], reward_G=[0.0, 0.0])])]
    counts = [summarise(finished, LABELLED, {}, {"adv_estimator": name})["votes"]["equal_rewards"] for name in ("grpo", "reinforce")]
    assert counts == [2, 1]


def test_the_majority_stands_beside_the_vote_of_the_run() -> None:
    own = election(["7", "7"])
    first = step(0, ["3", "3", "7", None])
    last = step(1, ["3", "3", "7", None], election=own, reward_G=[0.0, 0.0, 1.0, 0.0])
    score = score_vote(last, LABELLED.verdicts["q0"])
    assert score is not None
    assert (score.label_accuracy, score.majority_label_accuracy, score.reward_accuracy) == (1.0, 0.0, 1.0)
    summary = summarise([question(0, {"base": poll(["7"])}, [first, last])], LABELLED, {})
    assert (summary["label_accuracy"], summary["majority_label_accuracy"]) == (1.0, 0.0)
    assert (summary["first_vote"]["label_accuracy"], summary["first_vote"]["majority_label_accuracy"]) == (0.0, 0.0)
    assert "label accuracy 1.00, by majority .000" in before_after_table(summary)


def test_rewards_that_are_no_verdicts_have_no_accuracy() -> None:
    shares = question(0, {}, [step(0, ["7", "7", "3", "5"], reward_G=[0.5, 0.5, 0.25, 0.25])])
    unanimous = question(1, {}, [step(0, ["7", "7"])])
    assert summarise([shares, unanimous], LABELLED, {})["reward_accuracy"] is None
    assert summarise([unanimous], LABELLED, {})["reward_accuracy"] == 1.0
    unrewarded = question(0, {}, [step(0, ["7", "7"], reward_G=[])])
    assert summarise([unrewarded], LABELLED, {})["reward_accuracy"] is None


def test_a_method_without_votes() -> None:
    finished = [question(0, {"base": poll(["3", "7"], "3"), "adapted": poll(["7", "7"], "7")}, [voteless(0), voteless(1)])]
    (score,) = score_questions(finished, LABELLED)
    assert (score.votes, score.flip_rate) == ((), None)
    summary = summarise(finished, LABELLED, {})
    assert summary["gain"]["mean@k"] == 0.5
    assert summary["votes"]["held"] == 0
    assert {summary["first_vote"][name] for name in summary["first_vote"]} == {None}
    assert "none held" in before_after_table(summary)
    entry = json.loads(results_lines(finished))["steps"][0]
    assert entry == {"answer": None, "majority_ratio": None, "margin": None, "trained": True, "gate": None}


def test_metrics_of_a_step_without_a_vote() -> None:
    metrics = step_metrics(voteless(0))
    assert not [name for name in metrics if name.startswith(("vote/", "reward/"))]
    assert {*UPDATE_METRICS.values(), "tokens/sampled", "tokens/trained"} <= metrics.keys()


def test_what_an_update_did_not_measure_is_null() -> None:
    update = {
        "loss": 0.5,
        "logprob_gap_mean": None,
        "logprob_gap_max": None,
        "optimizer_steps": 4,
        "clip_fraction": 0.25,
        "value_loss": 1.5,
    }
    line = json.loads(metrics_lines([question(0, {}, [step(0, ["7"], update=update)])]))
    assert (line["update/optimizer_steps"], line["update/clip_fraction"], line["update/value_loss"]) == (4, 0.25, 1.5)
    assert line["update/logprob_gap_mean_nats"] is line["update/logprob_gap_max_nats"] is None


def test_confidence_elects_with_the_same_samples() -> None:
    vote = poll(["3", "3", "7", None], confidence="7")
    verdicts = {"7": True, "3": False}
    majority, confidence = vote.score(verdicts), vote.score_by_confidence(verdicts)
    assert (majority.metrics["maj@k"], confidence.metrics["maj@k"]) == (0.0, 1.0)
    assert {name: confidence.metrics[name] for name in ("greedy", "mean@k", "pass@k")} == {"greedy": None, "mean@k": 0.25, "pass@k": 1.0}


def test_the_row_of_the_confidence_vote() -> None:
    polls = {"base": poll(["7", "3", "3"], "3", confidence="7"), "adapted": poll(["7", "7", "3"], "7")}
    finished = [
        question(0, {**polls, "vote_same_tokens": poll(["3", "3", "3", "7"], confidence="7")}, [step(0, ["3", "3"])]),
        question(1, polls, [step(0, ["3", "3"])]),
    ]
    summary = summarise(finished, LABELLED, {})
    row, vote = summary["confidence_same_tokens"], summary["vote_same_tokens"]
    assert (vote["maj@k"], row["maj@k"]) == (0.0, 1.0), "where the vote was not taken the base poll stands, with its own confidence vote"
    assert [row[name] for name in ("greedy", "mean@k", "pass@k", "k")] == [vote[name] for name in ("greedy", "mean@k", "pass@k", "k")]
    assert summary["base"]["maj@k"] == 0.0
    assert "conf. (same tokens)  -" in before_after_table(summary)


def test_runs_without_a_vote_at_the_same_tokens_have_neither_row() -> None:
    summary = summarise([question(0, {"base": poll(["7"])})], LABELLED, {})
    assert (summary["vote_same_tokens"], summary["confidence_same_tokens"]) == (None, None)
    assert "same tokens" not in before_after_table(summary)


def test_a_gain_without_that_vote_says_so() -> None:
    polls = {"base": poll(["7", "3"], "7"), "adapted": poll(["7", "7"], "7")}
    table = before_after_table(summarise([question(0, polls, [step(0, ["7", "3"])])], LABELLED, {}))
    assert "The base did not vote with the tokens that adapting took" in table and "vote (same tokens)" not in table


def test_every_file_of_a_run_without_votes_is_written(tmp_path: Path) -> None:
    finished = [*a_run(), question(7, {"base": poll(["3"])}, [voteless(0)])]
    write_report(loaded(finished, LABELLED, folder=tmp_path))
    ratios = [row["ratios"] for row in held((tmp_path / "report.html").read_text()).runs[0]["questions"]]
    assert [bool(each) for each in ratios] == [True] * 4 + [False]
