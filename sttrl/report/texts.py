"""The texts that a page shows of text questions: questions and labels, from the data set.

If the authors of a data set ask that its questions stay out of plain text, none of these is shown, and no sample: samples may repeat
questions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from sttrl.config.data import DATA_SET
from sttrl.data import DATASETS, Table
from sttrl.data.registry import custom_dataset
from sttrl.ledger.evaluated import Verdicts
from sttrl.ledger.records import FinishedQuestion
from sttrl.report.labels import Labels

WITHHELD: Final = "The authors of this data set ask that its questions stay out of plain text: no question, label or sample is shown."
MOVED: Final = "The data set is not where it was: questions and labels are not shown."

Verdict = Literal["right", "wrong", "no verdict", "no label"]


@dataclass(frozen=True, kw_only=True)
class Texts:
    """The texts of a run by question id, and why some are missing. The repr has none of them. See `sttrl.report.kinds.Shown`."""

    by_id: Mapping[str, str] = field(default_factory=dict, repr=False)
    label_by_id: Mapping[str, str] = field(default_factory=dict, repr=False)
    remark: str | None = None
    samples: bool = True

    def text(self, question_id: str) -> str | None:
        """The question; None if it is not known."""
        return self.by_id.get(question_id)

    def label(self, question_id: str) -> str | None:
        """The label; None if there is none, or it is not known."""
        return self.label_by_id.get(question_id)

    def parts(self, question: FinishedQuestion) -> dict[str, Any]:
        """Nothing: a text question has no parts of its own."""
        return {}


NO_TEXTS: Final = Texts()
"""No texts at all."""


def read_texts(source: Table | str, labels: Labels | None) -> Texts:
    """The texts of a data set. ``source``: the data set, or its name in the settings if it cannot be read."""
    if not is_printable(source):
        return Texts(remark=WITHHELD, samples=False)
    if isinstance(source, str):
        return Texts(remark=MOVED)
    return Texts(by_id={row.id: row.text for row in source.rows}, label_by_id={} if labels is None else labels.by_id)


def is_printable(source: Table | str) -> bool:
    """Whether the questions of a data set may be shown. If the data set cannot be read, its name decides; one of one's own
    may say no."""
    if not isinstance(source, str):
        return source.dataset.printable
    if DATA_SET.reference(source) is not None:
        return False
    name = DATASETS.get(source) or DATASETS.get(Path(source).name.split(".")[0])
    return (name or custom_dataset(source)).printable


def verdict_of(answer: str, verdicts: Verdicts | None) -> Verdict:
    """The verdict that a page shows for an answer. The answer must be the representative of its class."""
    if verdicts is None:
        return "no label"
    right = verdicts.get(answer)
    return "no verdict" if right is None else "right" if right else "wrong"
