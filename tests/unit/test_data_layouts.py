"""Questions, options and labels of published layouts: nothing of a question is lost, and no label can change what is asked.

The rows are invented; each has the fields of the data set that it is named after, as its authors publish it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from sttrl.data import SourceSpec, Table, questions, read_table
from sttrl.errors import DataRowError, UsageError
from sttrl.questions import describe
from sttrl.questions.check import COUNTED, warnings
from sttrl.questions.labels import labels
from sttrl.types import AnswerKind

Row = Mapping[str, Any]
LAYOUTS: dict[str, tuple[list[Row], str, str, list[str]]] = {
    "AQuA (deepmind/aqua_rat)": (
        [
            {"question": "What is 3 * 7?", "options": ["A)20", "B)21", "C)22"], "rationale": "Three sevens.", "correct": "B"},
            {"question": "What is 3 + 7?", "options": ["A)10", "B)21", "C)37"], "rationale": "Count on.", "correct": "A"},
        ],
        "What is 3 * 7?\n\nA. 20\nB. 21\nC. 22", "choice", ["B", "A"],
    ),
    "ARC (allenai/ai2_arc)": (
        [
            {"id": "Q_1", "question": "What melts?", "choices": {"text": ["ice", "fog"], "label": ["A", "B"]}, "answerKey": "A"},
            {"id": "Q_2", "question": "What flies?", "choices": {"text": ["ant", "owl"], "label": ["1", "2"]}, "answerKey": "2"},
        ],
        "What melts?\n\nA. ice\nB. fog", "choice", ["A", "B"],
    ),
    "ARC (AI2's own files)": (
        [
            {"id": "Q_1", "question": {"stem": "What melts?", "choices": [{"text": "fog", "label": "A"}, {"text": "ice", "label": "B"}]},
             "answerKey": "B"},
        ],
        "What melts?\n\nA. fog\nB. ice", "choice", ["B"],
    ),
    "MMLU (cais/mmlu)": (
        [
            {"question": "2 + 1?", "subject": "arithmetic", "choices": ["0", "1", "2", "3"], "answer": 3},
            {"question": "1 - 1?", "subject": "arithmetic", "choices": ["0", "1", "2", "3"], "answer": 0},
        ],
        "2 + 1?\n\nA. 0\nB. 1\nC. 2\nD. 3", "choice", ["D", "A"],
    ),
    "MMLU-Pro (TIGER-Lab/MMLU-Pro)": (
        [
            {"question_id": 7, "question": "Which?", "options": [f"the {n}th" for n in range(10)], "answer": "J", "answer_index": 9,
             "cot_content": "", "category": "math", "src": "made"},
        ],
        "Which?\n\n" + "\n".join(f"{letter}. the {n}th" for n, letter in enumerate("ABCDEFGHIJ")), "choice", ["J"],
    ),
    "MedQA (options by letter, the answer's text)": (
        [{"question": "Which?", "options": {"A": "flu", "B": "gout"}, "answer": "gout", "answer_idx": "B", "meta_info": "step1"}],
        "Which?\n\nA. flu\nB. gout", "choice", ["B"],
    ),
    "CMMLU (a column an option)": (
        [
            {"Question": "Which?", "A": "one", "B": "two", "C": "three", "D": "four", "Answer": "C"},
            {"Question": "Which now?", "A": "one", "B": "two", "C": "three", "D": "", "Answer": "A"},
        ],
        "Which?\n\nA. one\nB. two\nC. three\nD. four", "choice", ["C", "A"],
    ),
    "KMMLU (a column an option, numbers from 1)": (
        [{"question": f"Which is {n}?", "A": "one", "B": "two", "C": "three", "D": "four", "answer": n} for n in (4, 1)],
        "Which is 4?\n\nA. one\nB. two\nC. three\nD. four", "choice", ["D", "A"],
    ),
    "MathQA (options as one text)": (
        [{"Problem": "Which?", "Rationale": "So.", "options": "a ) 38 , b ) 27.675 , c ) none of these", "correct": "c"}],
        "Which?\n\na ) 38 , b ) 27.675 , c ) none of these", "choice", ["C"],
    ),
    "SVAMP (ChilleD/SVAMP)": (
        [
            {"ID": "chal-1", "Body": "Ann has 3 figs and eats 1.", "Question": "How many are left?", "Equation": "( 3.0 - 1.0 )",
             "Answer": 2.0, "Type": "Subtraction"},
        ],
        "Ann has 3 figs and eats 1.\nHow many are left?", "math", ["2"],
    ),
    "OlympiadBench (Hothan/OlympiadBench)": (
        [
            {"id": 1, "question": "Find $x$.", "context": None, "solution": ["So."], "final_answer": ["$3$"], "is_multiple_answer": False},
            {"id": 2, "question": "Find $y$.", "context": "Let $x=1$.", "solution": ["So."], "final_answer": ["1", "2"],
             "is_multiple_answer": True},
        ],
        "Find $x$.", "math", ["$3$", "1, 2"],
    ),
    "Alpaca (tatsu-lab/alpaca)": (
        [
            {"instruction": "Add the numbers.", "input": "3, 4", "output": "7", "text": "Below is an instruction"},
            {"instruction": "Say two.", "input": "", "output": "2", "text": "Below is an instruction"},
        ],
        "Add the numbers.\n3, 4", "math", ["7", "2"],
    ),
    "verl (a list of messages)": (
        [
            {"data_source": "made", "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "3 + 4?"}],
             "ability": "math", "reward_model": {"style": "rule", "ground_truth": "7"}, "extra_info": {"index": 0}},
        ],
        "3 + 4?", "math", ["7"],
    ),
}  # fmt: skip
NAMES = list(LAYOUTS)


def read(folder: Path, rows: Sequence[Row], kind: AnswerKind | None = None, **columns: Any) -> Table:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return read_table(SourceSpec(dataset=str(path), answer_kind=kind, **columns))


@pytest.mark.parametrize("name", NAMES)
def test_a_published_layout_is_read_whole(tmp_path: Path, name: str) -> None:
    rows, text, kind, right = LAYOUTS[name]
    table = read(tmp_path, rows)
    assert questions(table)[0].text == text
    assert (table.dataset.kind, list(labels(table).values())) == (kind, right)
    assert warnings(table) == ()
    assert ("letter" in str(table.dataset.instruction)) == (kind == "choice")


@pytest.mark.parametrize("name", NAMES)
def test_what_is_asked_does_not_depend_on_the_label(tmp_path: Path, name: str) -> None:
    rows = LAYOUTS[name][0]
    asked = questions(read(tmp_path, rows))
    answer = read(tmp_path, rows).columns.answer
    rng = random.Random(name)
    for _ in range(20):
        odd = [{**row, answer: rng.choice([None, 0, 1, "A", "D", "zzz", 2.0, ["x"], {"ground_truth": "9"}, True])} for row in rows]
        assert questions(read(tmp_path, odd)) == asked
    assert questions(read(tmp_path, [{key: cell for key, cell in row.items() if key != answer} for row in rows])) == asked


@pytest.mark.parametrize("name", NAMES)
def test_a_question_says_how_many_options_it_has(tmp_path: Path, name: str) -> None:
    counts = [question.option_count for question in questions(read(tmp_path, LAYOUTS[name][0]))]
    expected = {"AQuA": 3, "MMLU-": 10, "MMLU ": 4, "ARC (": 2, "MedQA": 2, "KMMLU": 4, "CMMLU": 4}
    assert counts[0] == expected.get(name[:5], expected.get(name[:4]))


def test_an_empty_last_option_is_none(tmp_path: Path) -> None:
    second = questions(read(tmp_path, LAYOUTS["CMMLU (a column an option)"][0]))[1]
    assert second.text == "Which now?\n\nA. one\nB. two\nC. three" and second.option_count == 3


def test_a_context_that_a_row_lacks_or_the_question_repeats_is_left_out(tmp_path: Path) -> None:
    rows = [{"question": "Why?", "context": None}, {"question": "Why?", "context": "It rains."}, {"question": "It rains. Why?",
             "context": "It rains."}]  # fmt: skip
    assert [question.text for question in questions(read(tmp_path, rows))] == ["Why?", "It rains.\nWhy?", "It rains. Why?"]
    assert read(tmp_path, [{"question": "Why?", "context": {"title": ["x"]}}]).columns.unused == ("context",)
    with pytest.raises(DataRowError, match="'question'.*is missing"):
        read(tmp_path, [{"question": None, "context": "It rains."}, *rows])


def test_a_verl_row_keeps_its_system_message(tmp_path: Path) -> None:
    (question,) = questions(read(tmp_path, LAYOUTS["verl (a list of messages)"][0]))
    assert (question.text, question.system) == ("3 + 4?", "Be brief.")
    (blank,) = questions(read(tmp_path, [{"prompt": [{"role": "system", "content": " "}, {"role": "user", "content": "3 + 4?"}]}]))
    assert (blank.text, blank.system) == ("3 + 4?", None)


@pytest.mark.parametrize(
    "text",
    [
        "Which? A) ice B) fog",
        "Which?\n(A) ice\n(B) fog",
        "Which? a. Ice; b. Fog.",
        "Which? $\\textbf{(A)}\\ ice\\qquad\\textbf{(B)}\\ fog$",
        "Which?\nA: ice\nB: fog",
    ],
)
def test_options_that_the_question_shows_are_not_shown_twice(tmp_path: Path, text: str) -> None:
    (question,) = questions(read(tmp_path, [{"question": text, "options": ["ice", "fog"]}]))
    assert (question.text, question.option_count) == (text, 2)


@pytest.mark.parametrize("text", ["Is ice or fog colder?", "Which? A) fog B) ice", "Which? A) ice", "A fog and ice"])
def test_options_that_are_only_mentioned_are_shown(tmp_path: Path, text: str) -> None:
    (question,) = questions(read(tmp_path, [{"question": text, "options": ["ice", "fog"]}]))
    assert question.text == f"{text}\n\nA. ice\nB. fog"


LABELLED: list[tuple[str, list[object], list[object], list[str]]] = [
    ("letters", ["(b)", "C.", "a"], ["x", "y", "z"], ["B", "C", "A"]),
    ("texts", ["y", " Z ", "X"], ["x", "y", "z"], ["B", "C", "A"]),
    ("texts with a letter", ["(B) y", "C. z"], ["x", "y", "z"], ["B", "C"]),
    ("numbers from 0", [0, 2], ["x", "y", "z"], ["A", "C"]),
    ("numbers from 0, as a table has them", ["0", "2.0"], ["x", "y", "z"], ["A", "C"]),
    ("numbers from 1", [1, 3], ["x", "y", "z"], ["A", "C"]),
    ("numbers that are texts of options", ["30", "10"], ["10", "20", "30"], ["C", "A"]),
    ("numbers that are indexes among numbers", [2, 0, 1], ["1", "2", "0"], ["C", "A", "B"]),
    ("numbers that are options", [30, 10], [10, 20, 30], ["C", "A"]),
    ("marked", ["so \\boxed{B}", "#### C"], ["x", "y", "z"], ["B", "C"]),
]


@pytest.mark.parametrize(("answers", "options", "right"), [case[1:] for case in LABELLED], ids=[case[0] for case in LABELLED])
def test_a_label_of_any_usual_form_becomes_its_letter(
    tmp_path: Path, answers: list[object], options: list[object], right: list[str]
) -> None:
    table = read(tmp_path, [{"question": f"{n}?", "options": options, "answer": answer} for n, answer in enumerate(answers)])
    assert list(labels(table).values()) == right


def test_a_label_that_means_no_option_is_warned_of(tmp_path: Path) -> None:
    rows = [{"question": "a?", "options": ["x", "y"], "answer": answer} for answer in ("A", "none of them")]
    (said,) = warnings(read(tmp_path, rows))
    assert said == "1 questions have a label that no answer can equal (the answers are of the kind choice): row 2"


def test_numbers_that_may_count_from_0_or_from_1_are_warned_of(tmp_path: Path) -> None:
    def rows(*answers: int) -> list[dict[str, object]]:
        return [{"question": f"{n}?", "options": ["w", "x", "y", "z"], "answer": answer} for n, answer in enumerate(answers)]

    assert warnings(read(tmp_path, rows(1, 2, 3))) == (COUNTED,)
    assert not warnings(read(tmp_path, rows(0, 1, 3))) and not warnings(read(tmp_path, rows(1, 2, 4)))


def test_where_answers_are_no_choices_a_letter_is_its_option_s_text(tmp_path: Path) -> None:
    table = read(tmp_path, LAYOUTS["AQuA (deepmind/aqua_rat)"][0], "number")
    assert list(labels(table).values()) == ["21", "10"] and "A. 20" in table.rows[0].text


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["only one"], "holds 1 options"),
        (["x"] * 27, "holds 27 options"),
        (["x", None], "not text"),
        (["x", ["y"]], "not text"),
        ({"right": "x", "wrong": "y"}, "no list"),
        (7, "no list"),
        ("['x' 'y']", "holds 1 options"),
        ("[x, y]", "no list can be read"),
    ],
)
def test_options_that_cannot_be_read_are_a_bad_row(tmp_path: Path, options: object, reason: str) -> None:
    good = {"question": "a?", "options": ["x", "y"]}
    with pytest.raises(DataRowError, match=reason) as caught:
        read(tmp_path, [good, good, {"question": "a?", "options": options}])
    assert (caught.value.line, caught.value.field) == (3, "options")


@pytest.mark.parametrize("other", [{"index": 1}, "4", ["one"], [{"message": "hi"}], 3])
def test_a_column_of_that_name_that_holds_no_options_is_not_used(tmp_path: Path, other: object) -> None:
    table = read(tmp_path, [{"question": "a?", "choices": other, "answer": "4"}])
    assert (table.rows[0].text, table.columns.unused, table.dataset.kind) == ("a?", ("choices",), "math")


def test_named_columns_are_joined_in_their_order(tmp_path: Path) -> None:
    rows = [{"story": "It rains.", "ask": "Why?", "hint": ""}, {"story": "It snows.", "ask": "Why?", "hint": "Think."}]
    table = read(tmp_path, rows, question_column=("story", "ask", "hint"))
    assert [row.text for row in table.rows] == ["It rains.\nWhy?", "It snows.\nWhy?\nThink."]
    with pytest.raises(UsageError, match="--question_column 'asks'.*'ask'"):
        read(tmp_path, rows, question_column=("story", "asks"))
    with pytest.raises(UsageError, match="answer's column too"):
        read(tmp_path, rows, question_column=("story", "ask"), answer_column="ask")
    with pytest.raises(DataRowError, match="'story'.*is empty"):
        read(tmp_path, [*rows, {"story": " ", "ask": None}], question_column=("story", "ask"))


def test_the_description_names_every_part_and_shows_the_whole_question(tmp_path: Path) -> None:
    rows = [{**LAYOUTS["SVAMP (ChilleD/SVAMP)"][0][0], "options": ["A)1", "B)2"], "Answer": "B"}]
    said = describe(read(tmp_path, rows))
    assert "question 'Body' + 'Question', options 'options', answer 'Answer', id 'ID'" in said
    assert "not used   'Equation', 'Type'" in said
    shown = [line[4:] for line in said.splitlines() if line.startswith("  | ")]
    text, instruction = "\n".join(shown).rsplit("\n", 1)
    assert text == "Ann has 3 figs and eats 1.\nHow many are left?\n\nA. 1\nB. 2" and "letter of your final answer" in instruction
    assert "with --model" in said and "chat template" in said


def test_decimals_of_a_parquet_file_are_labels(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    rows = [{"question": "a?", "answer": Decimal("142.00")}, {"question": "b?", "answer": Decimal("0.50")}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    table = read_table(SourceSpec(dataset=str(tmp_path / "rows.parquet"), answer_kind="number"))
    assert list(labels(table).values()) == ["142", "0.5"] and warnings(table) == ()


@pytest.mark.parametrize("name", NAMES)
def test_a_layout_is_the_same_from_a_parquet_file(tmp_path: Path, name: str) -> None:
    import pyarrow
    import pyarrow.parquet

    rows, text, kind, right = LAYOUTS[name]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), tmp_path / "rows.parquet")
    table = read_table(SourceSpec(dataset=str(tmp_path / "rows.parquet")))
    assert (questions(table)[0].text, table.dataset.kind, list(labels(table).values())) == (text, kind, right)
