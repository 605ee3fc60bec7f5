"""What counts as the answer of a response, and what does not."""

from __future__ import annotations

import pytest

from sttrl.questions.answers import Limits, extract, read_answer
from sttrl.types import AnswerKind


def read(text: str, kind: AnswerKind = "math") -> str | None:
    answer = read_answer(text, kind, "stop", Limits())
    return answer.text if answer.text is not None else f"<{answer.invalid}>"


@pytest.mark.parametrize(
    ("text", "raw"),
    [
        (r"First \boxed{1}, then \boxed{2}.", "2"),
        (r"so \fbox{7}", "7"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),
        (r"\boxed{3} and an open \boxed{4", "3"),
        (r"\boxed{5} and an empty \boxed{ }", "5"),
        (r"The answer is 6, yet \boxed{7}", "7"),
        ("The final answer is: $x=5$ because it fits.", "x=5"),
        (r"The answer is \(\frac{3}{4}\).", r"\frac{3}{4}"),
        ("**Answer:** 17", "17"),
        ("The answer is 42. I hope this answer is helpful.", "42"),
        ("Answer: 3.5\nDone", "3.5"),
    ],
)
def test_mathematics_is_read_from_the_last_box_then_the_phrase(text: str, raw: str) -> None:
    assert extract(text, "math", "stop").text == raw


@pytest.mark.parametrize("text", ["", "we get 5 then 7", "The answer is that nothing of the kind can exist", r"\boxed{4", "answer is"])
def test_mathematics_without_a_stated_answer_is_unparsable(text: str) -> None:
    answer = extract(text, "math", "stop")
    assert answer.text is None and answer.invalid == "unparsable"


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("we get 5 then 7", "7"),
        ("It costs $1,250.50 in total", "1250.5"),
        ("He has 5-3=2 apples", "2"),
        ("The answer is 72 dollars for 3 hours.", "72"),
        ("The answer is 5 + 3 = 8.", "8"),
        (r"thus \frac{1}{2}", r"\frac{1}{2}"),
        ("So 1/2 of it", r"\frac{1}{2}"),
        ("about 10%", "10"),
        (r"\boxed{72 \text{ dollars}}", "72"),
        (r"\boxed{72 dollars per week}", "72"),
        ("It is -3", "-3"),
        ("x2 and H2O", "<unparsable>"),
    ],
)
def test_numbers_fall_back_on_the_last_number(text: str, form: str) -> None:
    assert read(text, "number") == form


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        (r"\boxed{B}", "B"),
        (r"\boxed{\text{B}}", "B"),
        (r"\boxed{\mathrm{(C)}}", "C"),
        (r"$\boxed{\textbf{D}}$", "D"),
        (r"\boxed{B) 10 m}", "B"),
        ("The answer is B.", "B"),
        ("The correct answer is: (D)", "D"),
        ("**Answer:** B", "B"),
        ("The answer is option C because of it", "C"),
        (r"\boxed{b}", "B"),
        ("The correct option is b.", "B"),
        ("The answer is\n\nC", "C"),
        ("Therefore\n**B**", "B"),
        ("\\boxed{A}\nNo, that was wrong.\n\\boxed{B}", "B"),
    ],
)
def test_a_choice_letter_is_read(text: str, letter: str) -> None:
    assert read(text, "choice") == letter


@pytest.mark.parametrize(
    "text",
    [
        r"\boxed{ABC}",
        r"\boxed{A or B}",
        r"\boxed{A} or \boxed{B}",
        r"\boxed{B}, so the answer is C",
        "The answer is A or B",
        "The answer is (A) and (C)",
        "The answer is A. The answer is B.",
        "The answer is A large number",
        "The answer is DNA",
        "Answer: a) first b) second",
        "a) one\nb) two",
        "Cats and dogs\nA big deal",
        "CABBAGE",
        "The answer is \u0410.",
    ],
)
def test_no_choice_letter_is_read_where_none_or_two_are_stated(text: str) -> None:
    assert read(text, "choice") == "<unparsable>"


@pytest.mark.parametrize(("option_count", "letter"), [(None, "D"), (4, "D"), (3, None)])
def test_a_letter_beyond_the_last_option_is_no_answer(option_count: int | None, letter: str | None) -> None:
    assert read_answer(r"\boxed{D}", "choice", "stop", Limits(), option_count).text == letter


@pytest.mark.parametrize("kind", ["math", "number", "choice"])
def test_a_text_cut_at_the_token_limit_has_no_answer(kind: AnswerKind) -> None:
    answer = extract(r"The answer is B. \boxed{B} 42", kind, "length")
    assert answer.text is None and answer.invalid == "cut"


@pytest.mark.parametrize("kind", ["math", "number"])
def test_a_fraction_never_becomes_its_denominator(kind: AnswerKind) -> None:
    assert read(r"\boxed{\frac{1}{2}}", kind) == r"\frac{1}{2}"


THOUGHT = r"<think>The answer is 4: \boxed{4}</think>"


@pytest.mark.parametrize(
    ("text", "raw"),
    [
        (f"{THOUGHT}The answer is 5.", "5"),
        (r"\boxed{4}</think> The answer is 5.", "5"),
        (THOUGHT, "4"),
        (f"{THOUGHT}\n<|im_end|>", "4"),
        (f"{THOUGHT}I cannot say.", None),
        (THOUGHT.removesuffix("</think>"), None),
        (r"\boxed{5} <think> or \boxed{6}", "5"),
        ("<think>4</think><answer>5</answer>", "5"),
    ],
)
def test_thinking_answers_only_where_it_is_finished_and_nothing_follows(text: str, raw: str | None) -> None:
    assert extract(text, "math", "stop").text == raw


@pytest.mark.parametrize(
    "piece", ["answer is ", "so B is correct ", "I choose ", "<think>", "</think>", "<answer>", r"\boxed ", "$$", "5 million ", "选"]
)
@pytest.mark.parametrize("kind", ["math", "number", "choice"])
def test_a_megabyte_of_one_piece_is_read_to_its_end(piece: str, kind: AnswerKind) -> None:
    answer = read_answer(piece * (999_000 // len(piece)), kind, "stop", Limits())
    assert (answer.text is None) == (answer.invalid is not None)


def test_a_text_beyond_the_limit_is_not_searched() -> None:
    assert read(r"\boxed{5}" + " " * 1_000_000) == "<too_long>"
