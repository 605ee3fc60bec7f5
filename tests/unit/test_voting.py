"""Elections over equivalence classes, and what all votes have in common."""

from __future__ import annotations

import dataclasses
import math
from typing import get_args

import pytest

from sttrl.config import ConfidenceKind, EnergyKind, RunConfig
from sttrl.types import Answer, Ballots, Stat, TokenStats
from sttrl.voting import (
    READS,
    VOTES,
    TiePolicy,
    VoteConfig,
    confidence,
    elect,
    energy,
    majority,
    measure_voters,
    stats_needed,
    tie_confidence,
)

NAMES = tuple(VOTES)
STATS: tuple[Stat, ...] = get_args(Stat)


def ballots(*class_G: int | None) -> Ballots:
    """The ballots of samples that all answer one view, where harmony goes by plain frequencies."""
    representatives = tuple(f"form {c}" for c in range(len({c for c in class_G if c is not None})))
    answers = tuple(Answer(text=None, invalid="unparsable") if c is None else Answer(text=representatives[c]) for c in class_G)
    return Ballots(answer_G=answers, class_G=class_G, representative_C=representatives, view_G=(0,) * len(class_G))


def with_stats(votes: Ballots, **stat_GT: tuple[tuple[float, ...], ...]) -> Ballots:
    """The ballots with these statistics of every token of every sample: ``logprob=((-1.0, -2.0), (-3.0,))``.

    A reasoning step has two tokens.
    """
    stats_G = tuple(TokenStats(**{f"{stat}_T": value_GT[i] for stat, value_GT in stat_GT.items()}) for i in range(len(votes.class_G)))
    length_G = [max((len(value_GT[i]) for value_GT in stat_GT.values()), default=0) for i in range(len(stats_G))]
    return dataclasses.replace(votes, stats_G=stats_G, reasoning_step_GT=tuple(tuple(t // 2 for t in range(n)) for n in length_G))


def surveyed(votes: Ballots, value: float = 1.5, tokens: int = 3) -> Ballots:
    """The ballots with every statistic the same at every token; a log-prob is a negative one."""
    value_GT = ((value,) * tokens,) * len(votes.class_G)
    return with_stats(votes, **{s: tuple(tuple(-v for v in v_T) for v_T in value_GT) if s == "logprob" else value_GT for s in STATS})


def configs(name: str) -> list[VoteConfig]:
    """Every statistic that a vote can go by."""
    if name == "energy":
        return [VoteConfig(energy=kind) for kind in get_args(EnergyKind)]
    if name == "confidence":
        return [VoteConfig(confidence=kind) for kind in get_args(ConfidenceKind)]
    return [VoteConfig()]


EVERY_VOTE = [(name, config) for name in NAMES for config in configs(name)]


def test_the_registry_holds_what_exists() -> None:
    assert (VOTES["majority"], VOTES["energy"], VOTES["confidence"]) == (majority, energy, confidence)
    assert tuple(READS) == tuple(VOTES)


def test_token_statistics_are_the_ones_that_can_be_asked_for() -> None:
    assert tuple(f"{stat}_T" for stat in STATS) == tuple(field.name for field in dataclasses.fields(TokenStats))


def test_defaults_are_those_of_the_command_line() -> None:
    run, vote = RunConfig(), VoteConfig()
    assert (vote.ties, vote.energy, vote.confidence) == (run.vote.ties, run.energy_vote.energy, run.confidence_vote.confidence)
    assert (vote.energy_temperature, vote.energy_tau) == (run.energy_vote.energy_temp, run.energy_vote.energy_tau)
    assert (vote.window, vote.top_k) == (run.confidence_vote.confidence_window, run.confidence_vote.confidence_top_k) == (2048, 20)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_settings_that_make_no_sense_are_errors(bad: float) -> None:
    with pytest.raises(ValueError, match="energy_temperature is"):
        VoteConfig(energy_temperature=bad)
    with pytest.raises(ValueError, match="energy_tau is"):
        VoteConfig(energy_tau=bad)
    with pytest.raises(ValueError, match="window is 0"):
        VoteConfig(window=0)
    with pytest.raises(ValueError, match="top_k is 0"):
        VoteConfig(top_k=0)


@pytest.mark.parametrize(
    ("name", "config", "needed"),
    [
        ("majority", VoteConfig(), set()),
        ("majority", VoteConfig(ties="first"), set()),
        ("majority", VoteConfig(ties="confidence"), {"logprob"}),
        ("energy", VoteConfig(), {"logsumexp"}),
        ("energy", VoteConfig(energy="semantic", ties="confidence"), {"logit", "logprob"}),
        ("confidence", VoteConfig(), {"logprob"}),
        ("confidence", VoteConfig(ties="confidence"), {"logprob"}),
        ("confidence", VoteConfig(confidence="deepconf_mean"), {"top_confidence"}),
        ("confidence", VoteConfig(confidence="deepconf_tail"), {"top_confidence"}),
        ("confidence", VoteConfig(confidence="deepconf_bottom"), {"top_confidence"}),
        ("confidence", VoteConfig(confidence="deepconf_lowest"), {"top_confidence"}),
        ("confidence", VoteConfig(confidence="self_certainty", ties="confidence"), {"self_certainty", "logprob"}),
    ],
)
def test_the_statistics_a_vote_needs(name: str, config: VoteConfig, needed: set[str]) -> None:
    assert stats_needed(name, config) == needed


@pytest.mark.parametrize("ties", get_args(TiePolicy))
@pytest.mark.parametrize(("name", "config"), EVERY_VOTE)
def test_a_vote_reads_what_it_says_it_needs_and_no_more(name: str, config: VoteConfig, ties: TiePolicy) -> None:
    config = dataclasses.replace(config, ties=ties)
    needed = stats_needed(name, config)
    given = {stat: ((-0.5,), (-0.25,)) if stat == "logprob" else ((1.0,), (2.0,)) for stat in needed}
    VOTES[name](with_stats(ballots(0, 1), **given), config)
    for stat in needed:
        with pytest.raises(ValueError, match=f"reads the {stat} .* sample 0 has none"):
            VOTES[name](with_stats(ballots(0, 1), **{s: v for s, v in given.items() if s != stat}), config)
    if needed:
        with pytest.raises(ValueError, match="have no token statistics"):
            VOTES[name](ballots(0, 1), config)


@pytest.mark.parametrize("ties", get_args(TiePolicy))
@pytest.mark.parametrize("class_G", [(0, 1, 1, None, 1, 0), (0, 1, 1, 0), (0,), (None, 0), (None,), ()])
@pytest.mark.parametrize(("name", "config"), EVERY_VOTE)
def test_with_equal_weights_every_vote_is_the_majority(
    name: str, config: VoteConfig, class_G: tuple[int | None, ...], ties: TiePolicy
) -> None:
    votes = surveyed(ballots(*class_G), 0.1, tokens=7)
    election, plain = VOTES[name](votes, dataclasses.replace(config, ties=ties)), majority(votes, VoteConfig(ties=ties))
    assert election.share_C == pytest.approx(plain.share_C) and election.margin == pytest.approx(plain.margin)
    assert dataclasses.replace(election, share_C=(), margin=0.0) == dataclasses.replace(plain, share_C=(), margin=0.0)


@pytest.mark.parametrize(("name", "config"), EVERY_VOTE)
def test_length_changes_no_weight(name: str, config: VoteConfig) -> None:
    """One token repeated weighs the same however often: two answers of one sample each tie."""
    length_G = (3, 6, 100, 7)
    given = {s: tuple((-0.7 if s == "logprob" else 0.7,) * n for n in length_G) for s in STATS}
    election = VOTES[name](with_stats(ballots(0, 1, 2, 3), **given), dataclasses.replace(config, window=5))
    assert election.tied_C == (0, 1, 2, 3) and election.share_C == pytest.approx((0.25,) * 4)


@pytest.mark.parametrize(("name", "config"), EVERY_VOTE)
def test_the_voteless_have_no_say_whatever_their_statistics(name: str, config: VoteConfig) -> None:
    """An unparsable or cut sample moves no share, be it the surest or the least sure; and it may have no tokens at all."""

    def election(voteless: tuple[float, ...]) -> tuple[object, ...]:
        given = {s: tuple(tuple(-v for v in v_T) if s == "logprob" else v_T for v_T in ((1.0,), (2.0,), (3.0,), voteless)) for s in STATS}
        result = VOTES[name](with_stats(ballots(0, 1, 1, None), **given), config)
        assert result.voters == 3 and result.in_winner_G[3] == 0.0
        return result.winner, result.share_C, result.margin

    assert election((1e-6,)) == election((700.0,)) == election((2.5, 2.5)) == election(())


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("sample", [0, 2])
@pytest.mark.parametrize(("name", "config"), EVERY_VOTE)
def test_statistics_that_are_no_numbers_are_errors(name: str, config: VoteConfig, sample: int, bad: float) -> None:
    """In a sample that does not vote, too: something upstream is broken."""
    votes = surveyed(ballots(0, 1, None))
    config = dataclasses.replace(config, ties="confidence")
    assert votes.stats_G is not None
    for stat in stats_needed(name, config):
        broken = dataclasses.replace(votes.stats_G[sample], **{f"{stat}_T": (-1.0, bad, -1.0)})
        stats_G = tuple(broken if i == sample else stats for i, stats in enumerate(votes.stats_G))
        with pytest.raises(ValueError, match=f"{stat} of sample {sample} must be finite"):
            VOTES[name](dataclasses.replace(votes, stats_G=stats_G), config)


def test_measuring_the_voters() -> None:
    votes = with_stats(ballots(0, None, 0), entropy=((1.0, 2.0), (), (4.0,)))
    assert measure_voters(votes, "entropy", sum) == (3.0, None, 4.0)
    with pytest.raises(ValueError, match="sample 0 votes without a token"):
        measure_voters(with_stats(ballots(0), entropy=((),)), "entropy", sum)
    with pytest.raises(ValueError, match="2 samples and token statistics of 3"):
        measure_voters(dataclasses.replace(votes, answer_G=votes.answer_G[:2], class_G=votes.class_G[:2]), "entropy", sum)


@pytest.mark.parametrize(("name", "config"), EVERY_VOTE)
def test_ties_go_as_the_policy_says_in_every_vote(name: str, config: VoteConfig) -> None:
    """Class 1 comes first, class 0 is the surer one; all weights are equal."""
    votes = dataclasses.replace(surveyed(ballots(0, 1), 0.5), class_G=(1, 0))
    assert votes.stats_G is not None
    # The tie is in what the vote weighs by, and log-probs alone differ: in the mean log-prob vote they are the weight.
    if "logprob" not in stats_needed(name, config):
        stats_G = tuple(dataclasses.replace(s, logprob_T=t) for s, t in zip(votes.stats_G, ((-2.0,), (-1.0,)), strict=True))
        by_confidence = VOTES[name](dataclasses.replace(votes, stats_G=stats_G), dataclasses.replace(config, ties="confidence"))
        assert by_confidence.winner == 0 and by_confidence.tied_C == (0, 1) and by_confidence.margin == 0.0
    undecided = VOTES[name](votes, dataclasses.replace(config, ties="confidence"))
    assert undecided.abstains and undecided.tied_C == (0, 1)
    assert VOTES[name](votes, dataclasses.replace(config, ties="abstain")).abstains
    assert VOTES[name](votes, dataclasses.replace(config, ties="first")).winner == 1


def test_a_tied_vote_of_confidence_goes_to_the_higher_mean() -> None:
    """0.25 + 0.25 = 0.5: the sums tie, and the single sample is the surer."""
    half, quarter = (math.log(0.5),), (math.log(0.25),)
    votes = with_stats(ballots(0, 0, 1), logprob=(quarter, quarter, half))
    assert confidence(votes, VoteConfig()).tied_C == (0, 1)
    assert confidence(votes, VoteConfig(ties="confidence")).winner == 1
    assert confidence(votes, VoteConfig(ties="first")).winner == 0


def test_only_the_policy_confidence_asks_for_confidences() -> None:
    assert tie_confidence(ballots(0, 1), "abstain") is None and tie_confidence(ballots(0, 1), "first") is None
    votes = with_stats(ballots(0, None), logprob=((math.log(0.5), math.log(0.125)), (-1.0,)))
    assert tie_confidence(votes, "confidence") == pytest.approx((0.25, 0.0))


def test_majority_counts_classes_and_records_the_margin() -> None:
    election = majority(ballots(0, 1, 1, None, 1, 0), VoteConfig())
    assert (election.winner, election.answer) == (1, "form 1")
    assert election.count_C == (2, 3) and election.share_C == (0.4, 0.6)
    assert election.margin == pytest.approx(0.2) and election.tied_C == ()
    assert (election.voters, election.samples, election.majority_ratio) == (5, 6, 0.5)
    assert election.in_winner_G == (0.0, 1.0, 1.0, 0.0, 1.0, 0.0)
    assert not election.unanimous and not election.abstains


def test_the_voteless_never_win_however_many_they_are() -> None:
    election = majority(ballots(None, None, None, 0), VoteConfig())
    assert election.winner == 0 and election.majority_ratio == 0.25 and election.in_winner_G == (0.0, 0.0, 0.0, 1.0)


@pytest.mark.parametrize("class_G", [(), (None,), (None, None)])
def test_nobody_voting_elects_nobody(class_G: tuple[int | None, ...]) -> None:
    election = majority(ballots(*class_G), VoteConfig(ties="first"))
    assert election.abstains and election.answer is None and election.share_C == () and election.majority_ratio == 0.0
    assert not any(election.in_winner_G)


def test_a_tie_abstains_and_is_recorded() -> None:
    election = majority(ballots(0, 1, 2, 1, 0), VoteConfig())
    assert election.abstains and election.tied_C == (0, 1) and election.margin == 0.0
    assert election.in_winner_G == (0.0,) * 5


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
