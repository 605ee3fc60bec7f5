"""Chosen on one half of the questions, judged on the other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import pytest
from test_report_sweep import IDS, adapted, base_only, run_in

from sttrl.cli import main
from sttrl.errors import UsageError
from sttrl.report.statistics import interval_of_gain, interval_of_mean
from sttrl.sweep.halves import Candidate, half_of, judge, report_halves

FIRST = [number for number, question in enumerate(IDS) if half_of(question) == 0]
SECOND = [number for number, question in enumerate(IDS) if half_of(question) == 1]


def right_on(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """What `adapted` takes: the adapted policy elects the right answer to these questions only."""
    return [(1, 4 if number in numbers else 0) for number in range(len(IDS))]


def test_a_half_is_of_the_id_alone() -> None:
    halves = [half_of(f"q{number}") for number in range(1000)]
    assert set(halves) == {0, 1} and 450 < sum(halves) < 550
    assert [half_of(f"q{number}") for number in range(6)] == halves[:6]
    assert FIRST and SECOND, "the questions of these tests are in both"


def candidate(name: str, value: dict[str, float], confidence: float = 0.5) -> Candidate:
    return Candidate(name=name, value_P=value, confidence_P=dict.fromkeys(value, confidence))


def test_the_choice_of_one_half_is_judged_on_the_other() -> None:
    """One candidate is perfect on the first half and useless on the second; the other the other way round; so both choices are judged 0."""
    one = candidate("one", {question: float(half_of(question) == 0) for question in IDS})
    two = candidate("two", {question: float(half_of(question) == 1) for question in IDS})
    first, second = judge([one, two])
    assert (first.name, second.name) == ("one", "two")
    assert set(first.chosen_P.values()) == set(second.chosen_P.values()) == {1.0}
    assert set(first.value_P.values()) == set(second.value_P.values()) == {0.0}
    assert set(first.value_P) == set(second.chosen_P) == {IDS[number] for number in SECOND}


def test_of_equals_the_first_is_chosen_and_only_shared_questions_count() -> None:
    same = dict.fromkeys(IDS, 0.5)
    fewer = dict.fromkeys([IDS[FIRST[0]], IDS[SECOND[0]]], 0.5)
    first, second = judge([candidate("a", same), candidate("b", fewer)])
    assert (first.name, second.name, len(first.value_P), len(second.value_P)) == ("a", "a", 1, 1)


def test_what_cannot_be_judged() -> None:
    with pytest.raises(UsageError, match="no run has an adapted policy"):
        judge([])
    with pytest.raises(UsageError, match="one half has no question"):
        judge([candidate("a", {IDS[FIRST[0]]: 1.0})])
    with pytest.raises(UsageError, match="no question that all runs have"):
        judge([candidate("a", {IDS[0]: 1.0}), candidate("b", {IDS[1]: 1.0})])


def test_the_report_of_two_rows_by_hand(tmp_path: Path) -> None:
    """The confidence vote of the base is always right in these runs, its majority always wrong."""
    sweep = tmp_path / "outputs" / "votes"
    run_in(sweep, "majority", adapted(*right_on(FIRST)))
    run_in(sweep, "energy", adapted(*right_on([*SECOND, FIRST[0]])), voting_function="energy")
    lines = report_halves([sweep]).splitlines()
    assert lines[0] == f"chosen of 6 candidates, halves of {len(FIRST)} and {len(SECOND)} questions"
    chosen = [line.split(": ", 1)[1] for line in lines if line.startswith(("half 1: ", "half 2: "))]
    assert chosen == ["majority: adapted, by majority", "energy: adapted, by majority"]
    rows = {line[:6].strip(): line.split() for line in lines if line[:6] in ("half 1", "half 2", "both  ") and "[" in line}
    judged = 1 / len(FIRST)
    assert rows["half 1"][2:4] == ["1.00", ".000"], "perfect where it was chosen, useless where it is judged"
    assert rows["half 2"][2:4] == ["1.00", f"{judged:.3f}"[1:]]
    values, others = [0.0] * len(SECOND) + [1.0] + [0.0] * (len(FIRST) - 1), [1.0] * len(IDS)
    ends, gain = interval_of_mean(values), interval_of_gain(others, values)
    assert ends is not None and gain is not None
    assert rows["both"][1:4] == [f"{fmean(values):.3f}"[1:], f"[{ends.low:.2f},".replace("0.", "."), f"{ends.high:.2f}]".replace("0.", ".")]
    assert rows["both"][4:6] == ["1.00", f"-{1 - fmean(values):.3f}".replace("0.", ".")]


def test_seeds_are_one_row_and_a_failed_question_keeps_its_base(tmp_path: Path) -> None:
    runs = [
        run_in(tmp_path / "s", "0", adapted(*right_on(FIRST), changes={FIRST[0]: {"status": "failed"}})),
        run_in(tmp_path / "s", "1", adapted(*right_on(SECOND)), seed=1),
        run_in(tmp_path / "s", "none", base_only(*([1] * len(IDS))), adaptation_method="none"),
    ]
    lines = report_halves(runs).splitlines()
    assert lines[0].startswith("chosen of 3 candidates"), "a run that does not adapt has none"
    row = next(line.split() for line in lines if line.startswith("half 1") and "[" in line)
    assert row[2] == f"{0.5 * (len(FIRST) - 1) / len(FIRST):.3f}"[1:], "half of the seeds are right, but for the failed question"


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = tmp_path / "outputs" / "votes"
    run_in(sweep, "majority", adapted(*right_on(FIRST)))
    assert main(["report", str(sweep), "--halves"]) == 0
    assert capsys.readouterr().out.startswith("chosen of 3 candidates")
    alone = run_in(tmp_path / "other", "none", base_only(1, 1), adaptation_method="none")
    assert main(["report", str(alone), "--halves"]) == 2
    assert "--halves: no run has an adapted policy beside votes with the same tokens." in capsys.readouterr().err
