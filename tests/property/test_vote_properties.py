"""What holds for every election and every vote."""

from __future__ import annotations

import dataclasses
import math
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sttrl.config import ConfidenceKind, EnergyKind
from sttrl.types import Answer, Ballots, Stat, TokenStats
from sttrl.voting import VOTES, TiePolicy, VoteConfig, elect, majority
from sttrl.voting.confidence import confidence_weights, group_means, lowest_tenth
from sttrl.voting.energy import energy_weights

LABELS = st.lists(st.one_of(st.none(), st.sampled_from("abcde")), max_size=40)
VOTE_NAMES = st.sampled_from(tuple(VOTES))
CONFIGS = st.builds(
    VoteConfig,
    ties=st.sampled_from(get_args(TiePolicy)),
    energy=st.sampled_from(get_args(EnergyKind)),
    energy_tau=st.none() | st.floats(0.01, 100),
    confidence=st.sampled_from(get_args(ConfidenceKind)),
    window=st.integers(1, 12),
)
TOKENS = st.lists(st.floats(1e-3, 40), min_size=1, max_size=20).map(tuple)


def ballots(labels: list[str | None]) -> Ballots:
    """The ballots of samples that all answer one view, where harmony goes by plain frequencies."""
    numbers: dict[str, int] = {}
    class_G = tuple(None if x is None else numbers.setdefault(x, len(numbers)) for x in labels)
    answers = tuple(Answer(text=None, invalid="cut") if x is None else Answer(text=x) for x in labels)
    return Ballots(answer_G=answers, class_G=class_G, representative_C=tuple(numbers), view_G=(0,) * len(labels))


def stats(value_T: tuple[float, ...]) -> TokenStats:
    """Every statistic from the same positive numbers; a log-prob is a negative one."""
    return TokenStats(**{f"{stat}_T": tuple(-v for v in value_T) if stat == "logprob" else value_T for stat in get_args(Stat)})


def measured(labels: list[str | None], value_GT: list[tuple[float, ...]]) -> Ballots:
    """The ballots with these values of every token of every sample. A reasoning step has two tokens."""
    steps_GT = tuple(tuple(place // 2 for place in range(len(value_T))) for value_T in value_GT)
    return dataclasses.replace(ballots(labels), stats_G=tuple(map(stats, value_GT)), reasoning_step_GT=steps_GT)


@given(LABELS, st.floats(1e-6, 1e6), st.sampled_from(["abstain", "first"]))
def test_equal_weights_are_a_majority(labels: list[str | None], weight: float, ties: str) -> None:
    votes = ballots(labels)
    weighted, plain = elect(votes, [weight] * len(labels), ties), majority(votes, VoteConfig(ties=ties))  # type: ignore[arg-type]
    assert (weighted.winner, weighted.tied_C, weighted.in_winner_G) == (plain.winner, plain.tied_C, plain.in_winner_G)
    assert weighted.share_C == pytest.approx(plain.share_C)


@given(st.data(), LABELS)
def test_the_order_of_the_samples_does_not_matter(data: st.DataObject, labels: list[str | None]) -> None:
    weights = data.draw(st.lists(st.floats(0, 1e9), min_size=len(labels), max_size=len(labels)))
    order = data.draw(st.permutations(range(len(labels))))
    straight = elect(ballots(labels), weights, "abstain")
    shuffled = elect(ballots([labels[i] for i in order]), [weights[i] for i in order], "abstain")
    assert shuffled.answer == straight.answer
    assert shuffled.margin == straight.margin
    assert shuffled.in_winner_G == tuple(straight.in_winner_G[i] for i in order)


@given(st.data(), LABELS)
def test_an_election_adds_up(data: st.DataObject, labels: list[str | None]) -> None:
    weights = data.draw(st.lists(st.floats(0, 1e300), min_size=len(labels), max_size=len(labels)))
    election = elect(ballots(labels), weights, "first")
    assert election.samples == len(labels) and election.voters == sum(election.count_C) == len([x for x in labels if x is not None])
    assert 0 <= election.margin <= 1 and 0 <= election.majority_ratio <= 1
    assert math.fsum(election.share_C) == pytest.approx(1.0 if any(election.share_C) else 0.0)
    if election.winner is not None:
        assert election.share_C[election.winner] == pytest.approx(max(election.share_C))
        assert sum(election.in_winner_G) == election.count_C[election.winner]
    assert all(a == 0.0 for a, x in zip(election.in_winner_G, labels, strict=True) if x is None)
    if election.tied_C:
        assert election.margin == 0.0 and len(election.tied_C) > 1


@given(VOTE_NAMES, CONFIGS, LABELS, TOKENS)
def test_samples_that_are_all_the_same_hold_a_majority_vote(
    name: str, config: VoteConfig, labels: list[str | None], value_T: tuple[float, ...]
) -> None:
    votes = measured(labels, [value_T] * len(labels))
    election, plain = VOTES[name](votes, config), majority(votes, config)
    assert election.share_C == pytest.approx(plain.share_C) and election.margin == pytest.approx(plain.margin)
    assert dataclasses.replace(election, share_C=(), margin=0.0) == dataclasses.replace(plain, share_C=(), margin=0.0)


@given(VOTE_NAMES, CONFIGS, LABELS, st.floats(1e-3, 40), st.data())
def test_one_token_repeated_weighs_the_same_at_any_length(
    name: str, config: VoteConfig, labels: list[str | None], value: float, data: st.DataObject
) -> None:
    lengths = data.draw(st.lists(st.integers(1, 60), min_size=len(labels), max_size=len(labels)))
    # A tau far below the energies would make weights of the rounding of their means.
    config = dataclasses.replace(config, energy_tau=None)
    election = VOTES[name](measured(labels, [(value,) * n for n in lengths]), config)
    plain = majority(measured(labels, [(value,)] * len(labels)), config)
    assert (election.winner, election.tied_C, election.in_winner_G) == (plain.winner, plain.tied_C, plain.in_winner_G)
    assert election.share_C == pytest.approx(plain.share_C)


@given(VOTE_NAMES, CONFIGS, LABELS, st.data())
def test_no_vote_depends_on_the_order_of_the_samples(name: str, config: VoteConfig, labels: list[str | None], data: st.DataObject) -> None:
    values = data.draw(st.lists(TOKENS, min_size=len(labels), max_size=len(labels)))
    order = data.draw(st.permutations(range(len(labels))))
    config = dataclasses.replace(config, ties="confidence" if config.ties == "first" else config.ties)
    straight = VOTES[name](measured(labels, values), config)
    shuffled = VOTES[name](measured([labels[i] for i in order], [values[i] for i in order]), config)
    assert (shuffled.answer, shuffled.margin, shuffled.voters) == (straight.answer, straight.margin, straight.voters)
    assert shuffled.in_winner_G == tuple(straight.in_winner_G[i] for i in order)


@given(VOTE_NAMES, CONFIGS, LABELS, st.data())
def test_the_voteless_move_no_vote(name: str, config: VoteConfig, labels: list[str | None], data: st.DataObject) -> None:
    values = data.draw(st.lists(TOKENS, min_size=len(labels), max_size=len(labels)))
    voting = [i for i, label in enumerate(labels) if label is not None]
    everybody = VOTES[name](measured(labels, values), config)
    voters = VOTES[name](measured([labels[i] for i in voting], [values[i] for i in voting]), config)
    assert (everybody.winner, everybody.share_C, everybody.margin) == (voters.winner, voters.share_C, voters.margin)
    assert all(a == 0.0 for a, label in zip(everybody.in_winner_G, labels, strict=True) if label is None)


@given(CONFIGS, LABELS, st.data())
def test_weights_are_weights(config: VoteConfig, labels: list[str | None], data: st.DataObject) -> None:
    values = data.draw(st.lists(TOKENS, min_size=len(labels), max_size=len(labels)))
    votes = measured(labels, values)
    for weight_G in (energy_weights(votes, config), confidence_weights(votes, config)):
        assert all(math.isfinite(w) and w >= 0 for w in weight_G)
        assert all(w == 0.0 for w, label in zip(weight_G, labels, strict=True) if label is None)
    assert max(energy_weights(votes, config), default=1.0) == (1.0 if any(labels) or not labels else 0.0)


@given(LABELS, st.data(), st.integers(-50, 50), st.sampled_from(get_args(EnergyKind)), st.none() | st.floats(1, 100))
def test_a_shift_of_all_energies_changes_no_weight(
    labels: list[str | None], data: st.DataObject, shift: int, kind: EnergyKind, tau: float | None
) -> None:
    # Quarters and whole shifts, so that the shifted numbers and their sums are exact.
    tokens = st.lists(st.integers(-160, 160).map(lambda i: i / 4), min_size=1, max_size=8).map(tuple)
    values = data.draw(st.lists(tokens, min_size=len(labels), max_size=len(labels)))
    config = VoteConfig(energy=kind, energy_tau=tau)
    shifted = [tuple(v + shift for v in value_T) for value_T in values]
    assert energy_weights(measured(labels, shifted), config) == pytest.approx(energy_weights(measured(labels, values), config), rel=1e-9)


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=60), st.integers(1, 80))
def test_sliding_means_are_the_means_of_slices(values: list[float], window: int) -> None:
    means = [math.fsum(group) / len(group) for group in (values[i : i + window] for i in range(max(1, len(values) - window + 1)))]
    assert group_means(values, window) == pytest.approx(means, rel=1e-15)
    assert min(means) <= lowest_tenth(means) * (1 + 1e-15) and lowest_tenth(means) <= math.fsum(means) / len(means) * (1 + 1e-15)
