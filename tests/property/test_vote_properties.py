"""What holds for every election."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sttrl.types import Answer, Ballots
from sttrl.voting import VoteConfig, elect, majority

LABELS = st.lists(st.one_of(st.none(), st.sampled_from("abcde")), max_size=40)


def ballots(labels: list[str | None]) -> Ballots:
    numbers: dict[str, int] = {}
    class_G = tuple(None if x is None else numbers.setdefault(x, len(numbers)) for x in labels)
    answers = tuple(Answer(text=None, invalid="cut") if x is None else Answer(text=x) for x in labels)
    return Ballots(answer_G=answers, class_G=class_G, representative_C=tuple(numbers))


@given(LABELS, st.floats(1e-6, 1e6), st.sampled_from(["abstain", "first"]))
def test_equal_weights_are_a_majority(labels: list[str | None], weight: float, ties: str) -> None:
    votes = ballots(labels)
    weighted, plain = elect(votes, [weight] * len(labels), ties), majority(votes, VoteConfig(ties=ties))  # type: ignore[arg-type]
    assert (weighted.winner, weighted.tied_C, weighted.agreement_G) == (plain.winner, plain.tied_C, plain.agreement_G)
    assert weighted.share_C == pytest.approx(plain.share_C)


@given(st.data(), LABELS)
def test_the_order_of_the_samples_does_not_matter(data: st.DataObject, labels: list[str | None]) -> None:
    weights = data.draw(st.lists(st.floats(0, 1e9), min_size=len(labels), max_size=len(labels)))
    order = data.draw(st.permutations(range(len(labels))))
    straight = elect(ballots(labels), weights, "abstain")
    shuffled = elect(ballots([labels[i] for i in order]), [weights[i] for i in order], "abstain")
    assert shuffled.answer == straight.answer
    assert shuffled.margin == straight.margin
    assert shuffled.agreement_G == tuple(straight.agreement_G[i] for i in order)


@given(st.data(), LABELS)
def test_an_election_adds_up(data: st.DataObject, labels: list[str | None]) -> None:
    weights = data.draw(st.lists(st.floats(0, 1e300), min_size=len(labels), max_size=len(labels)))
    election = elect(ballots(labels), weights, "first")
    assert election.samples == len(labels) and election.voters == sum(election.count_C) == len([x for x in labels if x is not None])
    assert 0 <= election.margin <= 1 and 0 <= election.majority_ratio <= 1
    assert math.fsum(election.share_C) == pytest.approx(1.0 if any(election.share_C) else 0.0)
    if election.winner is not None:
        assert election.share_C[election.winner] == pytest.approx(max(election.share_C))
        assert sum(election.agreement_G) == election.count_C[election.winner]
    assert all(a == 0.0 for a, x in zip(election.agreement_G, labels, strict=True) if x is None)
    if election.tied_C:
        assert election.margin == 0.0 and len(election.tied_C) > 1
