"""The journal over any records: read back as written, a prefix after any cut, an error for garbage in the middle."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sttrl.errors import JournalError
from sttrl.ledger.journal import JOURNAL, Journal, read_finished, read_lines
from sttrl.ledger.records import READABLE_VERSIONS, BallotsRecord, ElectionRecord, QuestionRecord, StepRecord
from sttrl.questions.records import POLL_NAMES, PollRecord, poll_from_json

TEXT = st.text(st.characters(codec=None), max_size=12)
"""Any text at all, halves of surrogate pairs, line separators and control characters too."""
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
COUNT = st.integers(0, 2**40)
MAYBE_TEXT = st.none() | TEXT

BALLOTS = st.builds(
    BallotsRecord,
    answer_G=st.lists(MAYBE_TEXT, max_size=3),
    invalid_G=st.lists(MAYBE_TEXT, max_size=3),
    class_G=st.lists(st.none() | COUNT, max_size=3),
    representative_C=st.lists(TEXT, max_size=3),
)
ELECTIONS = st.builds(
    ElectionRecord,
    answer=MAYBE_TEXT, winner=st.none() | COUNT, margin=NUMBER, share_C=st.lists(NUMBER, max_size=3), tied_C=st.lists(COUNT, max_size=3),
    voters=COUNT, samples=COUNT, majority_ratio=NUMBER,
)  # fmt: skip
SECONDS = st.dictionaries(TEXT, NUMBER, max_size=2)
STEPS = st.builds(
    StepRecord,
    step=COUNT, version=COUNT, ballots=st.none() | BALLOTS, election=st.none() | ELECTIONS, majority=st.none() | ELECTIONS,
    reward_G=st.lists(NUMBER, max_size=3), gate=st.none() | st.sampled_from(["margin", "agreement", "risk"]),
    tokens_sampled=COUNT, tokens_trained=COUNT, update=st.none() | st.dictionaries(TEXT, NUMBER | COUNT | st.none(), max_size=2),
    seconds=SECONDS, weight=st.none() | NUMBER,
)  # fmt: skip
POLLS = st.builds(
    PollRecord,
    k=COUNT, greedy=st.booleans(), temperature=NUMBER, top_p=NUMBER, max_tokens=COUNT, version=COUNT, ballots=BALLOTS, election=ELECTIONS,
    confidence=ELECTIONS, tokens=COUNT, early=st.none() | ELECTIONS, early_tokens=st.none() | COUNT,
)  # fmt: skip
QUESTIONS = st.builds(
    QuestionRecord,
    id=TEXT, index=st.integers(0, 50), attempt=COUNT, status=st.sampled_from(["done", "failed", "diverged", "oom"]),
    stop=st.none() | st.sampled_from(["steps", "tie"]), error=MAYBE_TEXT, answer=MAYBE_TEXT,
    answer_source=st.none() | st.sampled_from(POLL_NAMES), polls=st.dictionaries(st.sampled_from(POLL_NAMES), POLLS, max_size=2),
    steps=COUNT, tokens_sampled=COUNT, tokens_trained=COUNT, tokens_evaluated=COUNT, seconds=SECONDS,
)  # fmt: skip
TAKEN = st.lists(STEPS, max_size=2, unique_by=lambda step: step.step).map(lambda taken: sorted(taken, key=lambda step: step.step))
HISTORY = st.tuples(QUESTIONS, TAKEN, st.lists(STEPS, max_size=1))
"""A question, its steps, and the steps of an earlier try that was cut short."""
HISTORIES = st.lists(HISTORY, max_size=3, unique_by=lambda history: history[0].id)

quickly = settings(max_examples=60, deadline=None)


@contextmanager
def written(histories: list[tuple[QuestionRecord, list[StepRecord], list[StepRecord]]]) -> Iterator[Path]:
    """A folder whose journal tells these histories."""
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(os, "fsync", lambda handle: None)
        with Journal(Path(name)) as journal:
            for question, steps, void in histories:
                for number, tried in enumerate([void, steps] if void else [steps], start=1):
                    journal.begin(question.id, question.index, number)
                    for step in tried:
                        journal.step(question.id, step)
                journal.question(question)
        yield Path(name)


@quickly
@given(HISTORIES)
def test_what_was_written_is_read_back(histories: list[tuple[QuestionRecord, list[StepRecord], list[StepRecord]]]) -> None:
    with written(histories) as folder:
        found = read_finished(folder, poll_from_json)
    expected = sorted(histories, key=lambda history: history[0].index)
    assert [finished.record for finished in found] == [question for question, _, _ in expected]
    assert [list(finished.steps) for finished in found] == [steps for _, steps, _ in expected]


@quickly
@given(HISTORIES, st.data())
def test_any_cut_leaves_a_prefix(histories: list[tuple[QuestionRecord, list[StepRecord], list[StepRecord]]], data: st.DataObject) -> None:
    with written(histories) as folder:
        path = folder / JOURNAL
        whole, records = path.read_bytes(), list(read_lines(folder))
        cut = data.draw(st.integers(0, len(whole)))
        path.write_bytes(whole[:cut])
        complete = whole[:cut].count(b"\n")
        assert list(read_lines(folder)) == records[:complete]
        with Journal(folder) as journal:
            assert path.read_bytes() == whole[: whole[:cut].rfind(b"\n") + 1], "the torn line is cut off, and nothing else"
            journal.append("attempt", attempt=1, seconds={})
        assert list(read_lines(folder))[:-1] == records[:complete]


@quickly
@given(HISTORIES.filter(bool), st.binary(min_size=1, max_size=20), st.data())
def test_garbage_in_the_middle_is_an_error(
    histories: list[tuple[QuestionRecord, list[StepRecord], list[StepRecord]]], garbage: bytes, data: st.DataObject
) -> None:
    garbage = b"\xff" + garbage.replace(b"\n", b"").replace(b"\r", b"")
    with written(histories) as folder:
        path = folder / JOURNAL
        lines = path.read_bytes().splitlines(keepends=True)
        place = data.draw(st.integers(0, len(lines) - 1))
        path.write_bytes(b"".join([*lines[:place], garbage + b"\n", *lines[place:]]))
        for read in (lambda: list(read_lines(folder)), lambda: read_finished(folder, poll_from_json), lambda: Journal(folder)):
            with pytest.raises(JournalError, match=f"line {place + 1} is damaged"):
                read()


@quickly
@given(HISTORIES.filter(bool), st.integers() | st.none() | TEXT)
def test_another_schema_is_an_error(histories: list[tuple[QuestionRecord, list[StepRecord], list[StepRecord]]], version: object) -> None:
    with written(histories) as folder:
        path = folder / JOURNAL
        first, *others = path.read_bytes().splitlines(keepends=True)
        if version in READABLE_VERSIONS:
            return
        changed = json.dumps({**json.loads(first), "v": version}).encode() + b"\n"
        path.write_bytes(b"".join([changed, *others]))
        with pytest.raises(JournalError, match="line 1 has another schema version"):
            read_finished(folder, poll_from_json)


@quickly
@given(QUESTIONS, QUESTIONS)
def test_the_first_end_of_a_question_stands(first: QuestionRecord, second: QuestionRecord) -> None:
    with written([(first, [], [])]) as folder:
        with Journal(folder) as journal:
            journal.append("question", **{**asdict(second), "id": first.id})
        assert [finished.record for finished in read_finished(folder, poll_from_json)] == [first]


@given(st.sampled_from([float("nan"), float("inf"), float("-inf")]))
def test_a_number_that_is_none_is_not_written(number: float) -> None:
    with tempfile.TemporaryDirectory() as name, Journal(Path(name)) as journal:
        journal.append("attempt", attempt=1, seconds={})
        before = journal.path.read_bytes()
        with pytest.raises(ValueError, match="not JSON compliant"):
            journal.append("attempt", attempt=2, seconds={"total": number})
        assert journal.path.read_bytes() == before


@pytest.mark.parametrize("line", [b"[]", b"3", b'"text"', b"null", b"{}"])
def test_json_that_is_no_record_is_an_error(line: bytes, tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_bytes(line + b"\n")
    with pytest.raises(JournalError, match="line 1"):
        list(read_lines(tmp_path))
