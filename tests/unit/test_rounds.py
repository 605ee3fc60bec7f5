"""The adaptive vote by hand: its rounds, when it is decided, which settings it refuses, and what is said to be saved."""

from __future__ import annotations

import dataclasses
from functools import partial

import pytest
from test_report_metrics import LABELLED, poll, question, step, voteless

from sttrl.config import RunConfig
from sttrl.errors import UsageError
from sttrl.ledger.records import ElectionRecord
from sttrl.report import summarise
from sttrl.report.comparison import ComparedRun, compare_table
from sttrl.report.tables import before_after_table
from sttrl.types import Answer, Ballots, Election
from sttrl.voting import VoteConfig, harmony, majority
from sttrl.voting.rounds import is_decided, replayed, rounds


@pytest.mark.parametrize(
    ("samples", "first", "counts"),
    [
        (64, 2, (2, 4, 8, 16, 32, 64)), (64, 4, (4, 8, 16, 32, 64)), (5, 2, (2, 4, 5)), (5, 4, (4, 5)), (8, 2, (2, 4, 8)),
        (8, 3, (3, 6, 8)), (12, 4, (4, 8, 12)), (4, 4, (4,)), (3, 4, (3,)), (1, 2, (1,)),
    ],
)  # fmt: skip
def test_rounds_double_up_to_the_most(samples: int, first: int, counts: tuple[int, ...]) -> None:
    assert rounds(samples, 0.75, first) == counts and rounds(samples, None, first) == (samples,)


def ballots(*answers: str | None) -> Ballots:
    """Ballots of these answers; None: a sample without one."""
    classes = tuple(dict.fromkeys(answer for answer in answers if answer is not None))
    return Ballots(
        answer_G=tuple(Answer(text=text, invalid=None if text is not None else "cut") for text in answers),
        class_G=tuple(None if text is None else classes.index(text) for text in answers),
        representative_C=classes,
    )


def by_majority(cast: Ballots) -> Election:
    """The majority vote; a tie abstains."""
    return majority(cast, VoteConfig())


def elected(*answers: str | None) -> Election:
    """The majority vote on these answers."""
    return by_majority(ballots(*answers))


@pytest.mark.parametrize(
    ("answers", "until", "decided"),
    [
        (("7", "7", "7", "3"), 0.75, True),
        (("7", "7", "7", "3"), 0.76, False),
        (("7", "7", "7", None), 1.0, False),
        (("7", "7", "7", "7"), 1.0, True),
        (("7", "7", None, None), 0.51, False),
        (("7", "7", "3", "3"), 0.51, False),
        ((None, None, None, None), 0.51, False),
        (("7", "7", "7", "7"), None, False),
    ],
)
def test_a_vote_is_decided_by_its_share_of_all_samples(answers: tuple[str | None, ...], until: float | None, decided: bool) -> None:
    assert is_decided(elected(*answers), until) is decided


@pytest.mark.parametrize(
    ("until", "first", "samples", "answer"),
    [(0.51, 2, 4, "7"), (0.75, 2, 4, "7"), (0.76, 2, 9, "3"), (0.6, 8, 8, "3"), (0.51, 3, 3, "7"), (0.51, 16, 9, "3")],
)
def test_a_vote_in_rounds_on_samples_that_exist(until: float, first: int, samples: int, answer: str) -> None:
    """After 2 samples there is a tie. 7 has two of the first 3 and three of the first 4, 3 has five of the first 8 and six of all 9."""
    answers = ["7", "3", "7", "7", *["3"] * 5]
    found = replayed(ballots(*answers), by_majority, until, first)
    assert (found.samples, found.answer) == (samples, answer)
    assert found == elected(*answers[:samples]), "as if no other sample existed"


def test_a_vote_in_rounds_reads_the_views_of_its_own_samples_only() -> None:
    """After 2 samples no answer was given under both views, after 4 samples only 7 was."""
    cast = dataclasses.replace(ballots("7", "3", "7", "7", "3", "3"), view_G=(0, 1, 0, 1, 0, 1))
    found = replayed(cast, partial(harmony, config=VoteConfig()), 0.75)
    assert (found.samples, found.answer) == (4, "7")


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"votes_until": 0.5}, "--votes_until is 0.5"),
        ({"votes_until": 1.1}, "--votes_until is 1.1"),
        ({"votes_until": float("nan")}, "--votes_until is nan"),
        ({"votes_until": 0.75, "adaptation_method": "none"}, "--votes_until 0.75 does nothing with --adaptation_method none"),
        ({"votes_until": 0.75, "adaptation_method": "memo"}, "--votes_until 0.75 does nothing with --adaptation_method memo"),
        ({"votes_until": 0.75, "n_votes": 2, "n_train": 2}, "--votes_until 0.75 does nothing with --n_votes 2.*--votes_first 2"),
        ({"votes_until": 0.75, "n_votes": 8, "n_train": 4, "votes_first": 8}, "--votes_until 0.75 does nothing with --n_votes 8"),
        ({"votes_first": 8}, "--votes_first 8 does nothing without --votes_until"),
        ({"votes_until": 0.75, "votes_first": 1}, "--votes_first is 1"),
    ],
)
def test_a_share_that_decides_nothing_is_refused(settings: dict[str, object], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint.replace("(", r"\(")):
        RunConfig.of(**settings)


def test_what_is_saved_is_counted_in_samples_and_estimated_in_tokens() -> None:
    """Three votes of at most 16: 4 samples with 10 tokens each, 8 with 20, and 16; so 12 and 8 are left, about 12 * 10 + 8 * 20 tokens."""
    finished = [
        question(0, {}, [step(0, ["7"] * 4), step(1, ["7"] * 6 + ["3"] * 2, tokens_sampled=160), voteless(2)]),
        question(1, {}, [step(0, ["7"] * 8 + ["3"] * 8)]),
    ]
    summary = summarise(finished, LABELLED, {}, {"votes_until": 0.75, "n_votes": 16})
    assert summary["saved"] == {"samples": 20, "tokens": 280, "vote_tokens": None, "early_vote_tokens": None}
    table = before_after_table(summary)
    assert "20 samples not drawn, about 280 tokens by the mean length of" in " ".join(table.split())


def test_the_vote_with_the_same_tokens_in_rounds_is_a_row_of_the_table() -> None:
    """Question 0: 3 3 | 7 7 7, so two samples elect 3 and all five elect 7. Question 1 has no such vote: its base poll stands, whole."""
    vote = dataclasses.replace(poll(["3", "3", "7", "7", "7"]), early=ElectionRecord.of(elected("3", "3")), early_tokens=20)
    base = poll(["7", "7", "3", "5"], "7")
    finished = [question(0, {"base": base, "vote_same_tokens": vote}, [step(0, ["7"] * 2)]), question(1, {"base": base})]
    summary = summarise(finished, LABELLED, {}, {"votes_until": 0.75, "n_votes": 16})
    early, whole = summary["early_same_tokens"], summary["vote_same_tokens"]
    assert (early["k"], early["maj@k"], early["mean@k"]) == (3, whole["maj@k"] - 0.5, (0 + 0.5) / 2)
    assert (summary["saved"]["vote_tokens"], summary["saved"]["early_vote_tokens"]) == (50, 20)
    table = " ".join(before_after_table(summary).split())
    assert "early (same tokens) -" in table and "the first of them, 3 a question, once it is decided" in table
    assert "the vote with the same tokens needs 20 of its 50 if it ends early" in table


def test_a_run_without_it_has_saved_nothing_and_says_nothing() -> None:
    finished = [question(0, {}, [step(0, ["7"] * 4)])]
    for config in ({}, {"n_votes": 16}, {"n_votes": 16, "votes_until": None}):
        summary = summarise(finished, LABELLED, {}, config)
        assert summary["saved"] is None and summary["early_same_tokens"] is None and "not drawn" not in before_after_table(summary)


def test_a_run_with_it_is_compared_with_one_without() -> None:
    finished = [question(0, {}, [step(0, ["7"] * 4)])]
    runs = [
        ComparedRun(name=name, summary=summarise(finished, LABELLED, {}, config), config=config, finished=finished, grades=LABELLED)
        for name, config in (("full", {"n_votes": 4}), ("early", {"n_votes": 16, "votes_until": 0.75}))
    ]
    for order in (runs, runs[::-1]):
        assert "12 samples not drawn" in " ".join(compare_table(order).split())
