"""Metrics against cases worked out by hand; the builders of records that the other report tests use too."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from sttrl.ledger.evaluated import right_samples
from sttrl.ledger.records import BallotsRecord, ElectionRecord, EvaluationRecord, FinishedQuestion, QuestionRecord, StepRecord
from sttrl.questions.records import METRICS, PollRecord, pass_at_k
from sttrl.report import NO_GRADES, Grades, summarise
from sttrl.report.labels import Verdicts
from sttrl.report.metrics import ROW_NAMES, VoteScore, score_questions, score_vote
from sttrl.report.tables import before_after_table

UPDATE = {
    "loss": -0.01, "grad_norm": 0.7, "lr": 1e-3, "embedding_lr": None, "kl_to_base": 0.002, "logprob_gap_mean": 0.01,
    "logprob_gap_max": 0.2,
    "logprob_correlation": 0.999, "tokens": 40, "micro_batches": 1, "optimizer_steps": 1, "clip_fraction": None, "value_loss": None,
    "tis_weight": None, "forking_share": None,
}  # fmt: skip


def ballots(answers: Sequence[str | None]) -> BallotsRecord:
    """Every different text is a class of its own; None is a sample cut at the token limit."""
    classes = list(dict.fromkeys(answer for answer in answers if answer is not None))
    return BallotsRecord(
        answer_G=list(answers),
        invalid_G=["cut" if answer is None else None for answer in answers],
        class_G=[None if answer is None else classes.index(answer) for answer in answers],
        representative_C=classes,
    )


def election(answers: Sequence[str | None]) -> ElectionRecord:
    """The majority vote; a tie abstains."""
    cast = [answer for answer in answers if answer is not None]
    classes = list(dict.fromkeys(cast))
    count_C = [cast.count(answer) for answer in classes]
    leaders = [c for c, count in enumerate(count_C) if count == max(count_C)]
    winner = leaders[0] if len(leaders) == 1 else None
    share_C = [count / len(cast) for count in count_C]
    second = sorted(share_C)[-2] if len(share_C) > 1 else 0.0
    return ElectionRecord(
        answer=None if winner is None else classes[winner], winner=winner, margin=0.0 if winner is None else share_C[winner] - second,
        share_C=share_C, tied_C=leaders if len(leaders) > 1 else [], voters=len(cast), samples=len(answers),
        majority_ratio=0.0 if winner is None else count_C[winner] / len(answers),
    )  # fmt: skip


def poll(answers: Sequence[str | None], greedy: Any = "unasked", confidence: Any = "majority") -> PollRecord:
    """A poll; ``confidence`` is what its confidence vote elects where that is not the majority's answer."""
    majority = election(answers)
    weighed = majority if confidence == "majority" else dataclasses.replace(majority, answer=confidence)
    asked = greedy != "unasked"
    return PollRecord(
        k=len(answers), greedy=asked, temperature=0.6, top_p=0.95, max_tokens=64, version=0,
        ballots=ballots([*answers, greedy] if asked else answers), election=majority, confidence=weighed,
        tokens=10 * len(answers),
    )  # fmt: skip


def step(index: int, answers: Sequence[str | None], *, updated: bool = True, **changes: Any) -> StepRecord:
    vote = election(answers)
    content: dict[str, Any] = {
        "step": index, "version": index, "ballots": ballots(answers), "election": vote, "majority": vote,
        "reward_G": [float(answer is not None and answer == vote.answer) for answer in answers], "gate": None,
        "tokens_sampled": 10 * len(answers), "tokens_trained": 40 if updated else 0, "update": dict(UPDATE) if updated else None,
        "seconds": {"sample": 1.5, "update": 0.5},
    }  # fmt: skip
    return StepRecord(**{**content, **changes})


def voteless(index: int) -> StepRecord:
    """A step of a method that holds no vote."""
    return step(index, ["7"], ballots=None, election=None, majority=None, reward_G=[])


def question(
    index: int, polls: dict[str, PollRecord], steps: Sequence[StepRecord] = (), evaluations: Mapping[int, PollRecord] | None = None,
    **changes: Any,
) -> FinishedQuestion:  # fmt: skip
    """A finished question; ``evaluations`` by the step after which they were made."""
    source = "adapted" if "adapted" in polls else "base" if "base" in polls else None
    content: dict[str, Any] = {
        "id": f"q{index}", "index": index, "attempt": 1, "status": "done", "stop": "steps" if steps else "no_adaptation", "error": None,
        "answer": polls[source].election.answer if source else None, "answer_source": source, "polls": polls, "steps": len(steps),
        "tokens_sampled": sum(s.tokens_sampled for s in steps), "tokens_trained": sum(s.tokens_trained for s in steps),
        "tokens_evaluated": sum(p.tokens for p in polls.values()), "seconds": {"sample": 3.0},
    }  # fmt: skip
    made = tuple(EvaluationRecord(step=after, poll=poll) for after, poll in (evaluations or {}).items())
    return FinishedQuestion(record=QuestionRecord(**{**content, **changes}), steps=tuple(steps), evaluations=made)


def a_run() -> list[FinishedQuestion]:
    """Four questions whose label is 7: one won, one lost, one unchanged because unanimous, one diverged."""
    return [
        question(0, {"base": poll(["7", "3", "3", None], "3"), "vote_same_tokens": poll(["7", "7", "3", "7", "3", "3", "3", None]),
                     "adapted": poll(["7", "7", "7", "3"], "7")}, [step(0, ["7", "7", "3", None]), step(1, ["7", "7", "7", "3"])]),
        question(1, {"base": poll(["7", "7", "5", "6"], "7"), "vote_same_tokens": poll(["7", "5"]),
                     "adapted": poll(["5", "5", "5", "7"], "5")}, [step(0, ["5", "5", "7", "7"]), step(1, ["5", "5", "5", "7"])]),
        question(2, {"base": poll(["7", "7", "7", "7"], "7"), "adapted": poll(["7", "7", "7", "7"], "7")},
                 [step(0, ["7", "7", "7", "7"], updated=False)], stop="unanimous"),
        question(3, {"base": poll([None, None, None, None], None)}, [step(0, ["1", "2", "2", None])], status="diverged", stop=None,
                 error="the loss is not finite"),
    ]  # fmt: skip


LABELLED = Grades(verdicts={f"q{number}": {"7": True, "1": False, "2": False, "3": False, "5": False, "6": None} for number in range(4)})


def voted(held: StepRecord, verdicts: Verdicts | None) -> VoteScore:
    """The score of a step that held a vote."""
    score = score_vote(held, verdicts)
    assert score is not None
    return score


def test_poll_by_hand() -> None:
    score = poll(["7", "3", "3", None], "7").score({"7": True, "3": False})
    assert score.k == 4
    assert score.metrics == {"greedy": 1.0, "mean@k": 0.25, "maj@k": 0.0, "pass@k": 1.0}


@pytest.mark.parametrize("answers", [["7", "3"], [None, None]])
def test_an_abstaining_vote_is_wrong(answers: list[str | None]) -> None:
    assert poll(answers).score({"7": True}).metrics["maj@k"] == 0.0
    assert voted(step(0, answers), {"7": True}).label_accuracy == 0.0


def test_greedy_is_not_among_the_samples() -> None:
    assert poll(["3", "3"], "7").score({"7": True}).metrics == {"greedy": 1.0, "mean@k": 0.0, "maj@k": 0.0, "pass@k": 0.0}
    assert poll(["3", "3"]).score({"7": True}).metrics["greedy"] is None


def test_a_cut_sample_is_wrong_and_earns_nothing() -> None:
    cut = step(0, ["7", "7", None])
    assert cut.reward_G == [1.0, 1.0, 0.0]
    assert right_samples(ballots(["7", "7", None]), {"7": True}) == (True, True, False)
    assert voted(cut, {"7": True}).reward_accuracy == 1.0


def test_an_ungraded_answer_is_wrong() -> None:
    assert right_samples(ballots(["6", "7"]), {"6": None, "7": True}) == (False, True)


def test_vote_by_hand() -> None:
    score = voted(step(0, ["3", "3", "7", None]), {"3": False, "7": True})
    assert (score.majority_ratio, score.label_accuracy, score.ground_truth_ratio) == (0.5, 0.0, 0.25)
    assert score.reward_accuracy == 0.25  # only the cut sample has the reward that it deserves
    unlabelled = voted(step(0, ["3", "3", "7", None]), None)
    assert (unlabelled.majority_ratio, unlabelled.label_accuracy, unlabelled.reward_accuracy) == (0.5, None, None)


def test_pass_at_k_is_the_unbiased_estimator() -> None:
    assert pass_at_k(4, 1, 4) == 1.0
    assert pass_at_k(4, 0, 4) == 0.0
    assert pass_at_k(4, 1, 2) == pytest.approx(0.5)
    assert pass_at_k(5, 2, 2) == pytest.approx(1 - 3 / 10)


def test_what_changed() -> None:
    assert [score.change for score in score_questions(a_run(), LABELLED)] == [1, -1, 0, 0]


def test_a_failed_question_reports_its_base() -> None:
    failed = question(0, {"base": poll(["7", "3"]), "adapted": poll(["3", "3"])}, [step(0, ["7", "3"])], status="failed")
    (score,) = score_questions([failed], LABELLED)
    assert score.adapted == score.base
    assert score.change == 0


def test_summary_by_hand() -> None:
    summary = summarise(a_run(), LABELLED, {"total": 12.00049, "start_up": 3})
    rows = [row for row in (*ROW_NAMES, "gain") if row != "early_same_tokens"]
    assert summary["early_same_tokens"] is None, "votes could not end early"
    means = {key: [summary[key][m] for m in METRICS.all] for key in rows}
    assert means["base"] == [0.5, (0.25 + 0.5 + 1 + 0) / 4, 0.5, 0.75]
    assert means["vote_same_tokens"] == [None, (3 / 8 + 0.5 + 1 + 0) / 4, 0.25, 0.75]
    assert means["confidence_same_tokens"] == means["vote_same_tokens"]
    assert means["adapted"] == [0.5, (0.75 + 0.25 + 1 + 0) / 4, 0.5, 0.75]
    assert means["gain"] == [0.0, 0.25 / 4, 0.0, 0.0]
    assert summary["base"]["k"] == 4
    assert summary["vote_same_tokens"]["k"] == (8 + 2 + 4 + 4) / 4
    assert summary["seconds"] == {"total": 12.0, "start_up": 3}
    assert summary["tokens"] == {"sampled": 240, "trained": 200, "evaluated": 380}
    assert summary["timeouts"] == 4


def test_summary_counts_and_votes_by_hand() -> None:
    summary = summarise(a_run(), LABELLED, {})
    counts = dict(summary["questions"])
    assert len(counts.pop("ids_sha256")) == 16
    assert counts == {
        "total": 4, "graded": 4, "unlabelled": 0, "unpolled": 0, "won": 1, "lost": 1, "unchanged": 2,
        "done": 3, "failed": 0, "diverged": 1, "oom": 0, "stops": {"steps": 2, "unanimous": 1},
    }  # fmt: skip
    assert summary["label_accuracy"] == 0.5
    assert summary["majority_ratio"] == (0.75 + 0.75 + 1 + 0.5) / 4
    assert summary["majority_label_accuracy"] == 0.5
    assert summary["ground_truth_ratio"] == (0.75 + 0.25 + 1 + 0) / 4
    assert summary["reward_accuracy"] == (1 + 0 + 1 + 0.5) / 4
    assert summary["first_vote"]["label_accuracy"] == summary["first_vote"]["majority_label_accuracy"] == 0.5
    assert summary["first_vote"]["majority_ratio"] == (0.5 + 0 + 1 + 0.5) / 4


def test_what_adapting_made_of_right_and_of_wrong_first_votes() -> None:
    run = a_run()
    scores = score_questions(run, LABELLED)
    kinds = {kind: [score for score in scores if score.votes and score.votes[0].label_accuracy == float(kind)] for kind in (True, False)}
    assert [len(of) for of in kinds.values()] == [2, 2]
    summary = summarise(run, LABELLED, {})
    for name, kind in (("right", True), ("wrong", False)):
        both = [(score.base.headline, score.adapted.headline) for score in kinds[kind] if score.base and score.adapted]
        before, after = (sum(values) / len(both) for values in zip(*both, strict=True))
        assert summary["by_first_vote"][name] == {"questions": 2, "base": before, "adapted": after}
    line = next(line for line in before_after_table(summary).splitlines() if line.startswith("1st votes"))
    assert line.startswith("1st votes right in 2 (mean@4 ") and "wrong or none in 2 (mean@4 " in line
    assert summarise(run, NO_GRADES, {})["by_first_vote"] is None
    unvoted = [question(number, {"base": poll(["7", "3"], "7")}) for number in range(3)]
    assert "\n1st votes -\n" in before_after_table(summarise(unvoted, LABELLED, {}))


def test_the_headline_interval_is_that_of_the_mean() -> None:
    summary = summarise(a_run(), LABELLED, {})
    for block in filter(None, (summary[key] for key in (*ROW_NAMES, "gain"))):
        assert block["ci95"] == block["ci95_by_metric"]["mean@k"]
        low, high = block["ci95"]
        assert low <= block["mean@k"] <= high


def test_without_labels_agreement_is_left() -> None:
    summary = summarise(a_run(), NO_GRADES, {})
    accuracies = ("label_accuracy", "majority_label_accuracy", "reward_accuracy", "ground_truth_ratio")
    assert [summary[key] for key in (*ROW_NAMES, "gain", *accuracies)] == [None] * 10
    assert summary["majority_ratio"] == 0.75
    assert (summary["questions"]["graded"], summary["questions"]["unlabelled"], summary["questions"]["won"]) == (0, 4, None)


def test_questions_without_a_label_are_left_out() -> None:
    grades = Grades(verdicts={"q0": LABELLED.verdicts["q0"]})
    summary = summarise(a_run(), grades, {})
    assert (summary["base"]["mean@k"], summary["base"]["questions"]) == (0.25, 1)
    assert (summary["questions"]["graded"], summary["questions"]["unlabelled"]) == (1, 3)


def test_method_none_has_no_adapted_and_no_gain() -> None:
    finished = [question(number, {"base": poll(["7", "3"], "7")}) for number in range(3)]
    summary = summarise(finished, LABELLED, {})
    absent = ("adapted", "gain", "vote_same_tokens", "confidence_same_tokens", "majority_ratio", "flip_rate", "over_time")
    assert [summary[key] for key in absent] == [None] * 7
    assert summary["votes"] == {"held": 0, "equal_rewards": 0, "gated": {"margin": 0, "agreement": 0, "risk": 0}}
    assert summary["base"]["mean@k"] == 0.5
    assert summary["questions"]["won"] is None


def test_an_empty_run_and_one_without_polls() -> None:
    assert summarise([], NO_GRADES, {})["questions"]["total"] == 0
    unpolled = question(0, {}, status="failed", stop=None, error="no room")
    summary = summarise([unpolled], LABELLED, {})
    assert summary["base"] is None
    assert (summary["questions"]["unpolled"], summary["questions"]["failed"]) == (1, 1)
