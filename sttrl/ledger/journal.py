"""The journal: append-only, synced line by line, and the only state of a run.

Every line is one JSON object (`sttrl.ledger.records`). A line counts once its newline is on disk; an incomplete last line is
removed when the journal is opened again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from sttrl.errors import JournalError
from sttrl.ledger.files import json_line, make_folder, sync, unwritable, whole_lines
from sttrl.ledger.records import (
    READABLE_VERSIONS,
    SCHEMA_VERSION,
    EndRecord,
    EvaluationRecord,
    FinishedQuestion,
    QuestionRecord,
    StepRecord,
    step_from_json,
)

JOURNAL = "journal.jsonl"
OF_ALL = "all"
"""The id of steps that are of no problem, such as those of a fine-tuning."""

ReadEvaluation = Callable[[dict[str, Any]], Any]
"""Makes the record of an evaluation from its JSON object."""


class Journal:
    """One writer at a time; a second run on the same folder is refused."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / JOURNAL
        try:
            make_folder(folder)
            self.file = self.path.open("ab", buffering=0)
            sync(folder)
        except OSError as error:
            raise unwritable(self.path, error) from error
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.file.close()
            raise JournalError(f"Another run is writing {self.path}.", "Wait for it, or use another --run_name.") from error
        if not self._is_in_place():
            self.file.close()
            raise JournalError(f"Another run has just given up {self.path}.", "Run the same command again.")
        self.size = _repaired(self.path)
        self.file.truncate(self.size)

    def append(self, kind: str, **record: Any) -> None:
        """Add one line and sync it. If that fails, the line is removed again and earlier lines are untouched."""
        value = {"v": SCHEMA_VERSION, "kind": kind, **record}
        line = json_line(value, allow_nan=False).encode(errors="backslashreplace")
        try:
            written = self.file.write(line)
            if written != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self.file.fileno())
        except OSError as error:
            self._take_back()
            raise unwritable(self.path, error) from error
        self.size += len(line)

    def begin(self, question_id: str, index: int, attempt: int) -> None:
        """Work on a question starts; its steps of earlier attempts no longer count."""
        self.append("begin", id=question_id, index=index, attempt=attempt)

    def step(self, question_id: str, record: StepRecord) -> None:
        """A step is finished."""
        self.append("step", id=question_id, **dataclasses.asdict(record))

    def evaluation(self, question_id: str, record: EvaluationRecord) -> None:
        """The policy that is trained on all questions was evaluated on one of them."""
        self.append("evaluation", id=question_id, **dataclasses.asdict(record))

    def trained(self, step: int) -> None:
        """The state of the policy that is trained on all questions is on disk, after ``step`` steps."""
        self.append("trained", step=step)

    def ended(self, record: EndRecord) -> None:
        """The training on all questions ended early and will not be resumed."""
        self.append("ended", **dataclasses.asdict(record))

    def resumed(self, attempt: int) -> None:
        """An attempt resumes the training on all questions."""
        self.append("resumed", attempt=attempt)

    def question(self, record: QuestionRecord) -> None:
        """A question is finished; no later line changes it."""
        self.append("question", **dataclasses.asdict(record))

    def views(self, question_id: str, texts: Sequence[str], tokens: int) -> None:
        """The base has written views of a question, with so many tokens, before they are first asked."""
        self.append("views", id=question_id, texts=list(texts), tokens=tokens)

    def close(self) -> None:
        """Release the folder."""
        self.file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _is_in_place(self) -> bool:
        """Whether the open file is still the one in the folder: another process may have removed it before it released the lock."""
        try:
            return os.path.samestat(os.fstat(self.file.fileno()), self.path.stat())
        except FileNotFoundError:
            return False

    def _take_back(self) -> None:
        """Remove a partly written line. If that fails too, it is removed when the journal is opened again."""
        with contextlib.suppress(OSError):
            self.file.truncate(self.size)


def _repaired(path: Path) -> int:
    """The number of bytes up to the end of the last complete line. Raises `JournalError` for a line that is not JSON."""
    data = path.read_bytes()
    for number, line in enumerate(whole_lines(data), 1):
        _parsed(path, number, line)
    return data.rfind(b"\n") + 1


def _parsed(path: Path, number: int, line: bytes) -> dict[str, Any]:
    """The object on a line. Raises `JournalError` where there is none."""
    try:
        value = json.loads(line)
        if not isinstance(value, dict):
            raise ValueError("not an object")
    except ValueError as error:
        raise JournalError(f"{path}, line {number} is damaged.", "Restore the file, or start over with another --run_name.") from error
    return value


def read_lines(folder: Path) -> Iterator[dict[str, Any]]:
    """Every whole line of a run's journal. Raises `JournalError` for a folder without one or of another version."""
    path = folder / JOURNAL
    try:
        data = path.read_bytes()
    except OSError as error:
        raise JournalError(f"{folder} is not a run folder: it has no readable {JOURNAL}.", "Give a folder under outputs/.") from error
    for number, line in enumerate(whole_lines(data), 1):
        record = _parsed(path, number, line)
        if record.pop("v", None) not in READABLE_VERSIONS:
            raise JournalError(f"{path}, line {number} has another schema version.", "Use the sttrl that wrote it.")
        yield record


def read_finished(folder: Path, read: ReadEvaluation = dict) -> tuple[FinishedQuestion, ...]:
    """The finished questions, in the order of the data set, each with the steps of the attempt that finished it; ``read`` as below."""
    return read_journal(folder, read).finished


@dataclasses.dataclass(frozen=True)
class JournalContent:
    """The content of a journal: the finished questions, and the progress of a training on all questions.

    ``trained``: the number of training steps whose result is on disk. ``ended``: how the training ended early, if it did. ``steps`` and
    ``evaluations``: those of each question that is not finished.
    """

    finished: tuple[FinishedQuestion, ...]
    trained: int
    ended: EndRecord | None
    steps: dict[str, tuple[StepRecord, ...]]
    evaluations: dict[str, tuple[EvaluationRecord, ...]]


def read_journal(folder: Path, read: ReadEvaluation = dict) -> JournalContent:
    """Everything that counts in a journal. Of work that was repeated after an interruption only the last attempt counts.

    ``read`` makes the record of each evaluation from its JSON object; by default evaluations stay JSON objects.
    """
    steps: dict[str, dict[int, StepRecord]] = {}
    evaluations: dict[str, dict[int, EvaluationRecord]] = {}
    finished: dict[str, FinishedQuestion] = {}
    trained, ended = 0, None
    for record in read_lines(folder):
        kind = record.pop("kind")
        if kind == "begin":
            steps[record["id"]] = {}
        elif kind == "step":
            taken = steps.setdefault(record.pop("id"), {})
            taken[record["step"]] = step_from_json(record)
        elif kind == "evaluation":
            poll = read(record["poll"])
            evaluations.setdefault(record["id"], {})[record["step"]] = EvaluationRecord(step=record["step"], poll=poll)
        elif kind == "trained":
            trained = record["step"]
        elif kind == "ended":
            ended = EndRecord(**record)
            _cut(steps, evaluations, ended.step)
        elif kind == "question" and record["id"] not in finished:
            question = QuestionRecord(**{**record, "polls": {name: read(poll) for name, poll in record["polls"].items()}})
            own, polls = steps.pop(question.id, {}), evaluations.pop(question.id, {})
            finished[question.id] = FinishedQuestion(
                record=question, steps=tuple(own[at] for at in sorted(own)), evaluations=tuple(polls[at] for at in sorted(polls))
            )
    if ended is None:
        _cut(steps, {}, trained)
    return JournalContent(
        finished=tuple(sorted(finished.values(), key=lambda f: f.record.index)),
        trained=trained,
        ended=ended,
        steps={question: tuple(taken[at] for at in sorted(taken)) for question, taken in steps.items()},
        evaluations={question: tuple(polls[at] for at in sorted(polls)) for question, polls in evaluations.items()},
    )


def _cut(steps: dict[str, dict[int, StepRecord]], evaluations: dict[str, dict[int, EvaluationRecord]], end: int) -> None:
    """Drop what an earlier attempt did after ``end`` steps: the policy of those steps is not on disk."""
    for taken in steps.values():
        for at in [at for at in taken if at >= end]:
            del taken[at]
    for polls in evaluations.values():
        for at in [at for at in polls if at > end]:
            del polls[at]
