"""Grades every distinct answer against its question's label, after the journal is written. Labels are used nowhere else.

Verdicts are kept in the run folder with a hash of the label, and are not computed again. If the machine was too busy for a verdict, the
next report tries again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from sttrl.data.sources import SourceSpec, read_table
from sttrl.data.table import Table
from sttrl.ledger.evaluated import Verdicts
from sttrl.ledger.files import write_text
from sttrl.ledger.records import BallotsRecord, FinishedQuestion
from sttrl.questions.answers import NoVerdict
from sttrl.questions.labels import labels as labels_of

GRADES_FILE: Final = "grades.json"
GRADES_SCHEMA: Final = 2


class Equality(Protocol):
    """The part of `sttrl.questions.answers.Judge` that grading needs."""

    async def equal(self, kind: Any, a: str, b: str) -> bool | None:
        """Whether two answers are equal; None if one exceeds the judge's limits. Raises `NoVerdict` if the machine was too busy."""


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The labels of a data set by question id, and the kind of its answers. The repr does not contain the labels.

    ``unlabelled``: how answers begin that no label is about, such as those to a held-out demonstration; None: there are none.
    """

    kind: str
    by_id: Mapping[str, str]
    unlabelled: str | None = None

    def __repr__(self) -> str:
        return f"Labels(kind={self.kind!r}, {len(self.by_id)} labels)"

    def digest(self, question_id: str) -> str:
        """A hash of the kind and the label, on which a verdict depends besides the answer."""
        return hashlib.sha256(f"{self.kind}\0{self.by_id[question_id]}".encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Grades:
    """The verdicts of a run by question id; a question without a label has no entry."""

    verdicts: Mapping[str, Verdicts]

    def of(self, question_id: str) -> Verdicts | None:
        """The verdicts of one question; None if it has no label."""
        return self.verdicts.get(question_id)

    @property
    def timeouts(self) -> int:
        """Answers that could not be graded in time."""
        return sum(verdict is None for verdicts in self.verdicts.values() for verdict in verdicts.values())


NO_GRADES: Final = Grades(verdicts={})
"""The grades of a run without labels."""


def load_labels(source: SourceSpec) -> Labels:
    """Read the labels of a data set. Raises what `read_table` raises."""
    return labels_in(read_table(source))


def labels_in(table: Table) -> Labels:
    """The labels of a data set that has been read."""
    return Labels(kind=table.dataset.kind, by_id=labels_of(table))


def read_grades(run_folder: Path) -> Grades:
    """The verdicts that an earlier report wrote into the run folder."""
    return Grades(verdicts={question_id: entry["verdicts"] for question_id, entry in read_entries(run_folder).items()})


async def grade(finished: Sequence[FinishedQuestion], labels: Labels, judge: Equality, run_folder: Path, keep: bool = True) -> Grades:
    """Grade every distinct answer that has no verdict yet. ``keep``: whether the verdicts are kept in the run folder."""
    stored = read_entries(run_folder)
    entries, grades = await graded(finished, labels, judge, stored)
    if keep and entries != stored:
        content = {"schema": GRADES_SCHEMA, "questions": entries}
        write_text(run_folder / GRADES_FILE, json.dumps(content, indent=1, sort_keys=True) + "\n")
    return grades


async def graded(
    finished: Sequence[FinishedQuestion], labels: Labels, judge: Equality, stored: Mapping[str, dict[str, Any]]
) -> tuple[dict[str, dict[str, Any]], Grades]:
    """(the entries to keep, the verdicts). ``stored``: the entries that were kept before, as `read_entries` reads them."""
    labelled = [question for question in finished if question.record.id in labels.by_id]
    found = {q.record.id: await _graded(q, labels, judge, stored.get(q.record.id)) for q in labelled}
    entries = {question_id: entry for question_id, (entry, _) in found.items()}
    return entries, Grades(verdicts={question_id: entry["verdicts"] | dict.fromkeys(late) for question_id, (entry, late) in found.items()})


def graded_before(finished: Sequence[FinishedQuestion], labels: Labels, stored: Mapping[str, dict[str, Any]]) -> Grades:
    """The verdicts of the questions whose every answer has one among ``stored``, about the label that the question has now."""
    found = {}
    for question in finished:
        name = question.record.id
        entry = stored.get(name)
        if entry is None or name not in labels.by_id or entry["label_sha256"] != labels.digest(name):
            continue
        if entry["verdicts"].keys() >= _answers(question, labels).keys():
            found[name] = entry["verdicts"]
    return Grades(verdicts=found)


def all_ballots(question: FinishedQuestion) -> Iterator[BallotsRecord]:
    """The ballots of every poll, vote and evaluation of a question."""
    yield from (poll.ballots for poll in question.record.polls.values())
    yield from (step.ballots for step in question.steps if step.ballots is not None)
    yield from (evaluation.poll.ballots for evaluation in question.evaluations)


async def _graded(
    question: FinishedQuestion, labels: Labels, judge: Equality, stored: dict[str, Any] | None
) -> tuple[dict[str, Any], list[str]]:
    """(entry of a question with all its verdicts, answers without a verdict because the machine was too busy).

    ``stored``: the entry in the run folder, which is used if the label is still the same.
    """
    digest, label = labels.digest(question.record.id), labels.by_id[question.record.id]
    known = dict(stored["verdicts"]) if stored is not None and stored["label_sha256"] == digest else {}
    missing = [answer for answer in _answers(question, labels) if answer not in known]
    found = await asyncio.gather(*(judge.equal(labels.kind, answer, label) for answer in missing), return_exceptions=True)
    verdicts, late = dict(known), list[str]()
    for answer, verdict in zip(missing, found, strict=True):
        if isinstance(verdict, NoVerdict):
            late.append(answer)
        elif isinstance(verdict, BaseException):
            raise verdict
        else:
            verdicts[answer] = verdict
    return {"label_sha256": digest, "verdicts": verdicts}, late


def _answers(question: FinishedQuestion, labels: Labels) -> dict[str, None]:
    """The distinct answers of a question that a label is about, in order."""
    answers = dict.fromkeys(answer for ballots in all_ballots(question) for answer in ballots.representative_C)
    return {a: None for a in answers if not (labels.unlabelled and a.startswith(labels.unlabelled))}


def read_entries(run_folder: Path) -> dict[str, Any]:
    """The entries of the grades file; empty if there is none or it has another schema."""
    try:
        content = json.loads((run_folder / GRADES_FILE).read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    known = isinstance(content, dict) and content.get("schema") == GRADES_SCHEMA
    return dict(content["questions"]) if known else {}
