"""The server of the page, for this machine only. It reads the run folders again when their journals have grown."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from sttrl.errors import DataError, JournalError, UsageError
from sttrl.report.comparison import comparison
from sttrl.report.html import visible_json
from sttrl.report.kinds import KindReport
from sttrl.report.labels import Equality
from sttrl.report.view.details import FindPieces, question_view
from sttrl.report.view.overview import key_of, run_view
from sttrl.report.view.page import as_text, served_page
from sttrl.report.view.sweeps import is_sweep, names_of, read_sweep_view, runs_below
from sttrl.report.view.watched import WatchedRun

HOST: Final = "127.0.0.1"
HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


class RunServer:
    """What the routes share. ``folders``: run folders, or the folder of one sweep."""

    def __init__(self, folders: Sequence[Path], data_dir: Path | None, find_pieces: FindPieces) -> None:
        self.sweep = folders[0] if len(folders) == 1 and is_sweep(folders[0]) else None
        self._given, self._data_dir, self._find_pieces = tuple(folders), data_dir, find_pieces
        self._runs: dict[Path, WatchedRun] = {}
        self._judges: dict[type[KindReport], Equality] = {}
        self._open = AsyncExitStack()
        self._starting = asyncio.Lock()

    @property
    def title(self) -> str:
        """The name of the page."""
        return ", ".join(names_of(self._given).values())

    def runs(self) -> list[WatchedRun]:
        """The runs, in the order in which they were given; those of a sweep by name, as soon as they have begun."""
        folders = self._given if self.sweep is None else runs_below(self.sweep)
        for folder, name in names_of(folders).items():
            if folder not in self._runs:
                self._runs[folder] = WatchedRun(folder, name, self._data_dir, self._find_pieces)
        return [self._runs[folder] for folder in folders]

    def check(self) -> None:
        """Raises `JournalError` for the first folder that holds no run, or a damaged one."""
        if self.sweep is not None:
            read_sweep_view(self.sweep)
            return
        for run in self.runs():
            run.read()

    async def judge(self, kind: KindReport) -> Equality:
        """The judge of a kind, which stays open until the server ends."""
        async with self._starting:
            if type(kind) not in self._judges:
                self._judges[type(kind)] = await self._open.enter_async_context(kind.judge())
            return self._judges[type(kind)]

    @contextlib.asynccontextmanager
    async def opened(self, app: Starlette) -> AsyncIterator[None]:
        """The server's life."""
        async with self._open:
            yield
            await asyncio.gather(*(run.close() for run in self._runs.values()))

    async def page(self, request: Request) -> Response:
        """``GET /``"""
        return HTMLResponse(served_page(self.title), headers=HEADERS)

    async def index(self, request: Request) -> Response:
        """``GET /api/index?after=VERSION``: which runs there are, and their versions; 204 if nothing has changed after that version."""
        runs = self.runs()
        sweep = None if self.sweep is None else read_sweep_view(self.sweep)
        known = [{"key": run.key, "name": run.name, "version": run.version} for run in runs]
        version = key_of(repr((known, sweep)))
        if request.query_params.get("after") == version:
            return Response(status_code=204, headers=HEADERS)
        compared = None
        if sweep is None and len(runs) > 1:
            states = [await run.state(self.judge) for run in runs]
            compared = await asyncio.to_thread(comparison, [s.compared(run.name) for s, run in zip(states, runs, strict=True)])
        shown = [run.key for run in (runs if sweep is None else runs[:1])]
        return answer({"version": version, "runs": known, "shown": shown, "comparison": compared, "sweep": sweep})

    async def run(self, request: Request) -> Response:
        """``GET /api/runs/KEY``: a run without what an opened question shows."""
        watched = self._run(request)
        if watched is None:
            return answer({"error": "There is no such run."}, 404)
        state = await watched.state(self.judge)
        return answer(await asyncio.to_thread(run_view, watched.name, state.run, state.summary))

    async def question(self, request: Request) -> Response:
        """``GET /api/runs/KEY/questions/KEY``: one question with its samples."""
        watched = self._run(request)
        if watched is not None:
            state = await watched.state(self.judge)
            ids = {key_of(name): name for name in [*(q.record.id for q in state.run.finished), *state.run.running]}
            if (name := ids.get(request.path_params["question"])) is not None:
                return answer(await asyncio.to_thread(question_view, state.run, name, state.pieces))
        return answer({"error": "There is no such question in this run."}, 404)

    def _run(self, request: Request) -> WatchedRun | None:
        return next((run for run in self.runs() if run.key == request.path_params["run"]), None)


def answer(value: Mapping[str, Any], status: int = 200) -> Response:
    """A JSON value for the page."""
    return Response(as_text(visible_json(value)), status, HEADERS, "application/json")


async def refuse(request: Request, error: Exception) -> Response:
    """A run folder that cannot be read, as one line for the page."""
    return answer({"error": str(error)}, 503)


def application(server: RunServer) -> Starlette:
    """The ASGI application. Only addresses of this machine are answered, so that no other site's page can ask for runs."""
    return Starlette(
        routes=[
            Route("/", server.page),
            Route("/api/index", server.index),
            Route("/api/runs/{run}", server.run),
            Route("/api/runs/{run}/questions/{question}", server.question),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])],
        exception_handlers={JournalError: refuse, DataError: refuse},
        lifespan=server.opened,
    )


def bound(port: int) -> socket.socket:
    """A socket of this machine alone. Raises `UsageError` for a port that cannot be had."""
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((HOST, port))
        found.listen()
    except (OSError, OverflowError) as error:
        found.close()
        reason = error.strerror if isinstance(error, OSError) else "it is no port"
        raise UsageError(f"--port {port} cannot be used: {reason}.", "Give another one; with --port 0 a free one is taken.") from error
    return found


def serve(server: RunServer, listening: socket.socket) -> None:
    """Answer until the program is interrupted."""
    config = uvicorn.Config(application(server), log_level="warning", access_log=False, lifespan="on", timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[listening])
