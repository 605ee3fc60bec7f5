"""The confidence vote against hand computations and against logits."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from sttrl.config import ConfidenceKind
from sttrl.types import Answer, Ballots, TokenStats
from sttrl.voting import VoteConfig, confidence, confidence_vote, majority, mean_logprob_confidence
from sttrl.voting.confidence import STATISTICS, confidence_weights, group_means, lowest_tenth


def ballots(class_G: tuple[int | None, ...], stats_G: tuple[TokenStats, ...]) -> Ballots:
    answers = tuple(Answer(text=None, invalid="cut") if c is None else Answer(text=str(c)) for c in class_G)
    representatives = tuple(str(c) for c in range(max((c + 1 for c in class_G if c is not None), default=0)))
    lengths = [len(s.logprob_T or s.top_confidence_T or s.self_certainty_T or ()) for s in stats_G]
    steps_GT = tuple(tuple(number for number, step in enumerate(steps(length)) for _ in step) for length in lengths)
    return Ballots(answer_G=answers, class_G=class_G, representative_C=representatives, stats_G=stats_G, reasoning_step_GT=steps_GT)


def weight(kind: ConfidenceKind, stats: TokenStats, window: int = 2048, step_T: tuple[int, ...] = ()) -> float:
    """The weight of one sample that votes. ``step_T``: the reasoning step of each token."""
    votes = replace(ballots((0,), (stats,)), reasoning_step_GT=(step_T,))
    return confidence_weights(votes, VoteConfig(confidence=kind, window=window))[0]


def test_the_statistics_are_the_choices_of_the_command_line() -> None:
    assert tuple(STATISTICS) == get_args(ConfidenceKind)


def test_mean_logprob_by_hand() -> None:
    stats = TokenStats(logprob_T=(math.log(0.5), math.log(0.125)))
    assert weight("mean_logprob", stats) == pytest.approx(0.25), "the geometric mean of the probabilities"
    assert weight("mean_logprob", TokenStats(logprob_T=(0.0, 0.0))) == 1.0


def test_self_certainty_by_hand() -> None:
    assert weight("self_certainty", TokenStats(self_certainty_T=(1.0, 2.0, 6.0))) == 3.0


def test_deepconf_by_hand() -> None:
    """Windows of 2 over 5, 1, 2, 3, 9 have means 3, 1.5, 2.5 and 6; a tenth of four groups is still one."""
    stats = TokenStats(top_confidence_T=(5.0, 1.0, 2.0, 3.0, 9.0))
    assert weight("deepconf_mean", stats, 2) == 4.0
    assert weight("deepconf_tail", stats, 2) == 6.0
    assert weight("deepconf_lowest", stats, 2) == 1.5
    assert weight("deepconf_bottom", stats, 2) == 1.5
    assert weight("deepconf_tail", stats, 1) == 9.0 and weight("deepconf_lowest", stats, 1) == 1.0


def test_step_means_by_hand() -> None:
    """The steps' means are 2, 6 and 1. The mean of the tokens is 2.5: a long step counts as much as a short one."""
    step_T = (0, 0, 0, 1, 2, 2)
    assert weight("step_mean", TokenStats(top_confidence_T=(1.0, 2.0, 3.0, 6.0, 2.0, 0.0)), step_T=step_T) == 3.0
    assert weight("step_surprisal", TokenStats(logprob_T=(-1.0, -2.0, -3.0, -6.0, -2.0, -0.0)), step_T=step_T) == 3.0
    assert weight("step_surprisal", TokenStats(logprob_T=(1e-7,)), step_T=(0,)) == 0.0, "rounding makes no negative weight"
    with pytest.raises(ValueError, match="the steps of a sample are not known"):
        weight("step_mean", TokenStats(top_confidence_T=(1.0, 2.0)))


@pytest.mark.parametrize("window", [5, 6, 2048])
@pytest.mark.parametrize("kind", ["deepconf_tail", "deepconf_bottom", "deepconf_lowest"])
def test_a_short_response_is_one_group(kind: ConfidenceKind, window: int) -> None:
    assert weight(kind, TokenStats(top_confidence_T=(5.0, 1.0, 2.0, 3.0, 9.0)), window) == 4.0


@pytest.mark.parametrize(("groups", "lowest"), [(1, 1), (9, 1), (10, 1), (19, 1), (20, 2), (30, 3), (99, 9), (100, 10)])
def test_the_lowest_tenth_is_whole_groups_and_one_at_least(groups: int, lowest: int) -> None:
    means = [float(i) for i in reversed(range(groups))]
    assert lowest_tenth(means) == sum(range(lowest)) / lowest


def direct(kind: ConfidenceKind, logits_TV: NDArray[np.float64], token_T: NDArray[np.int64], top_k: int, window: int) -> float:
    """The definitions, word by word."""
    logsumexp_T = np.log(np.exp(logits_TV).sum(axis=1))
    logprob_TV = logits_TV - logsumexp_T[:, None]
    if kind == "mean_logprob":
        return float(np.exp(np.mean([logprob_TV[t, y] for t, y in enumerate(token_T)])))
    if kind == "self_certainty":
        return float(np.mean(logsumexp_T - logits_TV.mean(axis=1)))
    if kind == "step_surprisal":
        return float(np.mean([np.mean([-logprob_TV[t, token_T[t]] for t in step]) for step in steps(len(token_T))]))
    token_confidence_T = -np.sort(logprob_TV, axis=1)[:, -top_k:].mean(axis=1)
    groups = [token_confidence_T[i : i + window].mean() for i in range(max(1, len(token_T) - window + 1))]
    return {
        "deepconf_mean": float(token_confidence_T.mean()),
        "deepconf_tail": float(token_confidence_T[-window:].mean()),
        "deepconf_bottom": float(np.mean(sorted(groups)[: max(1, int(len(groups) * 0.1))])),
        "deepconf_lowest": float(min(groups)),
        "step_mean": float(np.mean([token_confidence_T[step].mean() for step in steps(len(token_T))])),
    }[kind]


def measured(logits_TV: NDArray[np.float64], token_T: NDArray[np.int64], top_k: int) -> TokenStats:
    logprob_TV = logits_TV - np.logaddexp.reduce(logits_TV, axis=1, keepdims=True)
    return TokenStats(
        logprob_T=tuple(logprob_TV[np.arange(len(token_T)), token_T].tolist()),
        top_confidence_T=tuple((-np.partition(logprob_TV, -top_k, axis=1)[:, -top_k:].mean(axis=1)).tolist()),
        self_certainty_T=tuple((-logprob_TV.mean(axis=1)).tolist()),
    )


def steps(tokens: int) -> list[list[int]]:
    """The tokens of each reasoning step: the first has 9 tokens, the others 12."""
    return [list(range(start, min(end, tokens))) for start, end in [(0, 9), *((i, i + 12) for i in range(9, tokens, 12))] if start < tokens]


@pytest.mark.parametrize("window", [1, 4, 7, 2048])
@pytest.mark.parametrize("kind", get_args(ConfidenceKind))
def test_weights_of_random_logits(kind: ConfidenceKind, window: int) -> None:
    random = np.random.default_rng(5)
    logits_G = [random.normal(0, 3, (length, 31)) for length in (40, 1, 7, 65)]
    token_G = [random.integers(0, 31, len(logits)) for logits in logits_G]
    expected = [direct(kind, z, y, 20, window) for z, y in zip(logits_G, token_G, strict=True)]
    votes = ballots((0, 1, 1, 0), tuple(measured(z, y, 20) for z, y in zip(logits_G, token_G, strict=True)))
    config = VoteConfig(confidence=kind, window=window, top_k=20)
    assert confidence_weights(votes, config) == pytest.approx(tuple(expected))
    sums = (expected[0] + expected[3], expected[1] + expected[2])
    assert confidence(votes, config).share_C == pytest.approx(tuple(s / sum(sums) for s in sums))


def test_the_mean_of_a_window_gathers_no_error() -> None:
    """A great value that has left the window leaves no trace, and ten thousand steps do not drift."""
    assert group_means([1e16, 0.1, 0.2, 0.3, 0.4], 2)[1:] == pytest.approx([0.15, 0.25, 0.35], rel=1e-15)
    values = np.random.default_rng(0).uniform(0, 1e6, 12_000).tolist()
    means = group_means(values, 2048)
    assert len(means) == 12_000 - 2048 + 1
    assert all(means[i] == math.fsum(values[i : i + 2048]) / 2048 for i in (0, 1, 777, 5000, 9951, len(means) - 1))


def test_confidence_decides_against_the_count() -> None:
    votes = ballots((0, 0, 1), tuple(TokenStats(logprob_T=(math.log(p),)) for p in (0.1, 0.2, 0.9)))
    assert majority(votes, VoteConfig()).winner == 0
    election = confidence(votes, VoteConfig())
    assert election.winner == 1 and election.share_C == pytest.approx((0.25, 0.75)) and election.margin == pytest.approx(0.5)


def test_the_vote_that_every_evaluation_reports_goes_by_mean_logprob() -> None:
    logprobs = (math.log(0.5), math.log(0.25), math.log(0.125))
    votes = ballots((0, 1, None), tuple(TokenStats(logprob_T=(p, p), self_certainty_T=(-p,)) for p in logprobs))
    assert mean_logprob_confidence(votes) == pytest.approx((0.5, 0.25, 0.0))
    config = VoteConfig(confidence="self_certainty")
    assert confidence(votes, config).winner == 1
    assert confidence_vote(votes, config) == confidence(votes, VoteConfig())
    assert confidence_vote(votes, config).winner == 0


def test_log_probs_above_zero_are_errors_and_rounding_is_not() -> None:
    with pytest.raises(ValueError, match="no probability is above 1"):
        weight("mean_logprob", TokenStats(logprob_T=(5.0, -1.0)))
    with pytest.raises(ValueError, match="no probability is above 1"):
        weight("mean_logprob", TokenStats(logprob_T=(1e5,)))
    assert weight("mean_logprob", TokenStats(logprob_T=(1e-7,))) == pytest.approx(1.0)


def test_a_negative_statistic_is_an_error() -> None:
    with pytest.raises(ValueError, match="not negative"):
        confidence(ballots((0,), (TokenStats(self_certainty_T=(-1.0,)),)), VoteConfig(confidence="self_certainty"))
