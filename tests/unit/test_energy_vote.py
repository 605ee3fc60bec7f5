"""The energy vote against hand computations and against logits."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from sttrl.config import EnergyKind
from sttrl.types import Answer, Ballots, TokenStats
from sttrl.voting import VoteConfig, energy, majority
from sttrl.voting.energy import energy_weights


def ballots(class_G: tuple[int | None, ...], value_GT: tuple[tuple[float, ...], ...]) -> Ballots:
    """Both energies read the same numbers: the logsumexp and the logit of every token."""
    answers = tuple(Answer(text=None, invalid="cut") if c is None else Answer(text=str(c)) for c in class_G)
    representatives = tuple(str(c) for c in range(max((c + 1 for c in class_G if c is not None), default=0)))
    stats_G = tuple(TokenStats(logsumexp_T=value_T, logit_T=value_T) for value_T in value_GT)
    return Ballots(answer_G=answers, class_G=class_G, representative_C=representatives, stats_G=stats_G)


def test_weights_by_hand() -> None:
    """Energies -3, -1 and -2: E_min is -3, tau sqrt(2 / 3)."""
    votes = ballots((0, 1, 1), ((2.0, 4.0), (1.0,), (1.5, 2.0, 2.5)))
    tau = math.sqrt(2 / 3)
    weights = (1.0, math.exp(-2 / tau), math.exp(-1 / tau))
    assert energy_weights(votes, VoteConfig()) == pytest.approx(weights)
    election = energy(votes, VoteConfig())
    assert election.winner == 0 and majority(votes, VoteConfig()).winner == 1, "one sample of low energy against two"
    assert election.share_C == pytest.approx((1 / sum(weights), 1 - 1 / sum(weights)))


def test_tau_as_given() -> None:
    votes = ballots((0, 1, 1), ((3.0,), (1.0,), (2.0,)))
    assert energy_weights(votes, VoteConfig(energy_tau=2.0)) == pytest.approx((1.0, math.exp(-1.0), math.exp(-0.5)))
    assert energy_weights(votes, VoteConfig(energy_tau=1e-300)) == (1.0, 0.0, 0.0)
    assert energy(votes, VoteConfig(energy_tau=1e6)).winner == 1, "a hot vote is the majority's"


@pytest.mark.parametrize(("kind", "temperature"), [("free_energy", 1.0), ("free_energy", 0.7), ("semantic", 1.0)])
def test_energies_of_random_logits(kind: EnergyKind, temperature: float) -> None:
    random = np.random.default_rng(3)
    logits_G = [random.normal(0, 4, (length, 11)) + 20 for length in (5, 1, 9, 4)]
    token_G = [random.integers(0, 11, len(logits)) for logits in logits_G]

    def direct(logits_TV: NDArray[np.float64], token_T: NDArray[np.int64]) -> float:
        if kind == "semantic":
            return -float(np.mean(logits_TV[np.arange(len(token_T)), token_T]))
        return -float(np.mean(temperature * np.log(np.sum(np.exp(logits_TV / temperature), axis=1))))

    energy_G = np.array([direct(z, y) for z, y in zip(logits_G, token_G, strict=True)])
    expected = np.exp(-(energy_G - energy_G.min()) / energy_G.std())

    def stats(logits_TV: NDArray[np.float64], token_T: NDArray[np.int64]) -> TokenStats:
        peak = logits_TV.max(axis=1)
        free = peak + temperature * np.log(np.exp((logits_TV - peak[:, None]) / temperature).sum(axis=1))
        return TokenStats(logsumexp_T=tuple(free.tolist()), logit_T=tuple(logits_TV[np.arange(len(token_T)), token_T].tolist()))

    votes = ballots((0, 1, 0, 1), ((), (), (), ()))
    votes = dataclasses.replace(votes, stats_G=tuple(stats(z, y) for z, y in zip(logits_G, token_G, strict=True)))
    config = VoteConfig(energy=kind, energy_temperature=temperature)
    assert energy_weights(votes, config) == pytest.approx(tuple(expected))
    sums = (expected[0] + expected[2], expected[1] + expected[3])
    assert energy(votes, config).share_C == pytest.approx(tuple(s / sum(sums) for s in sums))


def test_a_shift_of_all_energies_changes_nothing() -> None:
    value_GT = ((3.0, 3.5), (1.0,), (2.0, 2.25, 1.75))
    for tau in (None, 0.5):
        config = VoteConfig(energy_tau=tau)
        straight = energy_weights(ballots((0, 1, 1), value_GT), config)
        for shift in (-1000.0, -2.0, 0.125, 40.0, 1e6):
            shifted = tuple(tuple(value + shift for value in value_T) for value_T in value_GT)
            assert energy_weights(ballots((0, 1, 1), shifted), config) == pytest.approx(straight, rel=1e-7)


def test_the_scale_of_the_energies_changes_nothing_where_tau_is_their_deviation() -> None:
    value_GT = ((3.0, 3.5), (1.0,), (2.0, 2.25, 1.75))
    scaled = tuple(tuple(40 * value for value in value_T) for value_T in value_GT)
    assert energy_weights(ballots((0, 1, 1), scaled), VoteConfig()) == pytest.approx(
        energy_weights(ballots((0, 1, 1), value_GT), VoteConfig())
    )


def test_least_energy_and_deviation_are_the_voters_own() -> None:
    votes = ballots((0, None, 1, None), ((3.0,), (500.0,), (1.0,), (-500.0,)))
    assert energy_weights(votes, VoteConfig()) == pytest.approx((1.0, 0.0, math.exp(-2.0), 0.0))
    alone = ballots((None, 0), ((9.0,), (1.0,)))
    assert energy_weights(alone, VoteConfig()) == (0.0, 1.0)
    assert energy_weights(ballots((None,), ((9.0,),)), VoteConfig()) == (0.0,)
    assert energy_weights(ballots((), ()), VoteConfig()) == ()


def test_energies_that_differ_by_rounding_weigh_the_same() -> None:
    """0.1 + 0.2 and 0.3 are one energy: their deviation is rounding, and no scale of weights."""
    assert energy_weights(ballots((0, 1), ((0.1 + 0.2,), (0.3,))), VoteConfig()) == (1.0, 1.0)
    assert energy_weights(ballots((0, 1), ((0.0,), (0.0,))), VoteConfig()) == (1.0, 1.0)
    assert energy_weights(ballots((0, 1), ((0.3 + 1e-9,), (0.3,))), VoteConfig()) == pytest.approx((1.0, math.exp(-2.0)))
