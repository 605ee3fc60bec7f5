"""Pairs of a response and a label that users met, judged the way the report grades a label."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path
from typing import Any, Final

import pytest

from sttrl.questions.answers import Judge
from sttrl.questions.labels import read_label

ROOT: Final = Path(__file__).resolve().parents[2]
CASES: Final = ROOT.parent / "shared" / "cases"
FILES: Final = ("judge_right_today.jsonl", "judge_wrong_today.jsonl")


def cases(name: str) -> list[dict[str, Any]]:
    """The cases of one file; none where the folder is absent."""
    path = CASES / name
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.is_file() else []


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    judge = Judge()
    yield judge
    judge.close_sync()


def graded(judge: Judge, case: dict[str, Any]) -> bool | None:
    """The verdict on one response: it is read and put into a class, and the class's first answer is compared with the label."""
    label = read_label(case["label"], case["kind"])
    assert label is not None, "the label cannot be read"
    (answer,) = judge.ballots_sync(case["kind"], [(case["prediction"], "stop")]).representative_C or (None,)
    return answer is not None and judge.equal_sync(case["kind"], answer, label)


@pytest.mark.skipif(not CASES.is_dir(), reason="no ../shared/cases beside the repository")
@pytest.mark.parametrize("name", FILES)
def test_every_pair_that_users_met_is_judged_as_a_person_would(judge: Judge, name: str) -> None:
    wrong = [case for case in cases(name) if graded(judge, case) is not case["equal"]]
    assert not wrong, "\n".join(json.dumps(case, ensure_ascii=False) for case in wrong)


def golden(name: str) -> list[dict[str, Any]]:
    """The project's own cases of one file."""
    return [json.loads(line) for line in (ROOT / "tests" / "golden" / name).read_text("utf-8").split("\n") if line]


READ: Final = golden("read_answers.jsonl")


@pytest.mark.parametrize("about", sorted({case["about"] for case in READ}))
def test_a_response_is_read_as_a_person_would(judge: Judge, about: str) -> None:
    def right(case: dict[str, Any]) -> bool:
        if case["label"] is None:
            return not judge.ballots_sync(case["kind"], [(case["response"], "stop")]).representative_C
        return graded(judge, case | {"prediction": case["response"]}) is case["equal"]

    wrong = [case for case in READ if case["about"] == about and not right(case)]
    assert not wrong, "\n".join(json.dumps(case, ensure_ascii=False) for case in wrong)


OWN: Final = golden("equal_answers.jsonl")


@pytest.mark.parametrize("about", sorted({case["about"] for case in OWN}))
def test_two_answers_are_equal_as_labels_and_as_votes_on_either_side(judge: Judge, about: str) -> None:
    wrong = [case for case in OWN if case["about"] == about and set(verdicts(judge, case)) != {case["equal"]}]
    assert not wrong, "\n".join(json.dumps(case, ensure_ascii=False) for case in wrong)


def verdicts(judge: Judge, case: dict[str, Any]) -> tuple[bool | None, ...]:
    """On the answer against the label, the label against the answer, and the two as votes."""
    a, b, kind = case["answer"], case["label"], case["kind"]
    votes = judge.ballots_sync(kind, [(f"\\boxed{{{text}}}", "stop") for text in (a, b)])
    as_votes = votes.class_G[0] is not None and votes.class_G[0] == votes.class_G[1]
    return judge.equal_sync(kind, a, b), judge.equal_sync(kind, b, a), as_votes


@pytest.mark.parametrize(
    "forms",
    [(r"4343_6", "4343", r"4343_7"), ("2", r"\{2\}", "2,2"), ("x=3", "3", "y=3"), ("4:20", "1:5", "1:05"), ("no", r"n\cdot o", "on")],
)
def test_an_answer_between_two_others_does_not_join_them(judge: Judge, forms: tuple[str, ...]) -> None:
    for order in permutations(forms):
        ballots = judge.ballots_sync("math", [(f"\\boxed{{{form}}}", "stop") for form in order])
        first, last = (ballots.class_G[order.index(form)] for form in (forms[0], forms[-1]))
        assert first is not None and last is not None and first != last, order
