"""A run folder that a server shows while the run may go on: it is read again when its journal has grown, and new answers are graded."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sttrl.ledger.folder import CONFIG
from sttrl.ledger.journal import JOURNAL
from sttrl.report.comparison import ComparedRun
from sttrl.report.kinds import KindReport
from sttrl.report.labels import GRADES_FILE, NO_GRADES, Equality, Grades, graded, graded_before, read_entries
from sttrl.report.read import RunContent, load_run
from sttrl.report.summary import summarise
from sttrl.report.view.details import FindPieces, Pieces
from sttrl.report.view.overview import key_of

AskJudge = Callable[[KindReport], Awaitable[Equality]]
"""The judge of a kind of problem, which is started when it is needed first."""


@dataclass(frozen=True, kw_only=True)
class State:
    """A run as it was at one moment."""

    version: str
    run: RunContent
    summary: Mapping[str, Any]
    pieces: Pieces | None

    def compared(self, name: str) -> ComparedRun:
        """The run for a comparison."""
        run = self.run
        return ComparedRun(name=name, summary=self.summary, config=run.config, finished=run.finished, grades=run.grades)


class WatchedRun:
    """One run folder. Nothing is written into it."""

    def __init__(self, folder: Path, name: str, data_dir: Path | None, find_pieces: FindPieces) -> None:
        self.folder, self.name, self.key = folder, name, key_of(str(folder))
        self._data_dir, self._find_pieces = data_dir, find_pieces
        self._state: State | None = None
        self._lock = asyncio.Lock()
        self._data: Any = None
        self._entries: dict[str, Any] = {}
        self._late: Grades = NO_GRADES
        self._graded = 0
        self._grading: asyncio.Task[None] | None = None

    @property
    def version(self) -> str:
        """Differs when the page has to be made again. It costs a look at the folder, no reading."""
        stats = [path.stat() for name in (CONFIG, JOURNAL, GRADES_FILE) if (path := self.folder / name).exists()]
        return key_of(repr([(stat.st_size, stat.st_mtime_ns) for stat in stats] + [self._graded]))

    async def state(self, judge: AskJudge) -> State:
        """The run as it is now. Answers without a verdict are graded meanwhile, which makes another version.

        Raises `JournalError` for a folder that holds no run, or a damaged one.
        """
        async with self._lock:
            if self._state is None or self._state.version != self.version:
                await asyncio.to_thread(self.read)
            assert self._state is not None, "it was read"
            run = self._state.run
            if run.labels is not None and any(q.record.id in run.labels.by_id and run.grades.of(q.record.id) is None for q in run.finished):
                self._grade_meanwhile(run, judge)
            return self._state

    def read(self) -> None:
        """Read the folder, with the verdicts that are known. Raises `JournalError` for a folder that holds no run, or a damaged one."""
        version = self.version
        run = load_run(self.folder, self._data_dir, self._data)
        self._data = run.data
        if run.labels is not None:
            known = graded_before(run.finished, run.labels, {**read_entries(self.folder), **self._entries})
            run = replace(run, grades=Grades(verdicts={**self._late.verdicts, **known.verdicts}))
        pieces = self._find_pieces(run.config) if self._state is None else self._state.pieces
        self._state = State(version=version, run=run, summary=summarise(run.finished, run.grades, run.seconds, run.config), pieces=pieces)

    async def close(self) -> None:
        """Give up grading."""
        if self._grading is not None:
            self._grading.cancel()
            await asyncio.gather(self._grading, return_exceptions=True)

    def _grade_meanwhile(self, run: RunContent, judge: AskJudge) -> None:
        if self._grading is None or self._grading.done():
            self._grading = asyncio.create_task(self._grade(run, judge))

    async def _grade(self, run: RunContent, judge: AskJudge) -> None:
        """Grade what has no verdict. What the judge could not say in time stays without one, and is not asked again."""
        assert run.labels is not None, "only answers with labels are graded"
        stored = {**await asyncio.to_thread(read_entries, self.folder), **self._entries}
        self._entries, self._late = await graded(run.finished, run.labels, await judge(run.kind), stored)
        self._graded += 1
