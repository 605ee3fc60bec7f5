"""Elections over equivalence classes."""

from __future__ import annotations

import math

import pytest

from sttrl.types import Answer, Ballots
from sttrl.voting import VOTES, VoteConfig, elect, majority


def ballots(*class_G: int | None) -> Ballots:
    representatives = tuple(f"form {c}" for c in range(len({c for c in class_G if c is not None})))
    answers = tuple(Answer(text=None, invalid="unparsable") if c is None else Answer(text=representatives[c]) for c in class_G)
    return Ballots(answer_G=answers, class_G=class_G, representative_C=representatives)


def test_the_registry_holds_what_exists() -> None:
    assert dict(VOTES) == {"majority": majority}


def test_majority_counts_classes_and_records_the_margin() -> None:
    election = majority(ballots(0, 1, 1, None, 1, 0), VoteConfig())
    assert (election.winner, election.answer) == (1, "form 1")
    assert election.count_C == (2, 3) and election.share_C == (0.4, 0.6)
    assert election.margin == pytest.approx(0.2) and election.tied_C == ()
    assert (election.voters, election.samples, election.majority_ratio) == (5, 6, 0.5)
    assert election.agreement_G == (0.0, 1.0, 1.0, 0.0, 1.0, 0.0)
    assert not election.unanimous and not election.abstains


def test_the_voteless_never_win_however_many_they_are() -> None:
    election = majority(ballots(None, None, None, 0), VoteConfig())
    assert election.winner == 0 and election.majority_ratio == 0.25 and election.agreement_G == (0.0, 0.0, 0.0, 1.0)


@pytest.mark.parametrize("class_G", [(), (None,), (None, None)])
def test_nobody_voting_elects_nobody(class_G: tuple[int | None, ...]) -> None:
    election = majority(ballots(*class_G), VoteConfig(ties="first"))
    assert election.abstains and election.answer is None and election.share_C == () and election.majority_ratio == 0.0
    assert not any(election.agreement_G)


def test_a_tie_abstains_and_is_recorded() -> None:
    election = majority(ballots(0, 1, 2, 1, 0), VoteConfig())
    assert election.abstains and election.tied_C == (0, 1) and election.margin == 0.0
    assert election.agreement_G == (0.0,) * 5


def test_a_tie_goes_to_the_first_seen() -> None:
    election = majority(ballots(0, 1, 2, 2, 1), VoteConfig(ties="first"))
    assert election.winner == 1 and election.tied_C == (1, 2) and election.margin == 0.0


def test_a_tie_goes_to_the_more_confident_class() -> None:
    votes = ballots(0, 1, 0, 1, None)
    assert elect(votes, [1.0] * 5, "confidence", [0.1, 0.9, 0.2, 0.8, 9.0]).winner == 1
    undecided = elect(votes, [1.0] * 5, "confidence", [0.5] * 5)
    assert undecided.abstains and undecided.tied_C == (0, 1)


def test_weights_decide_against_the_count() -> None:
    election = elect(ballots(0, 0, 1), [0.1, 0.2, 0.9], "abstain")
    assert election.winner == 1 and election.count_C == (2, 1) and election.majority_ratio == pytest.approx(1 / 3)
    assert math.fsum(election.share_C) == pytest.approx(1.0)


def test_sums_that_differ_only_by_rounding_are_a_tie() -> None:
    assert elect(ballots(0, 0, 0, 1), [0.1, 0.1, 0.1, 0.3], "abstain").tied_C == (0, 1)
    assert elect(ballots(0, 1), [1.0, 1.0 + 1e-9], "abstain").winner == 1


def test_weights_that_are_all_zero_elect_nobody() -> None:
    election = elect(ballots(0, 1), [0.0, 0.0], "first")
    assert election.abstains and election.share_C == (0.0, 0.0)


def test_great_weights_do_not_overflow() -> None:
    assert elect(ballots(0, 0, 1), [1e308, 1e308, 1e308], "abstain").winner == 0


@pytest.mark.parametrize("weight", [math.nan, math.inf, -math.inf, -1.0])
def test_a_weight_that_is_no_weight_is_an_error(weight: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        elect(ballots(0, None), [1.0, weight], "abstain")


def test_missing_weights_or_confidences_are_errors() -> None:
    with pytest.raises(ValueError, match="2 samples"):
        elect(ballots(0, 1), [1.0], "abstain")
    with pytest.raises(ValueError, match="confidence"):
        elect(ballots(0, 1), [1.0, 1.0], "confidence")
    with pytest.raises(ValueError, match="finite"):
        elect(ballots(0, 1), [1.0, 1.0], "confidence", [math.nan, 1.0])


def test_unanimous_means_every_sample() -> None:
    assert majority(ballots(0, 0), VoteConfig()).unanimous
    assert not majority(ballots(0, None), VoteConfig()).unanimous
