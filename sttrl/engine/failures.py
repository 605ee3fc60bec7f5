"""What went wrong in one of the engine's processes, as one line: the real cause, and the file that holds the rest."""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sttrl.engine.processes import session_logs
from sttrl.errors import LONGEST_TEXT, EngineError, SttrlError

POINTERS = ("root cause", "EngineDeadError")
"""In an error whose cause another process has written to its log."""
SAID = re.compile(r"^(?:\([^)]*\) )?(?:[A-Z]+ [\d-]+ [\d:]+ \[[^]]*\] )?((?:\w+\.)*\w*(?:Error|Exception): .+)$", re.MULTILINE)
"""The last line of a traceback, bare or behind what vLLM's logger puts before each line."""
MEMORY = ("out of memory", "can't allocate memory")
SMALLER = "Use a smaller model, a smaller --max_response_tokens or --lora_rank, or a machine with more memory."


@contextmanager
def starting(who: str) -> Iterator[None]:
    """Every error in this block, in which ``who`` starts, becomes an `EngineError` of one line.

    In a process of the engine the traceback goes to its log, which the line names.
    """
    try:
        yield
    except Exception as error:  # whatever vLLM, verl, Ray, torch or transformers raise
        if type(error) is EngineError:
            raise
        traceback_to_log(error)
        if short_of_memory(error):
            raise EngineError(f"The {who} ran out of memory while it started: {cause(error)}.", SMALLER) from error
        raise EngineError(f"The {who} did not start: {cause(error)}.", f"The rest is in {log_name()}.") from error


def cause(error: BaseException) -> str:
    """What an error comes from, in one line: the error that was its direct cause, or what another process wrote to the log."""
    while error.__cause__ is not None and str(error.__cause__).strip() and not isinstance(error.__cause__, KeyError):
        error = error.__cause__
    said = one_line(error)
    if any(pointer in said or pointer in type(error).__name__ for pointer in POINTERS):
        return last_error(logs()) or said
    return said


def one_line(error: BaseException) -> str:
    """An error's kind and text. Of pydantic's report, the first complaint."""
    if isinstance(error, SttrlError):
        return error.message.rstrip(".")
    listed = getattr(error, "errors", None)
    text = listed()[0]["msg"] if type(error).__name__ == "ValidationError" and callable(listed) else str(error)
    text = " ".join(text.split()).rstrip(".")
    cut = text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}..."
    return f"{type(error).__name__}: {cut}" if cut else type(error).__name__


def short_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on GPU or in the CPU's allocator."""
    return isinstance(error, MemoryError) or any(said in str(error).lower() for said in MEMORY)


def last_error(files: list[Path]) -> str | None:
    """The last error in the newest of these logs that has one, but none that only points to another."""
    for file in sorted(files, key=lambda file: file.stat().st_mtime, reverse=True):
        found = [line for line in SAID.findall(file.read_text(encoding="utf-8", errors="replace")) if not any(p in line for p in POINTERS)]
        if found:
            return str(found[-1]).rstrip(".")[:LONGEST_TEXT]
    return None


def logs() -> list[Path]:
    """What this process, a worker of Ray, and its children have written."""
    folder = session_logs()
    return sorted(folder.glob(f"worker-*-{os.getpid()}.*")) if folder is not None else []


def log_name() -> str:
    """Where a user finds the log of this process, as `keep_logs` copies it."""
    name = next((file.name for file in logs() if file.suffix == ".err"), None)
    return f"logs/ in the run folder, in {name}" if name else "logs/ in the run folder"


def traceback_to_log(error: BaseException) -> None:
    """Write the whole traceback to this process's log. The program's own process, which is no worker, has none."""
    if logs():
        traceback.print_exception(error)
