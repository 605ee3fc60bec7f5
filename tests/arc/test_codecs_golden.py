"""Codecs against the published systems' texts, readers, limits and masks."""

from __future__ import annotations

import re

import pytest
from golden import cases

from sttrl.arc.codecs.base import Codec, Unreadable, Written
from sttrl.arc.codecs.cells import Cells
from sttrl.arc.codecs.colour_words import ColourWords
from sttrl.arc.codecs.dialogue import TOKEN, Dialogue
from sttrl.arc.codecs.limits import Fitted, TooLong, character_count, fit, max_new_tokens
from sttrl.arc.codecs.loss import LossRule, loss_spans
from sttrl.arc.codecs.numpy_text import NumpyText, numpy_text
from sttrl.arc.grids import as_grid
from sttrl.arc.tasks import Pair, Puzzle, Task
from sttrl.arc.views.key import View
from sttrl.arc.views.problem import ProblemKey
from sttrl.errors import DataError

KAGGLE = Cells(end="</s>", too_many_rows="cut")
MARC: dict[str, NumpyText | ColourWords] = {
    "new_format": NumpyText(),
    "default_no_flag": NumpyText(footer=""),
    "add_diff_format": NumpyText(difference=True),
    "barc_format_inference": ColourWords(),
    "barc_format": ColourWords(),
    "barc_format_training": ColourWords(dated=True),
}
IDS = {token: number for number, token in enumerate((*Dialogue().alphabet().plain, *Dialogue().alphabet().special))}


def cells(options: dict) -> Cells:
    options = dict(options)
    ending = options.pop("reply_end")
    end = ending.lstrip("\n")
    return Cells(
        preprompt=options["preprompt"],
        query_begin=options["query_beg"],
        reply_begin=options["reply_beg"],
        grid_end=ending.removesuffix(end),
        end=end,
        row_separator=options["lines_sep"],
    )


def view_of(key: str) -> View:
    return ProblemKey.read(key).view


def task_of(tasks: dict, name: str) -> Task:
    """A task of the golden data."""
    pairs = [Pair(input=as_grid(pair["input"]), output=as_grid(pair["output"])) for pair in tasks[name]["train"]]
    return Task(id=name, demos=tuple(pairs), tests=tuple(as_grid(test["input"]) for test in tasks[name]["test"]))


def puzzle_of(tasks: dict, key: str, answer: bool = True) -> Puzzle:
    """The puzzle that a key names; with its answer, where there is one."""
    read = ProblemKey.read(key)
    solutions = tasks[read.task].get("solutions") if answer and read.test is not None else None
    return read.puzzle(task_of(tasks, read.task), as_grid(solutions[read.test]) if solutions and read.test is not None else None)


def written_length(written: Written) -> int:
    return character_count(written.text)


def dialogue_length(written: Written) -> int:
    return len(TOKEN.findall(written.text))


def grid_or_none(value: object) -> list[list[int]] | None:
    return None if isinstance(value, Unreadable) else [list(row) for row in value]  # type: ignore[attr-defined]


def answered(puzzle: Puzzle, answer: object) -> Puzzle:
    return Puzzle(demos=puzzle.demos, query=puzzle.query, answer=answer)  # type: ignore[arg-type]


@pytest.mark.parametrize(("whole", "case"), cases("architects_text"))
def test_text_of_one_token_a_cell(whole: dict, case: dict) -> None:
    codec, expected = cells(case.get("fmt_opts", whole["fmt_opts"])), case["expected"]
    puzzle = puzzle_of(whole["tasks"], case["key"])
    if "reply_override" in case:
        puzzle = answered(puzzle, view_of(case["key"]).apply(as_grid(case["reply_override"])))
    train = codec.write(Puzzle(demos=puzzle.demos, query=None)).text
    prompt = "" if puzzle.query is None else codec.write(answered(puzzle, None)).text
    if puzzle.query is None or case.get("no_reply"):
        ours = {"text": train, "reply": None}
    else:
        assert puzzle.answer is not None
        ours = {"text": codec.write(puzzle).text, "reply": codec.answer(puzzle.answer)}
    ours |= {"train": train, "input": prompt, "query": prompt.removeprefix(train)}
    assert {name: ours[name] for name in expected} == expected
    for name, count in case.get("counts", {}).items():
        assert character_count(ours[name] or "") == count, name


def test_most_tokens_of_a_reply() -> None:
    for whole in {id(whole): whole for whole, _ in cases("architects_text") if "max_new_tokens" in whole}.values():
        assert max_new_tokens(cells(whole["fmt_opts"]), character_count) == whole["max_new_tokens"]


@pytest.mark.parametrize(("whole", "case"), cases("architects_decode"))
def test_reading_one_token_a_cell(whole: dict, case: dict) -> None:
    found = Cells().read(case["text"])
    grid = None if isinstance(found, Unreadable) else view_of(case["key"]).invert(found)
    assert (None if grid is None else [list(row) for row in grid]) == case["expected"]["output"]


@pytest.mark.parametrize(("whole", "case"), cases("architects_token_limit"))
def test_demonstrations_are_dropped_from_the_end(whole: dict, case: dict) -> None:
    codec, expected = cells(whole["fmt_opts"]), case["expected"]
    puzzle = puzzle_of(whole["tasks"], case["key"], answer=case["len_name"] == "text")
    fitted = fit(codec, puzzle, written_length, case["max_tokens"])
    if "error" in expected:
        assert isinstance(fitted, TooLong)
        assert str(case["max_tokens"]) in fitted.reason
        return
    assert isinstance(fitted, Fitted)
    total = len(whole["tasks"][ProblemKey.read(case["key"]).task]["train"])
    before, after = (list(view_of(key).order(total)) for key in (case["key"], expected["key"]))
    assert [before[number] for number in fitted.kept] == after
    assert [before[number] for number in fitted.dropped] == before[len(after) :]
    assert (fitted.length, len(fitted.puzzle.demos)) == (expected["count"], expected["n_demos"])
    if expected.get("text") is not None:
        assert codec.write(fitted.puzzle).text == expected["text"]


def span_list(written: Written, rule: LossRule) -> list[list[int]]:
    """Loss spans as [start, end), those that touch joined."""
    joined: list[list[int]] = []
    for span in loss_spans(written.spans, rule):
        if joined and joined[-1][1] == span.start:
            joined[-1][1] = span.end
        else:
            joined.append([span.start, span.end])
    return joined


def rule_of(case: dict) -> LossRule:
    if case["format"] == "architects":
        return LossRule(demo_outputs=True, skip_first=case["mask_first_n"])
    if case["format"] == "nvarc":
        return LossRule(demo_outputs=True)
    # The branches of marc's trainer that can be read leave out demonstrations in a user's message.
    return LossRule(demo_outputs="barc" not in case["format"], skip_first=1, header=True)


def possible_puzzles(whole: dict, case: dict) -> list[Puzzle]:
    """A case names a task: its demonstrations alone, or any test input, with the solution or (as marc has it) the query as the answer."""
    key = case.get("key") or case["task"]
    puzzles = [puzzle_of(whole["tasks"], key)]
    task = ProblemKey.read(key).task
    for test in range(len(whole["tasks"][task]["test"]) if puzzles[0].query is None else 0):
        puzzle = puzzle_of(whole["tasks"], key.replace(task, f"{task}_{test}", 1))
        puzzles += [puzzle, answered(puzzle, puzzle.query)]
    return puzzles


@pytest.mark.parametrize(("whole", "case"), cases("loss_masks"))
def test_loss_masks(whole: dict, case: dict) -> None:
    codecs: dict[str, Codec] = {"architects": Cells(), "nvarc": Dialogue(), **MARC}
    codec = codecs[case["format"].removeprefix("marc ")]
    written = next((found for puzzle in possible_puzzles(whole, case) if (found := codec.write(puzzle)).text == case["text"]), None)
    assert written is not None, "no puzzle of the task has this text"
    assert span_list(written, rule_of(case)) == case["expected_loss_spans"]
    if "expected_loss_spans_unmask_outputs_false" in case:
        assert span_list(written, LossRule(header=True)) == case["expected_loss_spans_unmask_outputs_false"]


@pytest.mark.parametrize(("whole", "case"), cases("marc_formats"))
def test_messages_of_marc(whole: dict, case: dict) -> None:
    if case.get("op") == "numpy_str":
        check_numpy_text(case)
        return
    codec = MARC[case["format"]]
    puzzle = puzzle_of(whole["tasks"], f"{case['task']}_{case['test_index']}", answer=not case.get("answer_unknown"))
    if case["expected"] is None:
        with pytest.raises(DataError):
            codec.write(puzzle)
        return
    answer = puzzle.query if puzzle.answer is None else puzzle.answer
    assert answer is not None
    content = codec.answer_content(answer, puzzle.query) if isinstance(codec, NumpyText) else codec.answer_content(answer)
    messages = [{"role": message.role, "content": message.content} for message in codec.messages(puzzle)]
    assert {"messages": messages, "answer": {"role": "assistant", "content": content}} == case["expected"]
    if "llama3_prompt" in case:
        assert codec.write(answered(puzzle, None)).text == case["llama3_prompt"]
    if "llama3_training_text" in case:
        assert codec.write(answered(puzzle, answer)).text == case["llama3_training_text"]


def check_numpy_text(case: dict) -> None:
    """Rows with minus signs are wrapped and padded by numpy and never by us; what numpy writes can be read all the same."""
    if min(cell for row in case["grid"] for cell in row) >= 0:
        assert numpy_text(case["grid"]) == case["expected"]
        return
    query = as_grid([[max(-cell, 0) for cell in row] for row in case["grid"]])
    total = [[cell + base for cell, base in zip(*pair, strict=True)] for pair in zip(case["grid"], query, strict=True)]
    for text in (numpy_text(case["grid"]), case["expected"]):
        assert grid_or_none(NumpyText(difference=True).read(f" + {text}#", query)) == total
    assert len(numpy_text(case["grid"]).split("\n")) == len(case["grid"])


TRANSFORMS = {
    "Transpose()": "tp",
    "Flip(0)": "flip0",
    "Flip(1)": "flip1",
    "Rotate(90)": "rt",
    "Rotate(180)": "rot180",
    "Rotate(270)": "rot270",
}


@pytest.mark.parametrize(("whole", "case"), cases("marc_decode"))
def test_reading_marc(whole: dict, case: dict) -> None:
    query = NumpyText().read(case["input_message"].replace("->", "")) if "diff" in case["format"] else None
    found = MARC[case["format"]].read(case["text"], None if isinstance(query, Unreadable) else query)
    expected = case["expected"]
    stricter = expected is not None and (not any(expected) or not all(0 <= cell <= 9 for row in expected for cell in row))
    if expected is None or stricter:
        assert isinstance(found, Unreadable)
        assert found.reason
        return
    assert not isinstance(found, Unreadable), found
    if case["inverter"] is None:
        assert [list(row) for row in found] == expected
    elif case["inverter"] in TRANSFORMS:
        assert [list(row) for row in View.read(TRANSFORMS[case["inverter"]]).apply(found)] == expected


def kaggle_text(codec: Codec, puzzle: Puzzle, expected: dict) -> None:
    texts = expected.get("texts") or {}
    assert puzzle.query is not None
    prompt = codec.write(answered(puzzle, None)).text
    train = codec.write(Puzzle(demos=puzzle.demos, query=None)).text
    ours = {"train": train, "query": prompt.removeprefix(train), "input": prompt}
    if puzzle.answer is not None:
        ours |= {"reply": codec.answer(puzzle.answer), "text": codec.write(puzzle).text}
    assert {name: ours[name] for name in texts} == texts
    if isinstance(expected.get("text"), str):
        assert ours["text"] == expected["text"]
    assert prompt.endswith(expected.get("input_tail", ""))
    if expected.get("input_ids") is not None:
        assert [IDS[token] for token in TOKEN.findall(prompt)] == expected["input_ids"]


@pytest.mark.parametrize(("whole", "case"), cases("kaggle_nvarc_format"))
def test_formats_of_kaggle_2024_and_nvarc(whole: dict, case: dict) -> None:
    codec: Codec = KAGGLE if case["system"] == "kaggle-2024" else Dialogue()
    length = written_length if case["system"] == "kaggle-2024" else dialogue_length
    operation, expected = case.get("op"), case.get("expected")
    if operation is None:
        kaggle_text(codec, puzzle_of(whole["tasks"], case["key"]), case["expected"])
    elif operation == "ttt_text":
        text = codec.write(puzzle_of(whole["tasks"], case["key"])).text
        assert text == expected["text"]
        assert [IDS[token] for token in TOKEN.findall(text)] == expected["ids"] if "ids" in expected else True
    elif operation == "decode":
        assert grid_or_none(codec.read(case["text"])) == expected
    elif operation == "max_new_tokens":
        count = character_count if case["system"] == "kaggle-2024" else lambda text: len(TOKEN.findall(text))
        assert max_new_tokens(codec, count) == expected
    elif operation == "vocab":
        assert expected == IDS
    elif operation == "cut_to_len":
        puzzle = puzzle_of(whole["tasks"], case["key"], answer=case["name"] == "text")
        if "full" in case:
            assert length(codec.write(puzzle)) == case["full"]
        fitted = fit(codec, puzzle, length, case["max_len"], drop="first", least=0)
        assert isinstance(fitted, Fitted)
        order = view_of(case["key"]).order(len(whole["tasks"][ProblemKey.read(case["key"]).task]["train"]))
        cut = re.sub(r"\.ex\d*$", "", case["key"]) + ".ex" + "".join(str(order[number]) for number in fitted.kept)
        assert cut == expected["key"] or not fitted.dropped
        train = [{"input": [list(row) for row in pair.input], "output": [list(row) for row in pair.output]} for pair in fitted.puzzle.demos]
        assert train == expected["train"]
    else:
        assert operation in ("augment", "ttt_keys"), "views' tests have these"
