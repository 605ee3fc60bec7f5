"""ARC tasks in a report: solutions as labels, and grids to be drawn."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.text import Text

from sttrl.arc.grids import Grid
from sttrl.arc.labels import read_labels
from sttrl.arc.pictures import beside, shown
from sttrl.arc.records import (
    HELD_OUT,
    CandidateRecord,
    TaskRecord,
    TestRecord,
    answer_text,
    answers_of,
    grid_of,
    grid_text,
    record_from_json,
)
from sttrl.arc.sources import ArcData, ArcSpec, inspect_tasks, read_tasks
from sttrl.arc.submission import SUBMISSION, write_submission
from sttrl.arc.tasks import FINGERPRINT, Task
from sttrl.errors import DataError
from sttrl.ledger.evaluated import Verdicts
from sttrl.ledger.records import FinishedQuestion
from sttrl.report.labels import NO_GRADES, Grades, Labels

SHOWN_CANDIDATES = 12
"""How many candidates of a test input a page shows at most: the best ones."""
DRAWN_TASKS = 12
"""With more tasks than this a run draws none on the terminal."""
VERDICTS = {True: ", right", False: ", wrong", None: ""}
SIDES = (("base", "base"), ("adapted", "adapted"))
"""The evaluations whose attempts a page shows, with their names there."""


class GridJudge:
    """Compares answers with solutions: grids are equal or they are not."""

    async def equal(self, kind: str, a: str, b: str) -> bool | None:
        """Whether an answer is one of the lines of a label."""
        return a in b.split("\n")


@asynccontextmanager
async def grid_judge() -> AsyncIterator[GridJudge]:
    """A judge that needs no process."""
    yield GridJudge()


@dataclass(frozen=True, kw_only=True)
class ShownTasks:
    """The tasks of a run. See `sttrl.report.kinds.Shown`. Grids are texts as `sttrl.arc.records.grid_text` writes them."""

    tasks: Mapping[str, Task] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict, repr=False)
    grades: Grades = NO_GRADES
    remark: str | None = None
    samples: bool = True

    def text(self, task_id: str) -> str | None:
        """None: a task is shown as grids."""
        return None

    def label(self, task_id: str) -> str | None:
        """None: solutions are shown as grids."""
        return None

    def parts(self, question: FinishedQuestion) -> dict[str, Any]:
        """The demonstrations and the test inputs with what was found for them; nothing of a task that is not in the data set."""
        name = question.record.id
        task = self.tasks.get(name)
        return {} if task is None else task_parts(task, question.record.polls, self.grades.of(name), self.labels.get(name))


def tasks_of(config: Mapping[str, Any], data_dir: Path | None) -> ArcData:
    """The tasks of a run, by the content of its config.json; those with a fault are left out if the run left them out."""
    own = config["data_dir"]
    spec = ArcSpec(dataset=config["dataset"], data_dir=data_dir or (Path(own) if own else None))
    return inspect_tasks(spec) if config["on_bad_row"] == "skip" else read_tasks(spec)


def tasks_as_json(data: ArcData) -> dict[str, str]:
    """Every task in the format of ARC's files, without its solution."""

    def plain(task: Task) -> dict[str, Any]:
        train = [{"input": pair.input, "output": pair.output} for pair in task.demos]
        return {"train": train, "test": [{"input": grid} for grid in task.tests]}

    return {task.id: json.dumps(plain(task), separators=(",", ":")) for task in data.tasks}


class TaskReport:
    """See `sttrl.report.kinds.KindReport`."""

    def read(self, value: dict[str, Any]) -> TaskRecord:
        """The evaluation of a task."""
        return record_from_json(value)

    def data(self, config: Mapping[str, Any], data_dir: Path | None) -> ArcData:
        """The tasks. Raises `DataError`."""
        return tasks_of(config, data_dir)

    def labels(self, data: ArcData) -> Labels:
        """The solutions, a line for each test input. Raises `DataError` if there are none, or if they have faults."""
        found = read_labels(ArcSpec(dataset=str(data.path)))
        if found.source is None:
            raise DataError(f"{found.missing}.", "A run works without them; its answers cannot be scored.")
        known = {name: grids for name, grids in found.solutions.items() if grids is not None}
        lines = {name: "\n".join(answer_text(k, grid) for k, grid in enumerate(grids)) for name, grids in known.items()}
        return Labels(kind="grids", by_id=lines, unlabelled=f"{HELD_OUT}:")

    def asked(self, data: ArcData) -> Mapping[str, str]:
        """The tasks."""
        return tasks_as_json(data)

    def hand_in(self, folder: Path, config: Mapping[str, Any], finished: Sequence[FinishedQuestion], data: ArcData) -> str:
        """submission.json with all tasks of the data set, if that still has the tasks of the run. The line says what is missing in it."""
        if data.fingerprint != config.get(FINGERPRINT):
            return ""
        answers = [answers_of(task.record) for task in finished]
        filled = write_submission(folder / SUBMISSION, data.tasks, {place: grids for task in answers for place, grids in task.items()})
        line = f"{SUBMISSION}: {filled.outputs} test inputs of {len(data.tasks)} tasks"
        if filled.attempts:
            line += f", {filled.unanswered} without an answer; {filled.attempts} attempts are [[0]]"
        more = len(data.tasks) - len(finished)
        return line + (f". The table is about the {len(finished)} finished tasks; `score` divides by all." if more else "")

    def judge(self) -> AbstractAsyncContextManager[GridJudge]:
        """Grids are equal or not."""
        return grid_judge()

    def drawn(self, finished: Sequence[FinishedQuestion], grades: Grades, data: ArcData | str, colours: bool) -> str:
        """Test inputs and attempts as pictures."""
        return drawn(finished, grades, data, colours)

    def shown(self, finished: Sequence[FinishedQuestion], grades: Grades, data: ArcData | str, labels: Labels | None) -> ShownTasks:
        """The grids of every task."""
        if isinstance(data, str):
            return ShownTasks(remark="The data set is not where it was: no task is shown.")
        solutions = {} if labels is None else labels.by_id
        remark = None if solutions else "There are no solutions for these tasks: nothing says which attempts are right."
        return ShownTasks(tasks={task.id: task for task in data.tasks}, labels=solutions, grades=grades, remark=remark)


def drawn(finished: Sequence[FinishedQuestion], grades: Grades, data: ArcData | str, colours: bool) -> str:
    """Every task's test inputs and attempts as pictures for a terminal; of a data set with more than `DRAWN_TASKS` tasks none."""
    if isinstance(data, str) or len(finished) > DRAWN_TASKS:
        return ""
    tasks, lines = {task.id: task for task in data.tasks}, list[Text]()
    for question in finished:
        record = question.record
        if record.answer_source is not None and record.id in tasks:
            lines += drawn_task(tasks[record.id], record.polls[record.answer_source], grades.of(record.id))
    return f"\n{shown(lines, colours)}\n" if lines else ""


def drawn_task(task: Task, evaluation: TaskRecord, verdicts: Verdicts | None) -> list[Text]:
    """The test inputs of a task, each beside the attempts at it."""
    lines = list[Text]()
    for k, (query, test) in enumerate(zip(task.tests, evaluation.tests, strict=True)):
        said = [VERDICTS[right_of(k, grid, verdicts)] for grid in test.attempts]
        attempts = [(f"attempt {n}{words}", grid) for n, (words, grid) in enumerate(zip(said, test.attempts, strict=True), start=1)]
        lines += [*beside([(task.id, query), *attempts]), Text()]
    return lines


def task_parts(task: Task, polls: Mapping[str, TaskRecord], verdicts: Verdicts | None, label: str | None) -> dict[str, Any]:
    """The grids of one task: ``demos``, pairs of input and output, and ``tests``. ``label``: a line for each solution."""
    solutions = {} if label is None else dict(line.split(":", 1) for line in label.split("\n"))
    demos = [[grid_text(pair.input), grid_text(pair.output)] for pair in task.demos]
    tests = []
    for k, query in enumerate(task.tests):
        records = {name: poll.tests[k] for name, poll in polls.items()}
        last = records.get("adapted") or records.get("base")
        sides = [{"name": words, "attempts": attempts(k, records[name], verdicts)} for name, words in SIDES if name in records]
        tests.append(
            {
                "query": grid_text(query),
                "solution": solutions.get(str(k)),
                "sides": sides,
                "candidates": [candidate(k, c, verdicts) for c in (last.candidates[:SHOWN_CANDIDATES] if last else ())],
                "found": len(last.candidates) if last else 0,
            }
        )
    return {"demos": demos, "tests": tests}


def attempts(k: int, test: TestRecord, verdicts: Verdicts | None) -> list[dict[str, Any]]:
    """The attempts at a test input."""
    return [{"grid": grid_text(grid), "right": right_of(k, grid, verdicts)} for grid in test.attempts]


def candidate(k: int, record: CandidateRecord, verdicts: Verdicts | None) -> dict[str, Any]:
    """A candidate with its score and the number of views that it was found under."""
    return {
        "grid": record.grid,
        "right": right_of(k, grid_of(record.grid), verdicts),
        "score": record.score,
        "views": len(record.search_nll),
    }


def right_of(k: int, grid: Grid, verdicts: Verdicts | None) -> bool | None:
    """Whether a grid is the solution of a test input; None without one."""
    return None if verdicts is None else verdicts.get(answer_text(k, grid)) is True
