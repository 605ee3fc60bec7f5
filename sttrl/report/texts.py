"""The texts in a report: questions, labels, and a few samples with their verdicts.

Questions and labels come from the data set, samples from ``rollouts/``. If the authors of a data set ask that its questions stay out of
plain text, none of these is shown: samples may repeat questions.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

from sttrl.config.data import DATA_SET
from sttrl.data import DATASETS, Table
from sttrl.data.registry import custom_dataset
from sttrl.ledger.evaluated import Verdicts
from sttrl.ledger.records import BallotsRecord, FinishedQuestion
from sttrl.ledger.rollouts import rollouts_file
from sttrl.questions.records import PollName
from sttrl.report.labels import Grades, Labels

SAMPLES: Final = 3
"""How many samples of a poll are shown: the first ones."""
SAMPLED_POLLS: Final[tuple[PollName, ...]] = ("base", "adapted")
WITHHELD: Final = "The authors of this data set ask that its questions stay out of plain text: no question, label or sample is shown."

Verdict = Literal["right", "wrong", "no answer", "no verdict", "no label"]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One response of a poll. The repr contains neither its text nor its answer."""

    text: str = field(repr=False)
    answer: str | None = field(repr=False)
    verdict: Verdict


@dataclass(frozen=True, kw_only=True)
class QuestionTexts:
    """The texts of one question; None or empty if they are not known."""

    question: str | None = field(default=None, repr=False)
    label: str | None = field(default=None, repr=False)
    samples: Mapping[PollName, Sequence[Sample]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Texts:
    """The texts of a run by question id, and why some are missing."""

    by_id: Mapping[str, QuestionTexts] = field(default_factory=dict)
    remark: str | None = None
    template: ClassVar[str] = "cards.html"

    def of(self, question_id: str) -> QuestionTexts:
        """The texts of one question."""
        return self.by_id.get(question_id, QuestionTexts())


NO_TEXTS: Final = Texts()
"""No texts at all."""


def read_texts(folder: Path, finished: Sequence[FinishedQuestion], grades: Grades, source: Table | str, labels: Labels | None) -> Texts:
    """The texts of a run's finished questions. ``source``: the data set, or its name in the settings if it cannot be read."""
    if not is_printable(source):
        return Texts(remark=WITHHELD)
    asked = {} if isinstance(source, str) else {row.id: row.text for row in source.rows}
    label_of = {} if labels is None else labels.by_id
    return Texts(
        by_id={
            (name := question.record.id): QuestionTexts(
                question=asked.get(name),
                label=label_of.get(name),
                samples=read_samples(folder, question, grades.of(name)),
            )
            for question in finished
        },
        remark="The data set is not where it was: questions and labels are not shown." if isinstance(source, str) else None,
    )


def is_printable(source: Table | str) -> bool:
    """Whether the questions of a data set may be shown. If the data set cannot be read, its name decides; one of one's own
    may say no."""
    if not isinstance(source, str):
        return source.dataset.printable
    if DATA_SET.reference(source) is not None:
        return False
    name = DATASETS.get(source) or DATASETS.get(Path(source).name.split(".")[0])
    return (name or custom_dataset(source)).printable


def read_samples(folder: Path, question: FinishedQuestion, verdicts: Verdicts | None) -> dict[PollName, tuple[Sample, ...]]:
    """The first samples of the polls of base and adapted policy; none if the file with the responses is missing."""
    found: dict[PollName, tuple[Sample, ...]] = {}
    file = rollouts_file(folder, question.record.id)
    for name in SAMPLED_POLLS:
        if (poll := question.record.polls.get(name)) is not None and file.is_file():
            lines = islice(_lines_of(file, name, len(question.record.polls["base"].ballots.class_G)), min(SAMPLES, poll.k))
            found[name] = tuple(_sample(line, poll.ballots, number, verdicts) for number, line in enumerate(lines))
    return found


def _lines_of(file: Path, name: PollName, skipped: int) -> Iterator[Mapping[str, Any]]:
    """The lines of a poll. The base's ``skipped`` lines come first and are not parsed when another poll is read."""
    with file.open("rb") as lines:
        for line in islice(lines, 0 if name == "base" else skipped, None):
            value = json.loads(line)
            if value.get("poll") != name:
                return
            yield value


def _sample(line: Mapping[str, Any], ballots: BallotsRecord, number: int, verdicts: Verdicts | None) -> Sample:
    place = ballots.class_G[number]
    answer = None if place is None else ballots.representative_C[place]
    return Sample(text=line["text"], answer=line["answer"], verdict=verdict_of(answer, verdicts))


def verdict_of(answer: str | None, verdicts: Verdicts | None) -> Verdict:
    """The verdict that the page shows for an answer. The answer must be the representative of its class."""
    if answer is None:
        return "no answer"
    if verdicts is None:
        return "no label"
    right = verdicts.get(answer)
    return "no verdict" if right is None else "right" if right else "wrong"
