"""The errors that users can see. Each says what is wrong, where, and what to do; it can be pickled and has an exit code."""

from __future__ import annotations

import errno
import os
from typing import ClassVar

DISK_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
"""No space, quota exceeded, read-only, broken: faults that the next question would meet too."""

LONGEST_TEXT = 300
"""How many characters of another library's error a message quotes at most."""


class SttrlError(Exception):
    """Base of every error a user can see.

    ``message`` says what is wrong and where; ``hint`` says what to do about it. Both travel through pickle
    (and so through Ray) unchanged.
    """

    exit_code: ClassVar[int] = 4

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class UsageError(SttrlError):
    """A flag, a value or a file of settings that cannot be used."""

    exit_code = 2


class DataError(SttrlError):
    """A data set that cannot be found or read."""

    exit_code = 3


class DataRowError(DataError):
    """One bad row: ``file``, ``line`` (1-based row number) and ``field`` name the place."""

    def __init__(self, file: str, line: int, field: str, problem: str, hint: str = "") -> None:
        super().__init__(f"{file}, row {line}, field {field!r}: {problem}.", hint)
        self.args = (file, line, field, problem, hint)
        self.file, self.line, self.field, self.problem = file, line, field, problem


class EngineError(SttrlError):
    """The engine cannot start or has died: a missing package or device, an unknown or gated model, a lost process."""


class LaneLostError(EngineError):
    """One of several lanes has died; the others go on."""


class OutOfMemoryError(EngineError):
    """A device or the machine has no room left for a step."""


class StepError(SttrlError):
    """One step of one question failed; the process in which it failed keeps running."""

    exit_code = 5


class DivergedError(SttrlError):
    """A loss, gradient or log-prob is not finite, or the log-probs of sampler and learner differ too much. No update was applied."""

    exit_code = 5


class JournalError(SttrlError):
    """A run folder that cannot be written, or that belongs to another run."""

    exit_code = 2


class QuestionsFailedError(SttrlError):
    """The run ended, and some questions failed or diverged."""

    exit_code = 5


def error_text(error: BaseException, first_line: bool = False) -> str:
    """The text of an error (or its first line) for a message: on one line, shortened, without a full stop. No text: the error's type."""
    text = str(error).strip().partition("\n")[0] if first_line else str(error)
    text = " ".join(text.split()).rstrip(".")
    return (text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}...") or type(error).__name__


def disk_fault(error: BaseException) -> OSError | None:
    """The disk fault that an error reports, or None for any other error.

    Some libraries wrap a disk fault in their own error, whose text contains the system's message (``SafetensorError``).
    """
    if isinstance(error, OSError):
        return error if error.errno in DISK_FAULTS else None
    if isinstance(error, SttrlError):
        return None
    number = next((number for number in DISK_FAULTS if os.strerror(number) in str(error)), None)
    return None if number is None else OSError(number, os.strerror(number))


def write_fault(error: BaseException) -> OSError | None:
    """The fault of the system for which a file could not be written: any `OSError`, and what `disk_fault` finds; None for another error."""
    return error if isinstance(error, OSError) else disk_fault(error)
