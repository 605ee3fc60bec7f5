"""SCOPE against computations by hand: reasoning steps, the labels of subgroups, the choice of their size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_tokenizer import byte_level
from transformers import PreTrainedTokenizerFast

from sttrl.config import RunConfig
from sttrl.config.vote import WEIGHING
from sttrl.engine.steps import reasoning_steps, steps_of
from sttrl.errors import UsageError
from sttrl.objectives.rewards import REWARDS, reward_of_run
from sttrl.objectives.subgroups import Partition, ScopeConfig, best, draw, partition, scope, sizes
from sttrl.types import Answer, Ballots, TokenStats
from sttrl.voting import VOTES, WEIGHTS, VoteConfig

TOKENS = {1: "First", 2: ".\n\n", 3: "\n", 4: " and", 5: "\n\n\n", 6: "a\n\nb", 7: "\n\n"}


@pytest.mark.parametrize(
    ("token_T", "expected"),
    [
        ((1, 4, 2, 1, 4), (0, 0, 0, 1, 1)),
        ((1, 2), (0, 0)),
        ((1, 3, 3, 1), (0, 0, 0, 1)),
        ((1, 3, 4, 3, 1), (0, 0, 0, 0, 0)),
        ((3, 3, 3, 1), (0, 0, 1, 1)),
        ((7, 7, 5, 6, 4), (0, 1, 2, 3, 4)),
        ((2, 3, 4), (0, 1, 1)),
        ((), ()),
    ],
)
def test_a_step_ends_with_every_blank_line(token_T: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert reasoning_steps([TOKENS[token] for token in token_T]) == expected
    assert steps_of([token_T, (), token_T], lambda tokens: [TOKENS[token] for (token,) in tokens]) == [expected, (), expected]


def test_the_steps_that_a_tokenizer_of_transformers_gives() -> None:
    """Its tokens are bytes, so a blank line is two. It takes an empty batch for one empty sequence, so it is not asked for no tokens."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=byte_level())
    assert steps_of([(), ()], tokenizer.batch_decode) == [(), ()]
    token_T = tuple(tokenizer.encode("a\n\nb is\nc"))
    assert len(token_T) == 7
    assert steps_of([token_T, ()], tokenizer.batch_decode) == [(0, 0, 0, 1, 1, 1, 1), ()]


def ballots(labels: str, weight_G: Sequence[float] = ()) -> Ballots:
    """Samples with these answers, ``-`` for none; their step means are ``weight_G``, or 1."""
    numbers: dict[str, int] = {}
    confidences = weight_G or [1.0] * len(labels)
    return Ballots(
        answer_G=tuple(Answer(text=None, invalid="cut") if label == "-" else Answer(text=label) for label in labels),
        class_G=tuple(None if label == "-" else numbers.setdefault(label, len(numbers)) for label in labels),
        representative_C=tuple(numbers),
        stats_G=tuple(TokenStats(top_confidence_T=(c, c), logprob_T=(-1.0, -1.0)) for c in confidences),
        reasoning_step_GT=((0, 1),) * len(labels),
    )


def test_the_sizes_are_the_powers_of_two_that_divide_and_all_samples() -> None:
    assert sizes(64) == [1, 2, 4, 8, 16, 32, 64] and sizes(12) == [1, 2, 4, 12] and sizes(7) == [1, 7] and sizes(1) == [1]


def test_a_draw_has_no_sample_twice_and_depends_on_the_seeds_alone() -> None:
    seeds = tuple(range(16))
    drawn = [tuple(draw(seeds, 8, 2, number)) for number in range(64)]
    assert all(len(set(numbers)) == 8 and set(numbers) < set(range(16)) for numbers in drawn)
    assert drawn == [tuple(draw(seeds, 8, 2, number)) for number in range(64)] and len(set(drawn)) > 60
    assert tuple(draw((*seeds[:-1], 99), 8, 2, 0)) != drawn[0] and tuple(draw(seeds, 8, 4, 0)) != drawn[0]
    counts = [sum(sample in numbers for numbers in drawn) for sample in range(16)]
    assert min(counts) > 16 and max(counts) < 48, "each sample is drawn about every second time"


@pytest.mark.parametrize("kind", ["majority", "confidence"])
def test_labels_and_rewards_by_hand(kind: str) -> None:
    """With three of eight samples a label is what these three elect; where there are no more than are drawn, with half of them."""
    weight_G = [1.0, 1.0, 1.0, 1.0, 9.0, 1.0, 1.0, 1.0]
    votes = ballots("aabaccba", weight_G) if kind == "confidence" else ballots("aabaccba")
    config = ScopeConfig(votes=8, voting_function=kind, vote=VoteConfig(ties="first", confidence="step_mean"))
    half = ScopeConfig(votes=4, voting_function=kind, vote=config.vote)
    weights = weight_G if kind == "confidence" else [1.0] * 8
    assert partition(2, votes, weights, range(8), config) == partition(2, votes, weights, range(8), half)
    for size in (1, 2, 4, 8):
        few = partition(size, votes, weights, range(8), ScopeConfig(votes=3, voting_function=kind, vote=config.vote))
        for number, label in enumerate(few.label_S):
            drawn = draw(range(8), 3, size, number)
            sums = {c: sum(weights[i] for i in drawn if votes.class_G[i] == c) for c in {votes.class_G[i] for i in drawn}}
            first = next(votes.class_G[i] for i in drawn if sums[votes.class_G[i]] == max(sums.values()))
            assert label == first
            mine = range(number * size, (number + 1) * size)
            assert [few.reward_G[i] for i in mine] == [float(votes.class_G[i] == label) for i in mine]


def made(size: int, quality: float, labels: int) -> Partition:
    """A partition with this quality and so many labels."""
    return Partition(size=size, label_S=tuple(range(labels)), reward_G=(quality,))


def test_the_choice_of_the_size_by_hand() -> None:
    """Of (quality, labels) = (.2, 4), (.5, 3), (.6, 1), (.4, 2) the last is worse than the second in both, so it is not in the front.

    Scaled: (0, 1), (.75, 2/3), (1, 0). Squared distances at .7: .7; .7/16 + .3/9 = .077; .3. At 0 only labels count, at 1 only quality.
    """
    candidates = [made(1, 0.2, 4), made(2, 0.5, 3), made(4, 0.6, 1), made(8, 0.4, 2)]
    assert best(candidates, 0.7).size == 2 and best(candidates, 0.0).size == 1 and best(candidates, 1.0).size == 4
    assert math.isclose(0.7 / 16 + 0.3 / 9, 0.0770833, rel_tol=1e-5)
    assert best([made(1, 0.5, 2), made(2, 0.5, 2)], 0.7).size == 1, "the first of equal ones"


LABELS = st.text(alphabet="aabc-", min_size=1, max_size=24)


@given(labels=LABELS, votes=st.integers(1, 24) | st.none(), quality=st.floats(0, 1), offset=st.integers(0, 99))
def test_every_reward_is_that_of_the_best_partition(labels: str, votes: int | None, quality: float, offset: int) -> None:
    everyone, seeds = ballots(labels), range(offset, offset + len(labels))
    config = ScopeConfig(votes=votes, quality=quality, vote=VoteConfig(ties="first"))
    election = VOTES["majority"](everyone, config.vote)
    candidates = [partition(size, everyone, [1.0] * len(labels), seeds, config) for size in sizes(len(labels))]
    chosen = best(candidates, quality)
    reward_G = scope(everyone, election, seeds, config)
    assert reward_G == chosen.reward_G and set(reward_G) <= {0.0, 1.0}
    assert all(reward == 0.0 for reward, label in zip(reward_G, labels, strict=True) if label == "-")
    assert chosen in candidates and not any(
        other.quality > chosen.quality and other.exploration > chosen.exploration for other in candidates
    )


@pytest.mark.parametrize("kind", ["majority", "energy", "confidence"])
def test_a_greedy_response_changes_nothing_and_earns_the_share_of_its_label(kind: str) -> None:
    votes = ballots("abcabaab")
    votes = Ballots(
        answer_G=votes.answer_G,
        class_G=votes.class_G,
        representative_C=votes.representative_C,
        stats_G=tuple(TokenStats(logsumexp_T=(float(i),), top_confidence_T=(2.0,)) for i in range(8)),
        reasoning_step_GT=((0,),) * 8,
    )
    config = ScopeConfig(votes=2, quality=0.0, voting_function=kind, vote=VoteConfig(ties="first", confidence="step_mean"))
    election = VOTES[kind](votes, config.vote)
    alone = scope(votes, election, range(8), config)
    for own, answer in ((0, "a"), (1, "b"), (None, "-")):
        with_greedy = Ballots(
            answer_G=(*votes.answer_G, Answer(text=answer) if own is not None else Answer(text=None, invalid="cut")),
            class_G=(*votes.class_G, own),
            representative_C=votes.representative_C,
            stats_G=(*(votes.stats_G or ()), TokenStats()),
            reasoning_step_GT=votes.reasoning_step_GT,
        )
        *same, greedy = scope(with_greedy, election, range(9), config)
        assert tuple(same) == alone
        of_size = {size: partition(size, votes, weights(kind), range(8), config) for size in sizes(8)}
        assert greedy in [0.0 if own is None else fmean(float(label == own) for label in p.label_S) for p in of_size.values()]


def weights(kind: str) -> list[float]:
    """Of eight samples whose free energy is minus their number; its standard deviation is sqrt(5.25)."""
    return [math.exp((i - 7) / math.sqrt(5.25)) for i in range(8)] if kind == "energy" else [1.0] * 8


def test_a_run_s_settings_reach_the_reward() -> None:
    config = RunConfig.of(
        reward="scope", scope_votes=3, scope_quality=0.25, voting_function="confidence", confidence="step_mean", ties="first"
    )
    assert ScopeConfig.of(config) == ScopeConfig(votes=3, quality=0.25, voting_function="confidence", vote=VoteConfig.of(config))
    votes = ballots("abcabaab", [5.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 2.0])
    election = VOTES["confidence"](votes, VoteConfig.of(config))
    assert reward_of_run(config).function(votes, election, range(8)) == scope(votes, election, range(8), ScopeConfig.of(config))
    assert not REWARDS["scope"].elects and config.sampling_of_votes.reasoning_steps
    assert not RunConfig.of(confidence="deepconf_mean", voting_function="confidence").sampling_of_votes.reasoning_steps


def test_the_votes_that_the_settings_allow_are_those_with_weights() -> None:
    assert tuple(WEIGHTS) == WEIGHING and set(VOTES) - set(WEIGHTS) == {"harmony"}


@pytest.mark.parametrize(("scope_votes", "n_votes"), [(32, 16), (16, 16)])
def test_labels_that_are_all_drawn_from_all_samples_are_refused(scope_votes: int, n_votes: int) -> None:
    settings: dict[str, Any] = {"reward": "scope", "n_votes": n_votes, "n_train": 8}
    with pytest.raises(UsageError, match=f"--scope_votes {scope_votes} with --n_votes {n_votes}: .* Use --scope_votes 8"):
        RunConfig.of(**settings, scope_votes=scope_votes)
    assert RunConfig.of(**settings, scope_votes=n_votes - 1).scope_reward.scope_votes == n_votes - 1
