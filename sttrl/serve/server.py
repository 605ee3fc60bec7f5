"""Starts the endpoint: the session with its engine, the application, and uvicorn until a signal ends it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from sttrl.config import RunConfig, field_names
from sttrl.errors import UsageError
from sttrl.ledger.files import make_folder
from sttrl.library.session import OWN, AsyncSession
from sttrl.run.shared import StartLanes
from sttrl.run.workshop import started
from sttrl.serve.app import Endpoint
from sttrl.serve.desk import Desk
from sttrl.serve.settings import HOST, ServerSettings, served_folder

KEY = "STTRL_API_KEY"
ENDING = (signal.SIGTERM, signal.SIGINT)
LOOPBACK = (HOST, "localhost", "::1")


def serve(config: RunConfig, server: ServerSettings, start_lanes: StartLanes = started) -> None:
    """Serve until SIGTERM or Ctrl-C. ``start_lanes`` starts the engine. Raises `UsageError` for an address or a folder that cannot be
    used, and what a session raises."""
    keys = (*server.api_key, *(key for key in os.environ.get(KEY, "").split(",") if key))
    if any(not key.strip() for key in keys):
        raise UsageError("--api_key is empty.", "Give a key, or leave it out.")
    folder = served_folder(config.run.output_dir, config.run.run_name)
    settings = session_settings(config)
    with _listening(server) as listener, _held(folder):
        session = AsyncSession(config.engine.model, output_dir=folder, say=_say, start_lanes=start_lanes, **settings)
        asyncio.run(_until_ended(_serve(session, config.engine.model, server, keys, listener)))


async def _until_ended(serving: Coroutine[Any, Any, None]) -> None:
    """Serve. A signal that comes while the engine starts ends it, as it ends a server that serves."""
    task = asyncio.create_task(serving)
    for number in ENDING:
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task
    _say("the server has ended")


async def _serve(opened: AsyncSession, model: str, server: ServerSettings, keys: tuple[str, ...], listener: socket.socket) -> None:
    async with opened as session:
        endpoint = Endpoint(Desk(session, session.judge, server, model, _say), keys, _say)
        web = uvicorn.Server(
            uvicorn.Config(endpoint.app, log_level="warning", timeout_graceful_shutdown=max(1, round(server.grace_s)), lifespan="off")
        )
        again = endpoint.resume()
        host, port = listener.getsockname()[:2]
        if again:
            _say(f"{again} background responses go on")
        if server.host not in LOOPBACK and not keys:
            _say(f"anyone who reaches {server.host} can use this server: give --api_key")
        _say(f"serving {model} on http://{host}:{port}/v1 with {endpoint.desk.seats} seats")
        for number in ENDING:
            # uvicorn ends its requests, then raises the signal again for whoever handled it before.
            asyncio.get_running_loop().add_signal_handler(number, lambda: None)
        try:
            await web.serve(sockets=[listener])
        finally:
            await endpoint.jobs.close()


def session_settings(config: RunConfig) -> dict[str, Any]:
    """The settings of a run that are not the defaults, for a session. Raises `UsageError` for one that a server does not have."""
    plain = RunConfig()
    chosen = {name: config.setting(name) for name in field_names() if config.setting(name) != plain.setting(name)}
    for name in ("model", "output_dir", "run_name", "config"):
        chosen.pop(name, None)
    for name in chosen:
        if name in OWN or name in ("adaptation_method", "steps", "preset"):
            raise UsageError(f"--{name} does nothing with serve.", "Each request says how it is adapted.")
    asked_as_they_are = {"instruction": config.questions.instruction or ""}
    return {**chosen, **asked_as_they_are, "parallel_problems": config.run.parallel_problems}


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold the folder of the endpoint. Raises `UsageError` if another server has it: two would do the same background responses."""
    make_folder(folder)
    with (folder / "lock").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UsageError(f"Another server uses {folder}.", "Give another --output_dir or --run_name.") from error
        yield


def _listening(server: ServerSettings) -> socket.socket:
    """A socket that listens where the settings say. Raises `UsageError`."""
    try:
        family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
        listener = socket.create_server((server.host, server.port), family=family, backlog=2048)
    except OSError as error:
        reason = f"Cannot listen on {server.host}, port {server.port}: {error.strerror or error}."
        raise UsageError(reason, "Give another --port or --host.") from error
    listener.setblocking(False)
    return listener


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - what the operator reads
