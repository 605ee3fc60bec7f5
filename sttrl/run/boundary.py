"""The boundary of failures: an error in the work on one problem ends this problem only. Only here does a run catch any error."""

from __future__ import annotations

import traceback
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sttrl.data import folder_name
from sttrl.errors import DivergedError, EngineError, JournalError, OutOfMemoryError, SttrlError, disk_fault
from sttrl.ledger.files import unwritable, write_text
from sttrl.types import QuestionStatus

STATUS: Mapping[type[SttrlError], QuestionStatus] = {DivergedError: "diverged", OutOfMemoryError: "oom"}

T = TypeVar("T")


@dataclass(frozen=True)
class Failure:
    """The end of a problem that failed: its status, and the error in one line."""

    status: QuestionStatus
    error: str


class Boundary:
    """The boundary of one attempt. It writes tracebacks to the attempt's logs."""

    def __init__(self, folder: Path, attempt: int) -> None:
        self.folder, self.attempt = folder, attempt

    async def guard(self, name: str, work: Awaitable[T]) -> T | Failure:
        """Do work for the problem ``name``, and return a `Failure` if it raises an error.

        A lost engine, a lost journal or a disk that cannot be written ends the run instead: every other problem would fail too.
        """
        try:
            return await work
        except Exception as error:
            return self._failure(error, name)

    def _failure(self, error: Exception, name: str) -> Failure:
        """The failure of the problem. Raises the errors that end the run."""
        if isinstance(error, (EngineError, JournalError)) and not isinstance(error, OutOfMemoryError):
            raise error
        if (fault := disk_fault(error)) is not None:
            raise unwritable(Path(fault.filename or self.folder), fault) from error
        failure = how_it_ends(error)
        if isinstance(error, SttrlError) and error.__cause__ is None:
            return failure
        return Failure(failure.status, f"{failure.error.rstrip('.')}. The traceback is in {self._keep_trace(error, name)}.")

    def _keep_trace(self, error: Exception, name: str) -> Path:
        """Write an error's traceback, with those of its causes in other processes. Returns the file's path below the run folder."""
        target = Path("logs", f"attempt_{self.attempt}", f"{folder_name(name)}.traceback")
        write_text(self.folder / target, "".join(traceback.format_exception(error)))
        return target


def how_it_ends(error: Exception) -> Failure:
    """The status of a problem that failed with this error, and the error in one line."""
    if isinstance(error, SttrlError):
        return Failure(STATUS.get(type(error), "failed"), str(error))
    return Failure("failed", " ".join(f"{type(error).__name__}: {error}".split()))
