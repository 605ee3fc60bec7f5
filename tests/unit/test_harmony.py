"""The harmony vote by hand (Self-Harmony, arXiv 2511.01191), and paraphrases as views of a question."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_question_views import ASKED, SAMPLING, FakeTokenizer, choice, text_of

from sttrl.config import RunConfig
from sttrl.errors import UsageError
from sttrl.questions import build_problem
from sttrl.questions.paraphrases import REWRITE, SPARE_TOKENS
from sttrl.questions.prompts import AskedQuestion
from sttrl.questions.views import ViewChoice
from sttrl.run.work import step_line
from sttrl.types import Answer, Ballots, Election, Group, HeldVote, Step
from sttrl.voting import VoteConfig, harmony, majority
from sttrl.voting.harmony import harmonic_means


def ballots(*views: str) -> Ballots:
    """Ballots of the letters given under each view; "." is a sample without an answer."""
    pairs = [(view, letter) for view, letters in enumerate(views) for letter in letters]
    names = tuple(dict.fromkeys(letter for _, letter in pairs if letter != "."))
    return Ballots(
        answer_G=tuple(Answer(text=None, invalid="cut") if letter == "." else Answer(text=letter) for _, letter in pairs),
        class_G=tuple(None if letter == "." else names.index(letter) for _, letter in pairs),
        representative_C=names,
        view_G=tuple(view for view, _ in pairs),
    )


def test_by_hand() -> None:
    """a: 5 of 8 and 1 of 8; b: 3 of 8 and 4 of 8. Then votes of which the majority elects the answer to one wording only."""
    given = ballots("aaaaabbb", "abbbbccc")
    assert harmonic_means(given) == (Fraction(2 * 5, 8 * 6), Fraction(2 * 3 * 4, 8 * 7), 0)
    found = harmony(given, VoteConfig())
    assert found.answer == "b" and found.share_C == pytest.approx([0.208333 / 0.636905, 0.428571 / 0.636905, 0.0], abs=1e-5)
    assert found.margin == pytest.approx((0.428571 - 0.208333) / 0.636905, abs=1e-5) and found.in_winner_G.count(1.0) == 7
    popular = ballots("aaaaaaab", "abbbbccc")
    assert majority(popular, VoteConfig()).answer == "a" and harmony(popular, VoteConfig()).answer == "a"
    spurious = ballots("aaaaaabb", "bbbccddd")
    assert majority(spurious, VoteConfig()).answer == "a" and harmony(spurious, VoteConfig()).answer == "b"


def test_samples_without_an_answer_count_for_their_view() -> None:
    """b: 2 of 4 and 1 of 4; a: 1 of 4 and 1 of 4."""
    assert harmonic_means(ballots("bba.", "ab..")) == (Fraction(1, 3), Fraction(1, 4))


def test_three_views_and_views_of_different_sizes() -> None:
    """3 / (1/(1/2) + 1/(1/4) + 1/1) = 3 / 7."""
    assert harmonic_means(ballots("ab", "abbb", "a")) == (Fraction(3, 7), 0)


def test_where_no_answer_is_common_nobody_is_elected() -> None:
    found = harmony(ballots("aaa", "bbb"), VoteConfig(ties="first"))
    assert found.abstains and found.share_C == (0.0, 0.0) and found.voters == 6
    assert harmony(ballots("..", ".."), VoteConfig()).abstains


def test_a_tie_is_as_the_tie_policy_says() -> None:
    tied = ballots("aabb", "bbaa")
    assert harmony(tied, VoteConfig()).abstains and harmony(tied, VoteConfig()).tied_C == (0, 1)
    assert harmony(tied, VoteConfig(ties="first")).answer == "a"


def test_under_one_view_it_is_the_majority_vote() -> None:
    one = ballots("abbc.")
    found, plain = harmony(one, VoteConfig()), majority(one, VoteConfig())
    assert (found.winner, found.in_winner_G) == (plain.winner, plain.in_winner_G) and found.share_C == pytest.approx(plain.share_C)


def test_ballots_without_views_are_an_error() -> None:
    with pytest.raises(ValueError, match="several views"):
        harmony(Ballots(answer_G=(Answer(text="a"),), class_G=(0,), representative_C=("a",)), VoteConfig())


@given(st.lists(st.text("abc.", min_size=1, max_size=9), min_size=1, max_size=4), st.randoms())
def test_the_order_of_views_and_samples_changes_nothing(views: list[str], random: object) -> None:
    def shares(election: Election, names: tuple[str, ...]) -> dict[str, float]:
        return {name: round(share, 9) for name, share in zip(names, election.share_C, strict=True)}

    one, other = ballots(*views), ballots(*("".join(sorted(view)) for view in reversed(views)))
    first, second = harmony(one, VoteConfig()), harmony(other, VoteConfig())
    assert shares(first, one.representative_C) == shares(second, other.representative_C) and first.answer == second.answer
    assert all(share == 0 for name, share in shares(first, one.representative_C).items() if any(name not in view for view in views))


def problem(
    text: str = ASKED, count: int = 3, max_prompt_tokens: int = 500, response_tokens: int = SAMPLING.max_tokens, context: int | None = None
) -> AskedQuestion:
    sampling = replace(SAMPLING, max_tokens=response_tokens)
    chosen = ViewChoice(form="paraphrases", count=count, seed=0, sampling=sampling, context=context)
    return build_problem(
        choice(text), FakeTokenizer(), instruction="Give a letter.", prompt_format=None, max_prompt_tokens=max_prompt_tokens, views=chosen
    )


def test_the_base_is_asked_to_rewrite_the_question_without_its_options() -> None:
    asked = problem()
    requests = asked.view_requests((5, 6))
    assert asked.views_wanted == 2 and [request.seed for request in requests] == [5, 6]
    for request in requests:
        assert text_of(request.prompt_T) == f"<user>{REWRITE.replace('{question}', 'Which is even?')}<assistant>"
    assert asked.prompts_of(0) == (asked.prompt_T,) and asked.longest_prompt >= len(requests[0].prompt_T)
    assert problem(count=3).every_prompt[-1] == requests[0].prompt_T


def test_paraphrases_are_views_with_the_same_options() -> None:
    seen = problem().with_views([" Name the even one. ", "<think>Let me see.</think>\nOne of them is even: which?"])
    assert [view.key for view in seen.view_V] == ["", "paraphrase1", "paraphrase2"]
    options = ASKED.removeprefix("Which is even?")
    texts = ["Which is even?", "Name the even one.", "One of them is even: which?"]
    assert [text_of(prompt) for prompt in seen.prompt_V] == [f"<user>{text}{options}\nGive a letter.<assistant>" for text in texts]
    assert all(view.invert(Answer(text="B")).text == "B" for view in seen.view_V)


@pytest.mark.parametrize("bad", ["", "  ", "Which is even?", "Name it.", "half \ud800 pair", "x" * 400])
def test_what_is_no_paraphrase_is_left_out(bad: str) -> None:
    seen = problem(count=4).with_views(["Name it.", bad, "Which number is even?"])
    assert [view.key for view in seen.view_V] == ["", "paraphrase1", "paraphrase3"] and len(seen.prompt_V) == 3


def test_a_paraphrase_is_never_longer_than_the_engine_was_told() -> None:
    asked = problem()
    plain = len(asked.prompt_T)
    assert asked.paraphrasing is not None and asked.paraphrasing.longest == 2 * plain + SPARE_TOKENS
    fits, too_long = "w" * (plain + SPARE_TOKENS + len("Which is even?")), "w" * (plain + SPARE_TOKENS + len("Which is even?") + 1)
    seen = asked.with_views([fits, too_long])
    assert [view.key for view in seen.view_V] == ["", "paraphrase1"] and len(seen.prompt_V[1]) == 2 * plain + SPARE_TOKENS
    assert problem(max_prompt_tokens=plain).paraphrasing.longest == plain


@pytest.mark.parametrize(
    ("response_tokens", "context", "room"),
    [(16, None, "longest"), (16, 10_000, "longest"), (16, "request + 40", 40), (16, "request", 16), (5_000, None, 5_000)],
)
def test_a_paraphrase_has_a_token_limit_of_its_own_and_the_engine_has_room_for_it(
    response_tokens: int, context: int | str | None, room: int | str
) -> None:
    request = len(problem().view_requests((1,))[0].prompt_T)
    limit = request + (40 if context == "request + 40" else 0) if isinstance(context, str) else context
    asked = problem(response_tokens=response_tokens, context=limit)
    (wanted,) = asked.view_requests((1,))
    longest = 2 * len(asked.prompt_T) + SPARE_TOKENS
    assert wanted.sampling.max_tokens == (longest if room == "longest" else room)
    assert asked.longest_prompt + response_tokens == max(longest + response_tokens, request + wanted.sampling.max_tokens)


def test_a_paraphrase_that_lacks_a_number_of_the_question_is_left_out() -> None:
    seen = problem("What is 1,200 + 3.5?", count=6).with_views(
        ["Add 3.5 to 1,200.", "It is 1203.5.", "Add 3.5 to 1200.", "Add 3 to 1,200.", "1,200, 3.5: their sum in 1 line?"]
    )
    assert [view.text for view in seen.view_V] == ["What is 1,200 + 3.5?", "Add 3.5 to 1,200.", "1,200, 3.5: their sum in 1 line?"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"voting_function": "harmony"}, "--voting_function harmony compares views, and --question_views is 1"),
        ({"question_view_form": "paraphrases"}, "--question_view_form paraphrases does nothing with --question_views 1"),
        ({"question_views": 4, "val_samples": 2}, "--question_views 4 is more than --val_samples 2: some views would not be asked"),
        ({"question_views": 4, "n_votes": 2, "n_train": 2}, "--question_views 4 is more than --n_votes 2: some views would not be asked"),
    ],
)
def test_what_would_do_nothing_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        RunConfig.of(**settings)


def test_the_preset_is_ttrl_with_two_views() -> None:
    config = RunConfig.of(preset="self_harmony")
    assert config.method.adaptation_method == "ttrl" and config.vote.voting_function == "harmony"
    assert (config.asking.question_views, config.asking.question_view_form) == (2, "paraphrases")


def test_a_vote_without_an_answer_under_every_view_is_said_to_be_that() -> None:
    given = ballots("aab", "ccc")
    group = Group(prompt_T=(1,), rollout_G=())
    vote = HeldVote(group=group, ballots=given, election=harmony(given, VoteConfig()), majority=majority(given, VoteConfig()), reward_G=())
    line = step_line(Step(index=0, version=0, vote=vote, update=None))
    assert line == "no answer was given under every view by 6 samples; no update"
