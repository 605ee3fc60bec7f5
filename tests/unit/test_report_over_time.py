"""A policy that is trained on all questions: what it could do after so many steps."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from pages import held, loaded, page_of
from test_report_metrics import LABELLED, a_run, poll, question, step, voteless

from sttrl.ledger.records import FinishedQuestion
from sttrl.report import NO_GRADES, Labels, before_after_table, grade, summarise
from sttrl.report.tables import thinned
from sttrl.types import AnswerKind


def trained_on_all(evaluations: int = 1) -> list[FinishedQuestion]:
    """Two questions, one vote each in steps 0 to 3, evaluated every other step and at both ends; the label is 7."""
    wrong, half, right = poll(["3", "3"]), poll(["7", "7", "3", "3"]), poll(["7", "7", "7", "7"])
    return [
        question(0, {"base": wrong, "adapted": right}, [step(0, ["3", "3", "7", None]), step(2, ["7", "7", "7", "3"])], {2: half}),
        question(1, {"base": half, "adapted": right}, [step(1, ["7", "7"]), step(3, ["7", "3"], updated=False)], {2: right}),
    ]


def test_over_time_by_hand() -> None:
    rows = summarise(trained_on_all(), LABELLED, {})["over_time"]
    assert [(row["step"], row["questions"], row["votes"]) for row in rows] == [(0, 2, 1), (1, 0, 1), (2, 2, 1), (3, 0, 1), (4, 2, 0)]
    assert [row["mean@k"] for row in rows] == [0.25, None, 0.75, None, 1.0]
    assert [row["maj@k"] for row in rows] == [0.0, None, 0.5, None, 1.0]
    assert [row["label_accuracy"] for row in rows] == [0.0, 1.0, 1.0, 0.0, None]
    assert [row["reward_accuracy"] for row in rows] == [0.25, 1.0, 1.0, 0.5, None]
    assert [row["majority_ratio"] for row in rows] == [0.5, 1.0, 0.75, 0.0, None]


def test_a_vote_of_two_questions_is_averaged_over_them() -> None:
    votes = (["7", "7"], ["3", "3", "7", None])
    finished = [question(number, {}, [step(5, answers)], {5: poll(["7"])}) for number, answers in enumerate(votes)]
    (row,) = summarise(finished, LABELLED, {})["over_time"]
    assert (row["step"], row["votes"], row["label_accuracy"], row["majority_ratio"]) == (5, 2, 0.5, 0.75)
    assert (row["questions"], row["mean@k"]) == (2, 1.0)


def test_without_evaluations_in_between_there_is_no_over_time() -> None:
    summary = summarise(a_run(), LABELLED, {})
    assert summary["over_time"] is None
    assert "over time" not in before_after_table(summary)


def test_an_evaluation_after_the_last_step_is_the_one_that_counts() -> None:
    finished = [question(0, {"base": poll(["3"]), "adapted": poll(["7"])}, [step(0, ["7"])], {3: poll(["3"])})]
    assert [(row["step"], row["mean@k"]) for row in summarise(finished, LABELLED, {})["over_time"]] == [(0, 0.0), (3, 0.0)]


def test_over_time_without_labels_and_without_votes() -> None:
    rows = summarise(trained_on_all(), NO_GRADES, {})["over_time"]
    assert [row["questions"] for row in rows] == [2, 0, 2, 0, 2]
    assert {row["mean@k"] for row in rows} == {row["label_accuracy"] for row in rows} == {None}
    assert rows[0]["majority_ratio"] == 0.5
    silent = summarise([question(0, {"base": poll(["7"])}, [voteless(0), voteless(1)], {1: poll(["7"])})], LABELLED, {})["over_time"]
    assert [(row["step"], row["votes"], row["majority_ratio"]) for row in silent] == [(0, 0, None), (1, 0, None)]


def test_a_question_that_failed_before_the_end_is_left_out_there() -> None:
    failed = question(2, {"base": poll(["7"])}, [step(0, ["7"])], {2: poll(["7"])}, status="failed", stop=None)
    rows = {row["step"]: row["questions"] for row in summarise([*trained_on_all(), failed], LABELLED, {})["over_time"]}
    assert (rows[0], rows[2], rows[4]) == (3, 3, 2)


def test_answers_of_evaluations_are_graded(tmp_path: Path) -> None:
    class Seven:
        async def equal(self, kind: AnswerKind, a: str, b: str) -> bool | None:
            """Texts."""
            return a == b

    finished = [question(0, {"base": poll(["3"])}, [voteless(0)], {1: poll(["unheard of"])})]
    grades = asyncio.run(grade(finished, Labels(kind="number", by_id={"q0": "7"}), Seven(), tmp_path))
    assert grades.of("q0") == {"3": False, "unheard of": False}


@pytest.mark.parametrize(("count", "kept"), [(0, []), (1, [0]), (10, list(range(10))), (19, list(range(0, 19, 2)))])
def test_thinning_keeps_both_ends(count: int, kept: list[int]) -> None:
    assert [row["step"] for row in thinned([{"step": number} for number in range(count)])] == kept


def long_run() -> dict[str, Any]:
    """The summary of 300 steps, evaluated every fifth."""
    steps = [step(number, ["7", "3", "3"]) for number in range(300)]
    evaluations = {number: poll(["7", "3"]) for number in range(5, 300, 5)}
    return summarise([question(0, {"base": poll(["3"]), "adapted": poll(["7"])}, steps, evaluations)], LABELLED, {})


def test_the_block_in_the_table_is_short() -> None:
    lines = before_after_table(long_run()).splitlines()
    block = lines[lines.index("over time") :]
    block = block[: block.index("")]
    assert len(block) == 12
    assert block[1].split() == ["steps", "mean@1", "maj@1", "majority", "ratio", "label", "accuracy", "reward", "accuracy"]
    assert block[2].split() == ["0", ".000", ".000", ".667", ".000", ".000"]
    assert block[-1].split() == ["300", "1.00", "1.00", "-", "-", "-"]
    assert max(map(len, lines)) <= 100


def test_the_page_has_a_curve_for_every_number() -> None:
    page = page_of(loaded(trained_on_all(), LABELLED))
    assert page == page_of(loaded(trained_on_all(), LABELLED)), "the same run gives the same page"
    shown = held(page).runs[0]["time"]
    assert shown["columns"] == ["mean@4", "maj@4", "majority ratio", "label accuracy", "reward accuracy"] or shown["columns"][0] == "mean@3"
    assert {curve["label"]: curve["points"] for curve in shown["curves"]}["majority ratio"] == [[0, 0.5], [2, 0.75]]
    assert shown["rows"] == [
        ["0", ".250", ".000", ".500", ".000", ".250"],
        ["2", ".750", ".500", ".750", "1.00", "1.00"],
        ["4", "1.00", "1.00", "-", "-", "-"],
    ]
    unlabelled = {curve["label"]: curve["points"] for curve in held(page_of(loaded(trained_on_all(), NO_GRADES))).runs[0]["time"]["curves"]}
    assert unlabelled["majority ratio"] and not next(points for label, points in unlabelled.items() if label.startswith("mean@"))
