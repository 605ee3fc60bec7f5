"""Which samples of a vote are trained on, by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sttrl.objectives.train_samples import TRAIN_SAMPLES, balanced, first
from sttrl.types import Answer, Ballots, Election
from sttrl.voting import VoteConfig, majority

LABELS = st.lists(st.none() | st.sampled_from("abcd"), min_size=2, max_size=30)


def vote(labels: list[str | None]) -> tuple[Ballots, Election]:
    numbers: dict[str, int] = {}
    ballots = Ballots(
        answer_G=tuple(Answer(text=None, invalid="unparsable") if label is None else Answer(text=label) for label in labels),
        class_G=tuple(None if label is None else numbers.setdefault(label, len(numbers)) for label in labels),
        representative_C=tuple(numbers),
    )
    return ballots, majority(ballots, VoteConfig())


@pytest.mark.parametrize(
    ("text", "count", "chosen"),
    [
        # a wins with 5, b has 3, c 1, and one has no answer (-): the first winners up to half, no answer, c, and then b
        ("aabbab-aca", 4, "aa-c"),
        ("aabbab-aca", 6, "aaba-c"),
        # one winner more than losers: winners fill the places
        ("aaaaaab", 6, "aaaaab"),
        # fewer winners than half
        ("aabcdefg", 6, "aabcde"),
        # nobody wins: the rarest alone
        ("aabbc-", 4, "aac-"),
    ],
)
def test_balanced_by_hand(text: str, count: int, chosen: str) -> None:
    labels = [None if letter == "-" else letter for letter in text]
    assert "".join(text[i] for i in balanced(*vote(labels), count)) == chosen


def test_the_first_of_the_equally_rare_are_taken() -> None:
    assert balanced(*vote(list("abcadae")), 4) == (0, 1, 2, 3)


@pytest.mark.parametrize("name", TRAIN_SAMPLES)
@given(labels=LABELS, count=st.integers(2, 40))
def test_as_many_as_asked_for_each_once_in_order(name: str, labels: list[str | None], count: int) -> None:
    chosen = TRAIN_SAMPLES[name](*vote(labels), count)  # type: ignore[index]
    assert list(chosen) == sorted(set(chosen)) and len(chosen) == min(count, len(labels)) and set(chosen) <= set(range(len(labels)))


@given(labels=LABELS, count=st.integers(2, 40))
def test_a_balanced_choice_has_a_winner_and_a_loser_where_there_are_both(labels: list[str | None], count: int) -> None:
    ballots, election = vote(labels)
    found = {election.in_winner_G[i] for i in balanced(ballots, election, count)}
    assert found == set(election.in_winner_G)
    assert first(ballots, election, count) == tuple(range(min(count, len(labels))))
