"""Runs beside each other, paired by question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from test_report_metrics import LABELLED, a_run, poll, question, step
from test_report_over_time import trained_on_all

from sttrl.ledger.records import FinishedQuestion
from sttrl.report import NO_GRADES, ComparedRun, Grades, compare_table, summarise
from sttrl.report.comparison import differences, notes, paired_difference, same_base
from sttrl.report.metrics import score_questions
from sttrl.report.statistics import interval_of_gain

CONFIG: dict[str, Any] = {"dataset": "AIME-TTT", "model": "m", "val_samples": 4, "ids": [], "val_temp": 0.6, "temp": 1.0}


def compared(
    finished: Sequence[FinishedQuestion], grades: Grades = LABELLED, config: Mapping[str, Any] = CONFIG, name: str = "run"
) -> ComparedRun:
    return ComparedRun(name=name, summary=summarise(finished, grades, {}), config=config, finished=finished, grades=grades)


def adapted_to(*answers: Sequence[str], greedy: str = "3") -> list[FinishedQuestion]:
    """A run whose base is wrong everywhere, and whose adapted samples are these; the label is 7."""
    base = poll(["3", "3", "3", "3"], "3")
    return [
        question(number, {"base": base, "adapted": poll(each, greedy)}, [step(0, ["3", "7", "7"])]) for number, each in enumerate(answers)
    ]


FIRST = adapted_to(["7", "3", "3", "3"], ["7", "7", "3", "3"], ["3", "3", "3", "3"])
SECOND = adapted_to(["7", "7", "7", "3"], ["7", "7", "7", "3"], ["7", "3", "3", "3"], greedy="7")
NONE = [question(number, {"base": poll(["3", "3", "3", "3"], "3")}) for number in range(3)]


def difference(first: Sequence[FinishedQuestion], second: Sequence[FinishedQuestion], metric: str, grades: Grades = LABELLED) -> Any:
    return paired_difference(score_questions(first, grades), score_questions(second, grades), metric)


def test_a_paired_difference_by_hand() -> None:
    mean = difference(FIRST, SECOND, "mean@k")
    assert (mean.n, mean.mean, mean.p_value) == (3, pytest.approx((0.5 + 0.25 + 0.25) / 3), 2 / 8)
    assert mean.interval == interval_of_gain([0.25, 0.5, 0.0], [0.75, 0.75, 0.25])
    maj = difference(FIRST, SECOND, "maj@k")
    assert (maj.n, maj.mean, maj.p_value) == (3, pytest.approx(2 / 3), 0.5), "a tie is wrong; two questions changed"
    assert difference(FIRST, SECOND, "greedy").mean == 1.0


def test_a_run_against_itself() -> None:
    found = difference(FIRST, FIRST, "mean@k")
    assert (found.n, found.mean, found.p_value) == (3, 0.0, 1.0)


def test_turning_the_runs_round_turns_the_difference() -> None:
    there, back = difference(FIRST, SECOND, "mean@k"), difference(SECOND, FIRST, "mean@k")
    assert (there.mean, there.p_value) == (pytest.approx(-back.mean), back.p_value)


def test_a_run_that_does_not_adapt_counts_its_base() -> None:
    assert difference(NONE, FIRST, "mean@k").mean == pytest.approx(0.25)
    assert difference(FIRST, NONE, "mean@k").mean == pytest.approx(-0.25)


def test_only_questions_of_both_runs_with_a_label_are_paired() -> None:
    assert difference(FIRST, SECOND[1:], "mean@k").n == 2
    assert difference(FIRST, SECOND, "mean@k", Grades(verdicts={"q1": {"7": True}})).n == 1
    unpolled = [question(0, {}, status="failed", stop=None), *SECOND[1:]]
    assert difference(FIRST, unpolled, "mean@k").n == 2
    nothing = difference(FIRST, SECOND, "mean@k", NO_GRADES)
    assert (nothing.n, nothing.mean, nothing.interval, nothing.p_value) == (0, None, None, None)


def test_questions_are_paired_by_id_not_by_place() -> None:
    assert difference(FIRST, SECOND[::-1], "mean@k") == difference(FIRST, SECOND, "mean@k")


def test_whether_the_base_polls_are_the_same() -> None:
    other = [question(0, {"base": poll(["3", "3", "7", "3"], "3")}), *SECOND[1:]]
    assert same_base(compared(FIRST), compared(SECOND)) == (3, 3)
    assert same_base(compared(FIRST), compared(other)) == (2, 3)
    assert same_base(compared(FIRST, NO_GRADES), compared(other[:2], NO_GRADES)) == (1, 2)


def test_the_table_of_runs() -> None:
    runs = [compared(each, name=name) for each, name in ((FIRST, "first"), (SECOND, "second"), (NONE, "third"))]
    table = compare_table(runs)
    lines = table.splitlines()
    assert lines[:3] == ["A  first", "B  second", "C  third"]
    assert "Warning" not in table and "Note" not in table
    start = next(number for number, line in enumerate(lines) if line.split()[:2] == ["n", "same"])
    assert lines[start].split() == ["n", "same", "base", "mean@k", "p", "maj@k", "p", "greedy", "p"]
    assert lines[start + 1].startswith("B  3  3/3        +.333 [") and lines[start + 1].split()[6] == ".250"
    assert lines[start + 2].startswith("C  3  3/3        -.250 [")
    assert max(map(len, lines)) <= 100
    assert table.count("0 lost") == 2


def test_runs_without_labels_pair_nothing() -> None:
    lines = compare_table([compared(FIRST, NO_GRADES), compared(SECOND, NO_GRADES)]).splitlines()
    assert any(line.split() == ["B", "0", "3/3", *"-" * 6] for line in lines)


def test_one_run_has_nothing_to_be_paired_with() -> None:
    assert "same base" not in compare_table([compared(FIRST)])


def test_tables_of_many_and_of_wide_runs_fit() -> None:
    count = 40
    worse = [question(number, {"base": poll(["7"] * 4, "7"), "vote_same_tokens": poll(["7"] * 64), "adapted": poll(["3"] * 4, "3")},
                      [step(0, ["3", "7"])]) for number in range(count)]  # fmt: skip
    grades = Grades(verdicts={f"q{number}": {"7": True, "3": False} for number in range(count)})
    best = [question(number, {"base": poll(["7"] * 4, "7")}) for number in range(count)]
    runs = [compared(best, grades), *[compared(worse, grades)] * 30]
    table = compare_table(runs)
    assert max(map(len, table.splitlines())) <= 100
    assert "-1.00 [-1.0, -.82]  <.001" in table
    for finished in (a_run(), trained_on_all()):
        assert max(map(len, compare_table([compared(finished)] * 2).splitlines())) <= 100


@pytest.mark.parametrize(
    "changes", [{"dataset": "AMC-TTT"}, {"val_samples": 8}, {"val_temp": 1.0}, {"val_top_p": 0.5}, {"prompt_format": "{question}"},
                {"max_prompt_tokens": 9}, {"answer_kind": "math"}, {"question_views": 2}, {"question_view_form": "wordings"},
                {"instruction": "Think."}]
)  # fmt: skip
def test_runs_that_cannot_be_compared(changes: dict[str, Any]) -> None:
    (name,) = changes
    table = compare_table([compared(FIRST), compared(SECOND, config={**CONFIG, **changes})])
    assert f"Warning: not comparable: --{name} is" in table


def test_runs_in_which_memo_averages_over_views_can_be_compared() -> None:
    averaged = {"adaptation_method": "memo", "memo_form": "token", "question_views": 4, "question_view_form": "wordings"}
    assert "question_view" not in compare_table([compared(FIRST), compared(SECOND, config={**CONFIG, **averaged})])


@pytest.mark.parametrize(
    ("changes", "remark"),
    [
        ({"model": "n"}, "the bases differ"),
        ({"temp": 0.6}, "the votes with the same tokens"),
        ({"ties": "first"}, "decides ties otherwise"),
    ],
)
def test_what_else_the_reader_must_know(changes: dict[str, Any], remark: str) -> None:
    runs = [compared(FIRST), compared(SECOND, config={**CONFIG, **changes})]
    assert differences(runs) == ()
    assert len(notes(runs)) == 1
    assert remark in compare_table(runs) and "Note: --" in compare_table(runs) and "Warning" not in compare_table(runs)


def test_runs_over_other_questions_are_paired_where_both_are() -> None:
    table = compare_table([compared(FIRST), compared(SECOND[:2])])
    assert "the finished questions are not the same (3 and 2 of them)" in table
    assert any(line.startswith("B  2  2/2") for line in table.splitlines())


def test_the_same_runs_give_the_same_table() -> None:
    assert compare_table([compared(FIRST), compared(SECOND)]) == compare_table([compared(FIRST), compared(SECOND)])
