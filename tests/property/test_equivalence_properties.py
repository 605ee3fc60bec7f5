"""What holds for every answer and every group."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sttrl.questions.answers import Judge, Limits, exceeded, extract, normalise, read_answer
from sttrl.questions.answers.equivalence import Ask, classes, compare, decide
from sttrl.questions.answers.symbolic import Algebra
from sttrl.types import AnswerKind

KINDS = st.sampled_from(["math", "number", "choice"])
PIECES = st.sampled_from(
    [
        *"0123456789xyABD+-*/^_=<>!%.,;: (){}[]$\\|&'`~\n",
        *(r"\frac", r"\dfrac", r"\sqrt", r"\boxed{", r"\text{", r"\left(", r"\right)", r"\pi", r"\circ", r"\,", r"\!", r"\{", r"\}", r"\\"),
        *(r"\mathbf{", r"\textcolor{red}{", r"\overline{", r"\dot", r"\mid", r"\infty", r"\pmod{", r"\approx ", r"\boxed 5", "(B) ", "**"),
        *(" or ", "million", "0.(3)", "sqrt", "p.m.", "€", "US$", "⁻³", "√", "<think>", "</think>", "<answer>", "答案是", "option "),
        *(" and ", "percent", "cm", "answer is ", "½", "−", "\u200b", "\x00", "1,000", "025", "dollars"),
    ]
)
NOISE = st.lists(PIECES, max_size=40).map("".join)
TEXTS = st.one_of(NOISE, st.text(max_size=200))


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    judge = Judge()
    yield judge
    judge.close_sync()


@settings(max_examples=1500, deadline=None)
@given(TEXTS, KINDS)
@pytest.mark.slow
def test_a_normal_form_is_its_own_normal_form(raw: str, kind: AnswerKind) -> None:
    form = normalise(raw, kind)
    if form is not None:
        assert form and normalise(form, kind) == form
        form.encode()


@settings(max_examples=1500, deadline=None)
@given(TEXTS, KINDS)
def test_reading_never_raises_and_gives_a_text_or_a_reason(text: str, kind: AnswerKind) -> None:
    answer = read_answer(text, kind, "stop", Limits())
    assert (answer.text is None) == (answer.invalid in ("unparsable", "too_long"))
    assert answer.text is None or exceeded(answer.text, Limits()) is None
    assert read_answer(text, kind, "length", Limits()).invalid == "cut"


@settings(max_examples=100, deadline=None)
@given(PIECES, PIECES, KINDS)
def test_reading_takes_time_linear_in_the_text(a: str, b: str, kind: AnswerKind) -> None:
    start_s = time.thread_time()
    read_answer((a + b) * (100_000 // len(a + b)), kind, "stop", Limits())
    assert time.thread_time() - start_s < 5


@given(st.integers(-(10**15), 10**15))
def test_spellings_of_an_integer_have_one_form(n: int) -> None:
    sign = "-" if n < 0 else ""
    plain = [str(n), f"{n}.0", f"{n}.", f"{n:,}", f"{sign}00{abs(n)}"]
    spellings = [*plain, f"${n}$", rf"\text{{{n}}}", rf"{n}^\circ", f"\\boxed{{{n}}}"]
    assert {normalise(s) for s in spellings} == {str(n)}
    assert normalise(f"x = {n:,}") == f"x={n}" and normalise(f"x = {n}", "number") == normalise(f"{n}%", "number") == str(n)


@given(st.text(max_size=50), st.integers(-999, 999))
def test_the_last_box_is_read_whatever_stands_before_it(before: str, n: int) -> None:
    assert extract(f"{before.replace(chr(92), '').replace('{', '').replace('}', '')} \\boxed{{{n}}}", "math", "stop").text == str(n)


@given(st.integers(1, 9), st.data())
def test_classes_do_not_depend_on_the_order_and_join_nothing_that_is_apart(n: int, data: st.DataObject) -> None:
    pairs = list(itertools.combinations(range(n), 2))
    equal = set(data.draw(st.lists(st.sampled_from(pairs)))) if pairs else set()
    different = (set(data.draw(st.lists(st.sampled_from(pairs)))) if pairs else set()) - equal
    order = data.draw(st.permutations(range(n)))

    def among(some: set[tuple[int, int]]) -> Ask:
        return lambda a, b: (min(int(a), int(b)), max(int(a), int(b))) in some

    def partition(forms: list[int]) -> set[frozenset[int]]:
        number = classes([str(i) for i in forms], among(equal), among(different))
        assert list(dict.fromkeys(number)) == list(range(max(number) + 1))
        return {frozenset(i for i, c in zip(forms, number, strict=True) if c == k) for k in number}

    found = partition(list(range(n)))
    assert partition(order) == found
    assert not any(set(pair) <= group for group in found for pair in different)
    if not different:
        assert all(any(set(pair) <= group for group in found) for pair in equal)


FORMS = st.one_of(
    st.integers(-20, 20).map(str),
    st.tuples(st.integers(-20, 20), st.integers(1, 20)).map(lambda p: rf"\frac{{{p[0]}}}{{{p[1]}}}"),
    st.integers(-200, 200).map(lambda n: str(n / 8)),
    st.integers(1, 12).map(lambda n: rf"\sqrt{{{n}}}"),
    st.tuples(st.integers(1, 5), st.integers(-5, 5)).map(lambda p: f"{p[0]}x+{p[1]}"),
    st.tuples(st.integers(0, 3), st.integers(4, 6)).map(lambda p: f"({p[0]},{p[1]}]"),
)


LETTERS = st.sampled_from("xyXnktoOlgCS")
TERMS = st.tuples(st.sampled_from(["", "0", "1", "2", "17"]), st.sampled_from(["", "^1", "^2", "^3", "^{12}"]))
POLYNOMIALS = st.tuples(LETTERS, LETTERS, st.lists(TERMS, min_size=1, max_size=3), st.integers(-3, 3), st.booleans()).map(
    lambda p: f"{'-' if p[4] else ''}{'-'.join(n + p[0] + power for n, power in p[2])}+{p[1]}{p[3]:+}"
)
BRACKETS = st.tuples(st.sampled_from("(["), st.integers(-3, 3), st.integers(4, 6), st.sampled_from(")]")).map(
    lambda p: f"{p[0]}{p[1]},{p[2]}{p[3]}"
)
PRODUCTS = st.tuples(st.integers(0, 12), st.integers(0, 12)).map(
    lambda p: [rf"\sqrt{{{p[1]}}}", f"{p[0]}", rf"{p[0]}\sqrt{{{p[1]}}}"][(p[0] + p[1]) % 3]
)
SURDS = st.one_of(PRODUCTS, st.tuples(st.sampled_from(["", "-"]), PRODUCTS, PRODUCTS).map(lambda p: rf"{p[0]}\frac{{{p[1]}}}{{{p[2]}}}"))


@pytest.fixture(scope="module")
def algebra() -> Algebra:
    return Algebra()


@pytest.mark.parametrize("forms", [POLYNOMIALS, BRACKETS, SURDS])
@settings(max_examples=200, deadline=None)
@given(data=st.data())
@pytest.mark.slow
def test_an_exact_rule_says_what_algebra_says(algebra: Algebra, forms: st.SearchStrategy[str], data: st.DataObject) -> None:
    a = normalise(data.draw(forms)) or "0"
    turned = "+".join(reversed(a.removeprefix("-").replace("-", "+").split("+")))
    b = normalise(data.draw(st.one_of(forms, st.sampled_from([a.swapcase(), turned, "0" + a, a.replace("(", "(0")])))) or "0"
    verdict = decide(a, b)
    if verdict is not None and a != b:
        assert algebra.equal(a, b) is verdict


NUMBERS = st.one_of(
    st.integers(-9, 9).map(str),
    st.tuples(st.integers(1, 99), st.integers(-30, 3)).map(lambda p: rf"{p[0] / 10}\times10^{{{p[1]}}}"),
    st.tuples(st.integers(1, 99), st.integers(-12, 3)).map(lambda p: f"{p[0]}e{p[1]}"),
    st.tuples(st.integers(-9, 9), st.integers(1, 9)).map(lambda p: rf"\frac{{{p[0]}}}{{{p[1]}}}"),
    st.tuples(st.integers(1, 9), st.integers(12, 18)).map(lambda p: f"{p[0] / 7:.{p[1]}f}"),
)
SINGLE = st.one_of(
    NUMBERS,
    st.tuples(st.integers(0, 30), st.integers(0, 70)).map(lambda p: f"{p[0]}:{p[1]:02}"),
    st.tuples(st.integers(1, 9), st.integers(1, 9)).map(lambda p: f"{p[0]}:{p[1]}"),
    st.sampled_from(["no", "on", "ab", "ba", "No", "none", "listen", "12_5", "12_6", "12"]),
    st.sampled_from(["2x+1", "1+2x", r"\sqrt{2}", "60%", "60", "0.6", r"a\cup b", r"\sin x", r"x\le 3"]),
    st.sampled_from(["4:30 p.m.", "4:30 a.m.", "16:30", "4:30", "3\\text{ to }4", r"\pi", "3.14159265358979", "3.141592654"]),
)
LISTS = st.tuples(st.sampled_from(["{},", "({})", "[{}]", "({}]", r"\{{{}\}}"]), st.lists(SINGLE, min_size=2, max_size=4)).map(
    lambda p: p[0].format(", ".join(p[1])).removesuffix(",")
)
ANYTHING = st.one_of(
    SINGLE, LISTS, st.tuples(st.sampled_from(["x=", "y=", "x_1=", "f(x)=", "AB=", r"x\in "]), st.one_of(SINGLE, LISTS)).map("".join)
)


@settings(max_examples=1000, deadline=None)
@given(ANYTHING, ANYTHING, st.booleans())
def test_exact_rules_and_what_they_leave_open_do_not_depend_on_the_side(a: str, b: str, algebra_says: bool) -> None:
    form_a, form_b = normalise(a), normalise(b)
    assert form_a is not None and form_b is not None
    assert decide(form_a, form_b) is decide(form_b, form_a)
    assert compare(form_a, form_b, lambda x, y: algebra_says) is compare(form_b, form_a, lambda x, y: algebra_says)


@settings(max_examples=300, deadline=None)
@given(forms=st.lists(ANYTHING, min_size=2, max_size=9), data=st.data())
@pytest.mark.slow
def test_a_class_never_holds_two_answers_that_exact_rules_keep_apart(judge: Judge, forms: list[str], data: st.DataObject) -> None:
    ballots = judge.ballots_sync("math", [(f"\\boxed{{{form}}}", "stop") for form in forms])
    for x, y in itertools.combinations(range(len(forms)), 2):
        a, b = ballots.answer_G[x].text, ballots.answer_G[y].text
        if a is not None and b is not None and ballots.class_G[x] == ballots.class_G[y]:
            assert decide(a, b) is not False
    order = data.draw(st.permutations(range(len(forms))))
    shuffled = judge.ballots_sync("math", [(f"\\boxed{{{forms[i]}}}", "stop") for i in order]).class_G
    for x, y in itertools.combinations(range(len(forms)), 2):
        assert (shuffled[x] == shuffled[y]) == (ballots.class_G[order[x]] == ballots.class_G[order[y]])


@settings(max_examples=300)
@given(st.integers(1, 10**6), st.integers(1, 10**6), st.integers(-300, 20))
def test_numbers_of_any_size_are_equal_only_when_their_values_are(a: int, b: int, power: int) -> None:
    x, y = rf"{a}\times10^{{{power}}}", rf"\frac{{{b}}}{{1}}"
    assert decide(x, rf"{b}\times10^{{{power}}}") is (a == b)
    assert decide(x, f"{a}e{power}") is True and decide(x, rf"{10 * a}\cdot10^{{{power - 1}}}") is True
    assert decide(x, y) is (Fraction(a) * Fraction(10) ** power == b)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(a=FORMS, b=FORMS)
def test_equality_is_symmetric_and_reflexive(judge: Judge, a: str, b: str) -> None:
    assert judge.equal_sync("math", a, a) is True
    assert judge.equal_sync("math", a, b) is judge.equal_sync("math", b, a)


@settings(max_examples=30, deadline=None)
@given(data=st.data(), forms=st.lists(FORMS, min_size=1, max_size=8))
def test_the_order_of_a_group_does_not_change_its_classes(judge: Judge, data: st.DataObject, forms: list[str]) -> None:
    order = data.draw(st.permutations(range(len(forms))))
    straight = judge.ballots_sync("math", [(f"\\boxed{{{f}}}", "stop") for f in forms]).class_G
    shuffled = judge.ballots_sync("math", [(f"\\boxed{{{forms[i]}}}", "stop") for i in order]).class_G
    for x, y in itertools.combinations(range(len(forms)), 2):
        assert (shuffled[x] == shuffled[y]) == (straight[order[x]] == straight[order[y]])


@settings(max_examples=60, deadline=None)
@given(numerator=st.integers(-50, 50), power=st.integers(0, 6))
def test_a_decimal_equals_its_fraction(judge: Judge, numerator: int, power: int) -> None:
    assert judge.equal_sync("math", str(numerator / 2**power), rf"\frac{{{numerator}}}{{{2**power}}}") is True
