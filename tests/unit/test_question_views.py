"""Views of a text question by hand: options are found, permuted and mapped back; samples are spread over the views."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from test_data_prompts import FakeTokenizer

from sttrl.config import RunConfig
from sttrl.data import read_table
from sttrl.data.table import Question
from sttrl.errors import DataError, UsageError
from sttrl.questions import build_problem, build_problems
from sttrl.questions.answers import Judge
from sttrl.questions.options import movable, option_spans, orders, reordered
from sttrl.questions.prompts import ANSWER_BEGINS, AskedQuestion
from sttrl.questions.source import ChosenQuestions
from sttrl.questions.views import View, ViewChoice, mapped_back, permuted_views, worded_views
from sttrl.types import Answer, Group, Request, Rollout, Row, Sampling, TrainGroup, in_sample_order

SAMPLING = Sampling(temperature=1.0, max_tokens=40)
ASKED = "Which is even?\n\nA. one\nB. three\nC. four\nD. five"


def options(text: str, count: int | None = None) -> list[str] | None:
    spans = option_spans(text, count)
    return None if spans is None else [text[start:end] for start, end in spans]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (ASKED, ["one", "three", "four", "five"]),
        ("Pick.\n(A) 1/2\n(B) 2\n", ["1/2", "2"]),
        ("Pick.\na) red\nb) blue\nc) green", ["red", "blue", "green"]),
        ("Pick: (A) 3 (B) 4 (C) 5", ["3", "4", "5"]),
        ("Pick: a ) 38 , b ) 27.675 , c ) 30", ["38", "27.675", "30"]),
        ("Given\nA. iron\nB. zinc\nwhich rusts?\n\nA. the first\nB. the second\nC. none", ["the first", "the second", "none"]),
        ("Given\na. x\nb. y\nwhich?\n\nA. a and b\nB. b", ["a and b", "b"]),
        ("Pick.\nA. first line\nsecond line\nB. another\nof two\n\nGive the letter.", ["first line\nsecond line", "another\nof two"]),
        ("Pick.\nA. name\n\nsmiles\nB. name2\n\nsmiles2", ["name\n\nsmiles", "name2\n\nsmiles2"]),
        ("Pick.\nA. one\nB. two\n\nGive the letter.", ["one", "two"]),
        ("Pick.\nA. one\nB. two\nGive the letter.", None),
        ("How much is 2 + 2?", None),
        ("Pick.\nA. one", None),
        ("A cat. B was there.", None),
    ],
)
def test_options_are_found_in_the_text(text: str, expected: list[str] | None) -> None:
    assert options(text) == expected


def test_a_list_of_another_length_than_the_row_s_is_not_its_options() -> None:
    assert options(ASKED, 4) is not None and options(ASKED, 5) is None


def test_only_the_texts_of_the_options_change_places() -> None:
    spans = option_spans(ASKED)
    assert spans is not None
    assert reordered(ASKED, spans, (2, 0, 3, 1)) == "Which is even?\n\nA. four\nB. one\nC. five\nD. three"
    assert reordered(ASKED, spans, (0, 1, 2, 3)) == ASKED


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_orders_are_different_bijections_the_plain_one_first(count: int) -> None:
    texts = [f"option {n}" for n in range(count)]
    found = orders(texts, 10, 7, "q1")
    assert len(found) == len(set(found)) == min(10, [1, 1, 2, 6, 24, 120][count])
    assert found[0] == tuple(range(count)) and all(sorted(order) == list(range(count)) for order in found)
    assert found == orders(texts, 10, 7, "q1") and found[:3] == orders(texts, 3, 7, "q1")
    for start in range(0, len(found) - count + 1, count):
        for place in range(count):
            assert {order[place] for order in found[start : start + count]} == set(range(count)), "each option once at each place"


def test_orders_depend_on_seed_and_question() -> None:
    texts = [f"option {n}" for n in range(8)]
    found = {orders(texts, 8, seed, question) for seed in range(5) for question in ("q1", "q2")}
    assert len(found) == 10


@pytest.mark.parametrize(
    ("texts", "places"),
    [
        (["1", "2", "3"], (0, 1, 2)),
        (["1", "2", "All of the above"], (0, 1)),
        (["1", "None of the above", "3"], ()),
        (["1", "2", "Both A and B"], ()),
        (["1", "2", "A, B only"], ()),
        (["A and B are bonded", "I and II", "An acid", "both a and b"], (0, 1, 2, 3)),
        (["1", "all of the above", "2", "the value below"], ()),
    ],
)
def test_options_that_refer_to_others_stay(texts: list[str], places: tuple[int, ...]) -> None:
    assert movable(texts) == places
    for order in orders(texts, 6, 0, "q"):
        assert all(order[place] == place for place in range(len(texts)) if place not in places)


def test_a_letter_is_mapped_back_to_the_option_that_stood_there() -> None:
    view = View(key="optionsCADB", text="", order=(2, 0, 3, 1))
    assert [view.invert(Answer(text=letter)).text for letter in "ABCD"] == ["C", "A", "D", "B"]
    assert view.invert(Answer(text="E")) == Answer(text=None, invalid="unparsable")
    assert view.invert(Answer(text=None, invalid="cut")) == Answer(text=None, invalid="cut")
    assert View(key="", text="").invert(Answer(text="x + 1")).text == "x + 1"


def test_permuted_views_a_question() -> None:
    plain, *others = permuted_views(ASKED, "q1", None, ViewChoice(form="options", count=4, seed=0, sampling=SAMPLING))
    assert (plain.key, plain.text, plain.order) == ("", ASKED, (0, 1, 2, 3)) and len(others) == 3
    for view in others:
        assert view.order is not None and view.key == "options" + "".join("ABCD"[o] for o in view.order)
        shown = options(view.text)
        assert shown == [["one", "three", "four", "five"][o] for o in view.order]
        assert shown is not None and view.invert(Answer(text="ABCD"[shown.index("four")])).text == "C", "four is C, wherever it stands"
        assert ASKED not in repr(view)
    with pytest.raises(ValueError, match="options cannot be found"):
        permuted_views("How much?", "q1", None, ViewChoice(form="options", count=4, seed=0, sampling=SAMPLING))


def test_classes_are_of_the_letters_that_were_mapped_back() -> None:
    """By hand: view 1 has option C at place A, so its A and the plain C are one class."""
    view_V = [View(key="", text="", order=(0, 1, 2)), View(key="optionsCAB", text="", order=(2, 0, 1))]
    with_letters = Judge().ballots_sync("choice", [(f"\\boxed{{{letter}}}", "stop") for letter in "CABA"], 3)
    found = mapped_back(with_letters, view_V, [0, 1, 0, 0])
    assert [answer.text for answer in found.answer_G] == ["C", "C", "B", "A"]
    assert found.class_G == (0, 0, 1, 2) and found.representative_C == ("C", "B", "A") and found.view_G == (0, 1, 0, 0)


def rollout(view: int, token: int) -> Rollout:
    return Rollout(seed=0, version=0, token_T=(token,), logprob_T=(0.0,), finish="stop", text="", view=view)


def test_samples_are_spread_over_the_views_by_their_number() -> None:
    sampling, seeds = Sampling(temperature=1.0, max_tokens=1), range(10, 17)
    whole = Request.spread(((1,), (2,), (3,)), sampling, seeds)
    assert [request.view for request in whole] == [0, 1, 2, 0, 1, 2, 0] and whole[4].prompt_T == (2,)
    assert whole == (*Request.spread(((1,), (2,), (3,)), sampling, seeds[:2]), *Request.spread(((1,), (2,), (3,)), sampling, seeds[2:], 2))
    assert Request.spread(((1,),), sampling, seeds) == Request.each((1,), sampling, tuple(seeds))


def test_training_groups_are_one_for_each_prompt_and_come_back_in_order() -> None:
    group = Group(
        prompt_T=(1,), rollout_G=tuple(rollout(view, token) for token, view in enumerate([0, 2, 0, 1, 2])), prompt_V=((1,), (2,), (3,))
    )
    found = TrainGroup.each(group, tuple(map(Row.of, group.rollout_G)), problem=4)
    assert [(g.prefix_T, [row.token_T[0] for row in g.row_G], g.problem) for g in found] == [
        ((1,), [0, 2], 4),
        ((3,), [1, 4], 4),
        ((2,), [3], 4),
    ]
    assert in_sample_order(group, [[row.token_T[0] for row in g.row_G] for g in found]) == (0, 1, 2, 3, 4)


def choice(text: str, number: int = 0) -> Question:
    return Question(id=f"q{number}", index=number, text=text, kind="choice", row=number + 1)


def text_of(prompt_T: Sequence[int]) -> str:
    return "".join(map(chr, prompt_T))


def test_a_problem_has_a_prompt_for_each_view_with_the_instruction() -> None:
    chosen = ViewChoice(form="options", count=3, seed=0, sampling=SAMPLING)
    problem = build_problem(
        choice(ASKED), FakeTokenizer(), instruction="Give a letter.", prompt_format=None, max_prompt_tokens=500, views=chosen
    )
    assert [text_of(prompt) for prompt in problem.prompt_V] == [f"<user>{view.text}\nGive a letter.<assistant>" for view in problem.view_V]
    assert problem.prompts_of(3) == problem.prompt_V and problem.prompt_T == problem.prompt_V[0] and problem.option_count == 4
    assert problem.view_key(0) == "" and problem.view_key(1) == problem.view_V[1].key
    plain = build_problem(choice(ASKED), FakeTokenizer(), instruction=None, prompt_format=None, max_prompt_tokens=500)
    assert plain.prompts_of(0) == (plain.prompt_T,) and plain.view_key(0) is None and plain.option_count is None


def test_a_question_without_options_is_named_or_left_out() -> None:
    chosen = ViewChoice(form="options", count=3, seed=0, sampling=SAMPLING)
    asked, settings = [choice(ASKED), choice("How much?", 1)], {"instruction": None, "prompt_format": None, "max_prompt_tokens": 500}
    with pytest.raises(DataError, match="question 'q1': its options cannot be found"):
        build_problems(asked, FakeTokenizer(), views=chosen, **settings)
    problems, skipped = build_problems(asked, FakeTokenizer(), views=chosen, on_bad_row="skip", **settings)
    assert [problem.id for problem in problems] == ["q0"] and "options cannot be found" in skipped[0].reason


def test_options_of_a_data_set_of_numbers_are_refused_in_one_line() -> None:
    chosen = ChosenQuestions(RunConfig.of(dataset="arithmetic-demo", question_views=4), read_table)
    with pytest.raises(UsageError, match="arithmetic-demo are of the kind number, so there are no options") as refused:
        chosen.build(FakeTokenizer(), None)
    assert "\n" not in refused.value.message


def test_questions_with_fewer_views_are_counted_in_a_remark(tmp_path: Path) -> None:
    file = tmp_path / "choices.jsonl"
    file.write_text(
        '{"question": "Yes?", "options": ["yes", "no"], "answer": "A"}\n{"question": "Which?", "options": ["1", "2", "3"], "answer": "B"}\n'
    )
    built = ChosenQuestions(RunConfig.of(dataset=str(file), question_views=4), read_table).build(FakeTokenizer(), None)
    assert [len(problem.prompts_of(0)) for problem in built.problems] == [2, 4]
    assert built.remarks == ("1 of 2 questions have fewer than 4 views, such as 'choices-0'",)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"question_views": 0}, "--question_views is 0"),
        ({"question_views": 65}, "--question_views is 65"),
        ({"question_views": 17, "question_view_form": "wordings"}, "--question_views is 17, and there are 16 wordings"),
        ({"question_views": 1, "question_view_form": "wordings"}, "--question_view_form wordings does nothing with --question_views 1"),
        ({"adaptation_method": "memo", "memo_form": "token", "question_views": 1}, "--memo_form token averages over views"),
        ({"adaptation_method": "memo", "memo_form": "token", "question_view_form": "options"}, "options name other answers"),
        ({"question_views": 8, "n_votes": 4, "n_train": 4}, "--question_views 8 is more than --n_votes 4"),
        ({"question_views": 8, "val_samples": 4, "adaptation_method": "none"}, "--question_views 8 is more than --val_samples 4"),
    ],
)
def test_views_that_would_do_nothing_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        RunConfig.of(**settings)


def test_every_question_of_gpqa_has_its_options(tmp_path: Path) -> None:
    """Nothing of a question is printed: its authors ask for that."""
    file = Path(os.environ.get("STTRL_DATA", "")) / "GPQA-TTT.json.gz"
    if not file.exists():
        pytest.skip("the folder in STTRL_DATA has no GPQA")
    built = ChosenQuestions(
        RunConfig.of(dataset="GPQA-TTT", data_dir=str(file.parent), question_views=4, max_prompt_tokens=100_000), read_table
    )
    problems = built.build(FakeTokenizer(), None).problems
    assert len(problems) == 198 and sum(len(problem.prompts_of(0)) == 4 for problem in problems) >= 196


def memo_problem(form: str, count: int = 3, **changes: object) -> AskedQuestion:
    chosen = ViewChoice(form=form, count=count, seed=0, sampling=SAMPLING, averaged=True)
    settings = {"instruction": "Give a letter.", "prompt_format": None, "max_prompt_tokens": 500, **changes}
    return build_problem(choice(ASKED), FakeTokenizer(), views=chosen, **settings)


def test_memo_averages_over_the_same_views_and_asks_the_plain_question() -> None:
    problem = memo_problem("wordings")
    asked = [view.text for view in worded_views(ASKED, 3)]
    assert asked == [ASKED, f"{ASKED}\nGive the answer only.", f"{ASKED}\nThink, then answer."]
    assert [text_of(prompt) for prompt in problem.begun_V] == [f"<user>{text}<assistant>{ANSWER_BEGINS}" for text in asked]
    assert problem.prompts_of(0) == (problem.prompt_T,) and problem.view_V == () and problem.view_key(0) is None
    assert problem.every_prompt == (problem.prompt_T, *problem.begun_V)


def test_memo_averages_over_paraphrases_once_they_are_written() -> None:
    problem = memo_problem("paraphrases")
    assert problem.begun_V == () and problem.views_wanted == 2
    seen = problem.with_views(["Name the even one.", ""])
    options = ASKED.removeprefix("Which is even?")
    assert [text_of(prompt) for prompt in seen.begun_V] == [
        f"<user>{text}{options}<assistant>{ANSWER_BEGINS}" for text in ("Which is even?", "Name the even one.")
    ]
    assert seen.prompts_of(0) == (seen.prompt_T,) and seen.view_key(0) is None


@pytest.mark.parametrize("form", ["wordings", "paraphrases"])
def test_views_that_memo_averages_over_must_begin_alike(form: str) -> None:
    class Plain(FakeTokenizer):
        """No token before a text."""

        def encode(self, text: str, **options: object) -> list[int]:
            return [ord(char) for char in text]

    chosen = ViewChoice(form=form, count=12, seed=0, sampling=SAMPLING, averaged=True)
    with pytest.raises(UsageError, match="do not begin with the same token"):
        build_problem(choice(ASKED), Plain(), instruction=None, prompt_format="{question} Answer:", max_prompt_tokens=500, views=chosen)


def test_wordings_are_asked_by_other_methods() -> None:
    built = ChosenQuestions(RunConfig.of(dataset="arithmetic-demo", question_views=16, question_view_form="wordings", limit=2), read_table)
    for problem in built.build(FakeTokenizer(), None).problems:
        assert len(set(problem.prompts_of(0))) == 16 and [problem.view_key(view) for view in (0, 15)] == ["", "wording15"]


def test_the_number_and_the_form_of_views_where_they_are_unset() -> None:
    plain, token = RunConfig(), RunConfig.of(adaptation_method="memo", memo_form="token")
    assert (plain.averages_views, plain.asking.count(averaged=False), plain.asking.form(averaged=False)) == (False, 1, "options")
    assert (token.averages_views, token.asking.count(averaged=True), token.asking.form(averaged=True)) == (True, 8, "wordings")
