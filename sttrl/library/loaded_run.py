"""`load_run`: a run folder as records, without changing a file in it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from sttrl.data import Table
from sttrl.errors import JournalError, UsageError
from sttrl.ledger.evaluated import Evaluated, Verdicts
from sttrl.ledger.journal import read_lines
from sttrl.ledger.records import BallotsRecord, ElectionRecord, FinishedQuestion, StepRecord
from sttrl.ledger.rollouts import rollouts_file
from sttrl.ledger.step_metrics import step_metrics
from sttrl.library.records import Evaluation, Problem, RolloutsFile, Step, Vote
from sttrl.library.tables import SAMPLE_COLUMNS, Columns, problem_columns, problem_row, sample_rows
from sttrl.questions.records import PollRecord
from sttrl.report.metrics import ROW_NAMES, QuestionScore, score_questions
from sttrl.report.read import RunContent, read_run
from sttrl.report.recursion import is_training
from sttrl.report.summary import summarise
from sttrl.report.texts import is_printable
from sttrl.run.states import kept_adapter

if TYPE_CHECKING:
    from pandas import DataFrame

RunStatus = Literal["finished", "unfinished"]
_FRAME_TYPES: Final = {"whole": "Int64", "flag": "boolean", "number": "float64"}
"""pandas' types of columns, which have a value for what is missing. Other columns hold objects."""


@dataclass(frozen=True, kw_only=True)
class LoadedRun:
    """A run folder. ``config``: the settings by their flat names, as in config.json. ``status``: ``unfinished`` while the run is going on,
    or if it was killed and is to be resumed. ``summary``: the numbers of summary.json, computed from the journal. ``problems``: those
    that are finished, in the order of the data set. ``steps``: those of a training on all problems that belong to none of them.

    ``withheld``: the authors of the data set ask that its questions stay out of plain text; ``question`` and ``label`` are None then.
    ``remark``: why there are no labels; None if there are some.
    """

    path: Path
    config: Mapping[str, Any] = field(repr=False)
    status: RunStatus
    summary: Mapping[str, Any] = field(repr=False)
    problems: tuple[Problem, ...] = field(repr=False)
    steps: tuple[Step, ...] = field(repr=False)
    withheld: bool
    remark: str | None

    def __len__(self) -> int:
        """How many problems are finished."""
        return len(self.problems)

    def __iter__(self) -> Iterator[Problem]:
        """The problems."""
        return iter(self.problems)

    def __getitem__(self, problem_id: str) -> Problem:
        """A problem by its id. Raises KeyError."""
        found = next((problem for problem in self.problems if problem.id == problem_id), None)
        if found is None:
            raise KeyError(problem_id)
        return found

    def dataframe(self, rows: Literal["problems", "samples"] = "problems") -> DataFrame:
        """A pandas data frame with a row for each problem, or for each sample. docs/export.md explains the columns.

        Raises `UsageError` if pandas is not installed, `JournalError` for damaged samples.
        """
        if rows == "problems":
            return _frame(problem_columns(self.problems), [problem_row(problem) for problem in self.problems])
        if rows == "samples":
            return _frame(SAMPLE_COLUMNS, [row for problem in self.problems for row in sample_rows(problem)])
        raise UsageError(f"A data frame has rows of problems or samples, not of {rows!r}.", "Give 'problems' or 'samples'.")


def load_run(path: str | os.PathLike[str], data_dir: str | os.PathLike[str] | None = None) -> LoadedRun:
    """Read a run folder, finished or not; nothing in it is changed. Samples are read when they are asked for.

    Questions and labels are read from the data set again: from ``data_dir`` if it is given, else from where the run took them. Answers that
    no report has graded yet are graded. Raises `JournalError` for a folder that holds no run of questions or ARC tasks, or a damaged one.
    """
    folder = Path(path)
    if is_training(folder):
        raise JournalError(
            f"{folder} is a training of the recursive model.", "Give a run of questions or of ARC tasks; `trm push` uploads a checkpoint."
        )
    content = read_run(folder, None if data_dir is None else Path(data_dir), keep_grades=False)
    last = {"kind": ""}
    for last in read_lines(folder):  # noqa: B007 - the last line is wanted
        pass
    withheld = _is_withheld(content)
    asked = {} if withheld or content.data is None else content.kind.asked(content.data)
    label_of = {} if withheld or content.labels is None else content.labels.by_id
    scores = score_questions(content.finished, content.grades)
    return LoadedRun(
        path=folder,
        config=content.config,
        status="finished" if last["kind"] == "attempt" else "unfinished",
        summary=summarise(content.finished, content.grades, content.seconds, content.config),
        problems=tuple(
            _problem(content, question, score, asked.get(question.record.id), label_of.get(question.record.id))
            for question, score in zip(content.finished, scores, strict=True)
        ),
        steps=tuple(map(_step, content.of_all)),
        withheld=withheld,
        remark=content.unread,
    )


def _is_withheld(content: RunContent) -> bool:
    """Whether questions and labels must not be shown. The name in the settings counts as well as the data set that was found."""
    found = content.data
    return not (is_printable(str(content.config["dataset"])) and (not isinstance(found, Table) or is_printable(found)))


def _problem(content: RunContent, question: FinishedQuestion, score: QuestionScore, asked: str | None, label: str | None) -> Problem:
    record, verdicts = question.record, content.grades.of(question.record.id)
    evaluations = {name: _evaluation(poll, verdicts) for name, poll in record.polls.items()}
    rows = {name: row for name in ROW_NAMES if (row := score.row(name)) is not None}
    ballots: dict[str | int, BallotsRecord] = {name: poll.ballots for name, poll in record.polls.items() if isinstance(poll, PollRecord)}
    ballots |= {step.step: step.ballots for step in question.steps if step.ballots is not None}
    source = record.polls.get(record.answer_source or "")
    return Problem(
        id=record.id,
        index=record.index,
        status=record.status,
        stop=record.stop,
        error=record.error,
        question=asked,
        label=label or None,
        answer=record.answer,
        answer_source=record.answer_source,
        right=None if source is None or verdicts is None else source.right(verdicts),
        base=evaluations.get("base"),
        vote_same_tokens=evaluations.get("vote_same_tokens"),
        adapted=evaluations.get("adapted"),
        scores={name: row.metrics for name, row in rows.items()},
        weight=next((row.weight for row in rows.values()), 1.0),
        steps=tuple(map(_step, question.steps)),
        tokens_sampled=record.tokens_sampled,
        tokens_trained=record.tokens_trained,
        tokens_evaluated=record.tokens_evaluated,
        seconds=record.seconds,
        adapter=kept_adapter(content.folder, record.id),
        rollouts=RolloutsFile(path=rollouts_file(content.folder, record.id), ballots=ballots, verdicts=verdicts),
    )


def _evaluation(poll: Evaluated, verdicts: Verdicts | None) -> Evaluation:
    return Evaluation(
        answer=poll.answer,
        right=None if verdicts is None else poll.right(verdicts),
        k=poll.score({}).k,
        tokens=poll.tokens,
        vote=_vote(poll.election, poll.ballots) if isinstance(poll, PollRecord) else None,
    )


def _step(step: StepRecord) -> Step:
    return Step(
        number=step.step,
        vote=None if step.election is None or step.ballots is None else _vote(step.election, step.ballots),
        rewards=tuple(step.reward_G),
        gate=step.gate,
        tokens_sampled=step.tokens_sampled,
        tokens_trained=step.tokens_trained,
        metrics=step_metrics(step),
        seconds=step.seconds,
    )


def _vote(election: ElectionRecord, ballots: BallotsRecord) -> Vote:
    """The greedy response of a poll is judged with its samples and does not vote: its class may have no share."""
    return Vote(
        answer=election.answer,
        majority_ratio=election.majority_ratio,
        margin=election.margin,
        share=dict(zip(ballots.representative_C, election.share_C, strict=False)),
    )


def _frame(columns: Columns, rows: list[dict[str, Any]]) -> DataFrame:
    try:
        pandas = import_module("pandas")
    except ImportError as error:
        raise UsageError("A data frame needs the package pandas, which is not installed.", "pip install pandas") from error
    frame = pandas.DataFrame(rows, columns=list(columns))
    return frame.astype({name: _FRAME_TYPES[kind] for name, kind in columns.items() if kind in _FRAME_TYPES})
