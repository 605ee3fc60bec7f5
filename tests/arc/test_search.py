"""The searches on explicit models, against the published systems' results and against a plain search."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
from explicit_model import ExplicitPolicy, Model, depth_first, log_softmax
from hypothesis import given, settings
from hypothesis import strategies as st

from sttrl.arc.search import SEARCHES, Ask, BeamConfig, Found, Limits, SearchConfig, ThresholdConfig

TOLERANCE = 1e-3


def search(name: str, policy: Any, asks: list[Ask], config: SearchConfig, **options: Any) -> tuple[Found, ...]:
    return asyncio.run(SEARCHES[name](policy, asks, config, **options))


def replies(found: Found) -> dict[tuple[int, ...], float]:
    assert len({reply.token_T for reply in found.reply_G}) == len(found.reply_G)
    return {reply.token_T: reply.nll for reply in found.reply_G}


@st.composite
def small_models(draw: st.DrawFn) -> tuple[Model, int]:
    """A model of 3 to 6 tokens whose next token depends on the last two and the position; token 0 ends a reply."""
    size = draw(st.integers(3, 6))
    salt = draw(st.integers(0, 10_000))
    scale = draw(st.sampled_from([0.0, 1.0, 3.0, 8.0]))

    def model(sequence: tuple[int, ...], begin: int) -> list[float]:
        last, before = sequence[-1], sequence[-2] if len(sequence) > 1 else 0
        logits = [
            scale * ((37 * last + 11 * before + 53 * len(sequence) + 17 * t + 29 * last * t + salt * (t + 1)) % 97) / 97
            for t in range(size)
        ]
        return log_softmax(logits)

    return model, size


@settings(max_examples=80, deadline=None)
@given(
    small_models(),
    st.integers(0, 6),
    st.sampled_from([0.4, 0.11, 0.03, 0.004]),
    st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=8), max_size=3),
    st.booleans(),
)
def test_threshold_search_equals_a_plain_search(
    drawn: tuple[Model, int], max_tokens: int, min_prob: float, guesses: list[list[int]], restricted: bool
) -> None:
    model, size = drawn
    prompts = [(1, 2), (2, 1, 1)]
    allowed = frozenset(range(size - 1)) if restricted else None
    config = SearchConfig(max_tokens=max_tokens, end_T=frozenset({0}), allowed=allowed, threshold=ThresholdConfig(min_prob=min_prob))
    guess_G = tuple(tuple(token % size for token in guess) for guess in guesses)
    policy = ExplicitPolicy(model, prompts, frozenset({0}))
    plain = search("threshold", policy, [Ask(prompt_T=prompt) for prompt in prompts], config)
    guided = search("threshold", policy, [Ask(prompt_T=p, guess_G=guess_G) for p in prompts], config)
    for prompt, one, other in zip(prompts, plain, guided, strict=True):
        expected = depth_first(model, prompt, max_tokens, min_prob, frozenset({0}), allowed)
        assert replies(one) == pytest.approx(expected)
        assert replies(other) == pytest.approx(expected)
        assert one.cut == other.cut == ()
        assert [reply.nll for reply in one.reply_G] == sorted(reply.nll for reply in one.reply_G)
        assert other.tokens <= one.tokens


@settings(max_examples=80, deadline=None)
@given(small_models(), st.sampled_from([0.11, 0.01]), st.integers(0, 8), st.integers(0, 12), st.integers(0, 4), st.booleans())
def test_what_a_limit_cuts_is_recorded(
    drawn: tuple[Model, int], min_prob: float, requests: int, tokens: int, rounds: int, few_tops: bool
) -> None:
    model, _ = drawn
    prompt = (1, 2)
    limits = Limits(requests=requests or None, tokens=tokens or None)
    config = SearchConfig(max_tokens=5, end_T=frozenset({0}), limits=limits, threshold=ThresholdConfig(min_prob=min_prob))
    policy = ExplicitPolicy(model, [prompt], frozenset({0}), context=6 if few_tops else 100)
    left = [rounds] if rounds else [10_000]

    def out_of_time() -> bool:
        left[0] -= 1
        return left[0] < 0

    (found,) = search("threshold", policy, [Ask(prompt_T=prompt)], config, out_of_time=out_of_time)
    expected = depth_first(model, prompt, 5, min_prob, frozenset({0}))
    assert found.requests == len(policy.requests) <= (requests or math.inf)
    assert found.tokens <= (tokens or math.inf)
    assert replies(found) == pytest.approx({reply: expected[reply] for reply in replies(found)})
    missed = math.fsum(math.exp(-nll) for reply, nll in expected.items() if reply not in replies(found))
    assert missed <= math.fsum(cut.mass for cut in found.cut) + 1e-9
    assert {cut.reason for cut in found.cut} <= {"requests", "tokens", "time", "context"}


def test_one_batch_holds_all_prompts_and_branches() -> None:
    policy = ExplicitPolicy(lambda sequence, begin: log_softmax([0.0, 0.0, 0.0]), [(1,), (2,)], frozenset({0}))
    config = SearchConfig(max_tokens=3, end_T=frozenset({0}), threshold=ThresholdConfig(min_prob=0.03))
    search("threshold", policy, [Ask(prompt_T=(1,)), Ask(prompt_T=(2,))], config)
    assert [len(batch) for batch in policy.batches] == [2, 4, 8][: len(policy.batches)]


def test_a_guess_is_not_decoded_again() -> None:
    def model(sequence: tuple[int, ...], begin: int) -> list[float]:
        return log_softmax([3.0, 0.0, 0.0] if len(sequence) - begin == 4 else [0.0, 3.0, 0.0])

    policy = ExplicitPolicy(model, [(2,)], frozenset({0}))
    config = SearchConfig(max_tokens=6, end_T=frozenset({0}), threshold=ThresholdConfig(min_prob=0.3))
    (found,) = search("threshold", policy, [Ask(prompt_T=(2,), guess_G=((1, 1, 1, 1, 0),))], config)
    assert [reply.token_T for reply in found.reply_G] == [(1, 1, 1, 1, 0)]
    assert (found.requests, found.tokens) == (len(policy.requests), 0) == (1, 0)


def test_more_likely_tokens_than_are_reported_are_a_cut() -> None:
    policy = ExplicitPolicy(lambda sequence, begin: log_softmax([0.0] * 100), [(1,)], frozenset({0}))
    config = SearchConfig(max_tokens=1, end_T=frozenset({99}), threshold=ThresholdConfig(min_prob=0.005))
    (found,) = search("threshold", policy, [Ask(prompt_T=(1,))], config)
    assert found.reply_G == ()
    assert [(cut.reason, cut.branches) for cut in found.cut] == [("top_logprobs", 1)]
    assert found.cut[0].mass == pytest.approx(0.36)


@settings(max_examples=60, deadline=None)
@given(small_models(), st.integers(1, 5), st.booleans())
def test_greedy_search_follows_the_likeliest_allowed_token(drawn: tuple[Model, int], max_tokens: int, restricted: bool) -> None:
    model, size = drawn
    allowed = frozenset(range(size - 1)) if restricted else None
    policy = ExplicitPolicy(model, [(1, 2)], frozenset({0}))
    (found,) = search("greedy", policy, [Ask(prompt_T=(1, 2))], SearchConfig(max_tokens=max_tokens, end_T=frozenset({0}), allowed=allowed))
    reply: list[int] = []
    while len(reply) < max_tokens and 0 not in reply:
        reply.append(next(token for token, _ in policy.top((1, 2, *reply), size) if allowed is None or token in allowed))
    assert found.reply_G[0].token_T == tuple(reply)
    assert found.reply_G[0].ended == (0 in reply)
    assert found.cut == ()


@settings(max_examples=60, deadline=None)
@given(small_models(), st.integers(1, 4))
def test_a_wide_beam_finds_the_likeliest_replies(drawn: tuple[Model, int], max_tokens: int) -> None:
    model, _ = drawn
    policy = ExplicitPolicy(model, [(1, 2)], frozenset({0}))
    config = SearchConfig(max_tokens=max_tokens, end_T=frozenset({0}), beam=BeamConfig(width=50))
    (found,) = search("beam", policy, [Ask(prompt_T=(1, 2))], config)
    best = sorted(depth_first(model, (1, 2), max_tokens, 1e-30, frozenset({0})).values())
    assert [reply.nll for reply in found.reply_G][:10] == pytest.approx(best[:10])


def test_beams_never_lengthen_a_beginning_that_cannot_win() -> None:
    policy = ExplicitPolicy(lambda sequence, begin: log_softmax([3.0, 2.0, 0.0]), [(1,)], frozenset({0}))
    config = SearchConfig(max_tokens=8, end_T=frozenset({0}), beam=BeamConfig(width=1))
    (found,) = search("beam", policy, [Ask(prompt_T=(1,))], config)
    assert [reply.token_T for reply in found.reply_G] == [(0,)]
    assert len(policy.batches) == 1


@pytest.mark.parametrize("name", ["greedy", "beam", "sample"])
def test_a_limit_on_requests_is_recorded_by_every_search(name: str) -> None:
    policy = ExplicitPolicy(lambda sequence, begin: log_softmax([0.0, 3.0, 1.0]), [(1,)], frozenset({0}))
    config = SearchConfig(max_tokens=3, end_T=frozenset({0}), allowed=frozenset({0, 2}), limits=Limits(requests=1))
    (found,) = search(name, FixedSamples() if name == "sample" else policy, [Ask(prompt_T=(1,), seed_G=(1, 2))], config)
    assert "requests" in [cut.reason for cut in found.cut]


class FixedSamples:
    """Samples that depend on the seed only: an even seed gives (2, 0), an odd one (1, 0)."""

    async def sample(self, requests: Any) -> Any:
        from sttrl.types import Rollout

        return tuple(
            Rollout(seed=r.seed, version=0, token_T=(1 + (r.seed + 1) % 2, 0), logprob_T=(-1.0, -0.5), finish="stop", text="")
            for r in requests
        )


def test_samples_with_forbidden_tokens_are_left_out() -> None:
    config = SearchConfig(max_tokens=3, end_T=frozenset({0}), allowed=frozenset({0, 2}))
    asks = [Ask(prompt_T=(1,), seed_G=(2, 3, 4)), Ask(prompt_T=(2,), seed_G=()), Ask(prompt_T=(2,), seed_G=(5,))]
    one, none, other = search("sample", FixedSamples(), asks, config)
    assert [reply.token_T for reply in one.reply_G] == [(2, 0), (2, 0)]
    assert [(cut.reason, cut.branches) for cut in one.cut] == [("forbidden", 1)]
    assert none.reply_G == other.reply_G == ()


@pytest.mark.parametrize("settings", [{"min_prob": 0.0}, {"min_prob": 1.0}, {"min_prob_greedy": 0.0}])
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        ThresholdConfig(**settings)
