"""What the report needs of each kind of problem: how its evaluations are read, where its labels are, and what a page shows.

To add a kind, write a class like `QuestionReport` and add a line to `KIND_REPORTS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Final, Protocol

from sttrl.config import RunConfig
from sttrl.data import Table, read_table
from sttrl.ledger.evaluated import Evaluated
from sttrl.ledger.folder import KIND, source_of
from sttrl.ledger.records import FinishedQuestion
from sttrl.questions.answers import Judge
from sttrl.questions.records import poll_from_json
from sttrl.report.labels import Equality, Grades, Labels, labels_in
from sttrl.report.pool import pool_both
from sttrl.report.rows import RowsReport
from sttrl.report.tasks import TaskReport
from sttrl.report.texts import read_texts


class Shown(Protocol):
    """What a page shows of the problems of a run besides the journal's records."""

    @property
    def remark(self) -> str | None:
        """Why something is missing; None if nothing is."""
        ...

    @property
    def samples(self) -> bool:
        """Whether the texts of responses may be shown."""
        ...

    def text(self, problem_id: str) -> str | None:
        """The problem as text; None if it has none, or if it may not be shown."""
        ...

    def label(self, problem_id: str) -> str | None:
        """Its label as text; None if it has none, or if it may not be shown."""
        ...

    def parts(self, question: FinishedQuestion) -> dict[str, Any]:
        """What only this kind of problem shows, such as grids, as JSON values."""
        ...


class KindReport(Protocol):
    """The part of a report that depends on the kind of problem."""

    def read(self, value: dict[str, Any]) -> Evaluated:
        """The record of an evaluation from its JSON object in the journal."""
        ...

    def data(self, config: Mapping[str, Any], data_dir: Path | None) -> Any:
        """Read the data set of a run. Raises `DataError`."""
        ...

    def labels(self, data: Any) -> Labels:
        """The labels of a data set."""
        ...

    def asked(self, data: Any) -> Mapping[str, str]:
        """What each problem asks, as text, by its id: the question, or a task as JSON without its solution."""
        ...

    def hand_in(self, folder: Path, config: Mapping[str, Any], finished: Sequence[FinishedQuestion], data: Any) -> str:
        """Write what a run of this kind hands in, such as a submission, from the journal's content. ``data``: the data set.

        Returns a line about it for the end of the table; empty if there is nothing to say."""
        ...

    def judge(self) -> AbstractAsyncContextManager[Equality]:
        """What compares answers with labels."""
        ...

    def drawn(self, finished: Sequence[FinishedQuestion], grades: Grades, data: Any, colours: bool) -> str:
        """Pictures for a terminal, with ANSI colours or without; empty for a kind that has none."""
        ...

    def shown(self, finished: Sequence[FinishedQuestion], grades: Grades, data: Any, labels: Labels | None) -> Shown:
        """What a page shows. ``data``: the data set, or its name in the settings if it cannot be read."""
        ...


class QuestionReport:
    """Text questions: a judge compares answers with labels; a page has questions, labels and samples."""

    def read(self, value: dict[str, Any]) -> Evaluated:
        """A poll."""
        return poll_from_json(value)

    def data(self, config: Mapping[str, Any], data_dir: Path | None) -> Table:
        """The table of questions. Raises `DataError`."""
        return read_table(source_of(dict(config), data_dir))

    def labels(self, data: Table) -> Labels:
        """The labels of the table."""
        return labels_in(data)

    def asked(self, data: Table) -> Mapping[str, str]:
        """The questions."""
        return {row.id: row.text for row in data.rows}

    def hand_in(self, folder: Path, config: Mapping[str, Any], finished: Sequence[FinishedQuestion], data: Table) -> str:
        """Nothing."""
        return ""

    def judge(self) -> AbstractAsyncContextManager[Equality]:
        """The judge in processes of its own."""
        return Judge()

    def drawn(self, finished: Sequence[FinishedQuestion], grades: Grades, data: Table | str, colours: bool) -> str:
        """Nothing."""
        return ""

    def shown(self, finished: Sequence[FinishedQuestion], grades: Grades, data: Table | str, labels: Labels | None) -> Shown:
        """Questions and labels."""
        return read_texts(data, labels)


KIND_REPORTS: Final[dict[str, KindReport]] = {"questions": QuestionReport(), "arc": TaskReport(), "arc-rows": RowsReport()}
"""The reports of the kinds of problems, by the name of the kind."""


POOLS: Final[dict[str, Callable[[Sequence[Path], Path, RunConfig], str]]] = {"arc": pool_both}
"""How answers are chosen from a run and its retry together: from their folders, the folder to write and the settings of the first to the
text to print. The kinds whose problems are done again have a line here."""


def report_of(config: Mapping[str, Any]) -> KindReport:
    """The report of the kind of a run. ``config``: the content of config.json; without a kind it is a run of questions."""
    return KIND_REPORTS[config.get(KIND) or "questions"]
