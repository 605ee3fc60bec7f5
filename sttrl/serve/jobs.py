"""Jobs: requests that are being done, and what is kept of them on disk, so that the same request after a restart gets the same answer.

``requests/<id>/request.json`` is written before the work begins, ``reply.json`` when it is done; ``run/`` is the run folder.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import itertools
import json
import shutil
import time
import traceback
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from starlette.requests import ClientDisconnect

from sttrl.errors import SttrlError
from sttrl.ledger.files import write_json
from sttrl.serve.desk import Desk, Result
from sttrl.serve.orders import Order, RefusedError

REQUEST: Final = "request.json"
REPLY: Final = "reply.json"
TO_RESUME: Final = frozenset({500, 503})
"""The statuses of a failure after which the same request with the same key goes on where it ended."""

Reply = dict[str, Any]
Write = Callable[["Job", Result], Reply]
"""Makes the reply of a finished job."""


@dataclass(eq=False)
class Job:
    """A request that is being done. ``lines``: how adapting goes. ``lasts``: it goes on if its client hangs up.

    ``kept``: its reply and its folder stay when it is done. ``cancelled``: by its client, who hung up or asked for it.
    """

    id: str
    owner: str
    created: int
    order: Order
    body: dict[str, Any]
    folder: Path
    lasts: bool
    kept: bool
    lines: list[str] = field(default_factory=list)
    news: asyncio.Condition = field(default_factory=asyncio.Condition)
    task: asyncio.Task[Reply] | None = None
    began: bool = False
    cancelled: bool = False
    watchers: int = 0

    async def tell(self) -> None:
        """Wake those who follow the job."""
        async with self.news:
            self.news.notify_all()

    async def first_news(self) -> None:
        """Returns when the job has a seat, says something or ends."""
        await self.until(lambda: self.began or bool(self.lines) or self.done)

    async def follow(self) -> AsyncIterator[str]:
        """Each line, as it comes, until the job is done."""
        for place in itertools.count():
            await self.until(functools.partial(self._has, place))
            if place >= len(self.lines):
                return
            yield self.lines[place]

    def _has(self, place: int) -> bool:
        """Whether there is a line at ``place``, or there will be none."""
        return len(self.lines) > place or self.done

    async def until(self, what: Callable[[], bool]) -> None:
        """Wait until something holds of the job."""
        async with self.news:
            await self.news.wait_for(what)

    async def reply(self) -> Reply:
        """The reply, when the job is done. Raises `RefusedError`. Who waits may be cancelled; the job goes on."""
        assert self.task is not None
        try:
            return await asyncio.shield(self.task)
        except asyncio.CancelledError:
            if not self.task.cancelled():
                raise
        if self.cancelled:
            raise RefusedError("The request was cancelled.", status=499, code="cancelled")
        raise RefusedError("The server is ending.", status=503)

    @property
    def done(self) -> bool:
        """Whether the work has ended."""
        return self.task is not None and self.task.done()


class Jobs:
    """All jobs of the endpoint. ``count`` is told of every job that ends: the model, the status and the result."""

    def __init__(self, desk: Desk, folder: Path, count: Callable[[Job, int, Result | None], None]) -> None:
        self.desk, self.folder, self.count = desk, folder, count
        self.by_id: dict[str, Job] = {}
        self.waking: set[asyncio.Task[None]] = set()

    def begin(
        self, owner: str, order: Order, body: dict[str, Any], write: Write, *, key: str | None = None, background: bool = False
    ) -> Job | Reply:
        """Begin a request, or find it: the job that does it, or the reply that an earlier one got.

        ``key``: the client's name for the request. Raises `RefusedError` if it stands for another one, or if the order cannot be done.
        """
        id = uuid.uuid4().hex if key is None else hashlib.sha256(f"{owner}\n{key}".encode()).hexdigest()[:32]
        folder = self.folder / id
        if key is not None and (known := self._known(id, body)) is not None:
            if (running := self.by_id.get(id)) is not None:
                return running
            if (folder / REPLY).exists():
                return dict(json.loads((folder / REPLY).read_text(encoding="utf-8")))
            order = replace(order, seed=known["seed"])
            return self.start(Job(id, owner, known["created"], order, body, folder, lasts=True, kept=True), write, background)
        self.desk.check(order, owner)
        lasts = key is not None or background
        job = Job(id, owner, int(time.time()), order, body, folder, lasts=lasts, kept=lasts or self.desk.server.keep_runs)
        if background and sum(other.lasts and not other.done for other in self.by_id.values()) >= self.desk.server.max_background:
            raise RefusedError("Too many background responses are unfinished.", status=429, code="rate_limit_exceeded", retry_s=5.0)
        if self._on_disk(job):
            write_json(folder / REQUEST, {
                "owner": owner, "created": job.created, "seed": order.seed, "background": background, "lasts": lasts, "body": body,
            })  # fmt: skip
        return self.start(job, write, background)

    def start(self, job: Job, write: Write, background: bool) -> Job:
        """Let a job begin."""
        self.by_id[job.id] = job
        job.task = asyncio.create_task(self._do(job, write, background))
        job.task.add_done_callback(lambda task: self._ended(job, task))
        return job

    async def wait(self, job: Job, gone: Awaitable[object]) -> Reply:
        """The reply of a job. If the client hangs up (``gone`` returns) and nobody else waits for it, a job that does not last is ended.

        Raises `RefusedError`, and `ClientDisconnect` if the client hung up.
        """
        async with self.watched(job):
            assert job.task is not None
            await first_of(job.task, gone)
            return await job.reply()

    @asynccontextmanager
    async def watched(self, job: Job) -> AsyncIterator[None]:
        """A context in which a client waits for a job."""
        job.watchers += 1
        try:
            yield
        finally:
            await asyncio.shield(self.left(job))

    async def left(self, job: Job) -> None:
        """A client no longer waits for a job."""
        job.watchers -= 1
        if not job.done and not job.watchers and not job.lasts:
            await self.cancel(job)

    async def cancel(self, job: Job) -> None:
        """End a job whose client no longer wants it, and with it the fork it has."""
        job.cancelled = True
        await self._end(job)

    async def close(self) -> None:
        """End every job; those that last go on after a restart."""
        for job in list(self.by_id.values()):
            await self._end(job)

    def stored(self, id: str, owner: str) -> dict[str, Any] | None:
        """What the disk has of a response of this client: ``request``, and ``reply`` if it is done."""
        folder = self.folder / id
        if not id.isalnum() or not (folder / REQUEST).is_file():
            return None
        request = json.loads((folder / REQUEST).read_text(encoding="utf-8"))
        if request["owner"] != owner or "input" not in request["body"]:
            return None
        reply = json.loads((folder / REPLY).read_text(encoding="utf-8")) if (folder / REPLY).exists() else None
        return {"request": request, "reply": reply}

    def unfinished(self) -> list[tuple[str, dict[str, Any]]]:
        """The background requests that an earlier process left unfinished. The folders of other unfinished requests are removed."""
        found = []
        for file in sorted(self.folder.glob(f"*/{REQUEST}")):
            if (file.parent / REPLY).exists():
                continue
            request = json.loads(file.read_text(encoding="utf-8"))
            if request["background"]:
                found.append((file.parent.name, request))
            elif not request["lasts"]:
                shutil.rmtree(file.parent, ignore_errors=True)
        return found

    def settle(self, job: Job, reply: Reply) -> None:
        """Keep the reply of a job that was cancelled."""
        write_json(job.folder / REPLY, reply)

    def fail(self, id: str, reason: str) -> None:
        """Keep that a background response has failed."""
        file = self.folder / id / REQUEST
        write_json(file, {**json.loads(file.read_text(encoding="utf-8")), "failed": reason, "background": False})

    def forget(self, id: str) -> None:
        """Remove what the disk has of a request."""
        shutil.rmtree(self.folder / id, ignore_errors=True)

    async def _do(self, job: Job, write: Write, background: bool) -> Reply:
        def tell(line: str) -> None:
            job.lines.append(line)
            self._wake(job)

        def begin() -> None:
            job.began = True
            self._wake(job)

        status, result, failed = 200, None, None
        try:
            result = await self.desk.serve(job.order, job.owner, job.folder, tell, begin, patient=background)
            reply = write(job, result)
            if job.kept:
                await asyncio.to_thread(write_json, job.folder / REPLY, reply)
            return reply
        except asyncio.CancelledError:
            status = 499
            raise
        except RefusedError as error:
            status, failed = error.status, error.message
            raise
        except SttrlError as error:
            status, failed = 503, str(error)
            raise RefusedError(failed, status=503) from error
        except Exception as error:
            status, failed = 500, "The server failed; its log says why."
            self.desk.say(self._trace(error))
            raise RefusedError(failed, status=500) from error
        finally:
            if background and failed is not None:
                self.fail(job.id, failed)
            elif self._on_disk(job) and (not job.kept or (job.cancelled and not job.lasts) or (failed and status not in TO_RESUME)):
                self.forget(job.id)
            self.count(job, status, result)

    def _ended(self, job: Job, task: asyncio.Task[Reply]) -> None:
        """A job's task is done. Its error is read here, for there may be nobody who waits for it."""
        self.by_id.pop(job.id, None)
        if not task.cancelled():
            task.exception()
        self._wake(job)

    async def _end(self, job: Job) -> None:
        """Cancel a job's task and wait for its end."""
        assert job.task is not None
        await asyncio.sleep(0)  # a task that has not begun would not tidy up
        job.task.cancel()
        await asyncio.wait([job.task])

    def _wake(self, job: Job) -> None:
        task = asyncio.get_running_loop().create_task(job.tell())
        self.waking.add(task)
        task.add_done_callback(self.waking.discard)

    def _on_disk(self, job: Job) -> bool:
        """Whether a job has a folder."""
        return job.kept or job.order.policy == "adapt"

    def _trace(self, error: Exception) -> str:
        """Where an unforeseen error came from. Its text may hold a prompt."""
        said = str(error) if self.desk.server.log_prompts else "its text is left out, as are prompts"
        return f"{''.join(traceback.format_tb(error.__traceback__))}{type(error).__name__}: {said}"

    def _known(self, id: str, body: dict[str, Any]) -> dict[str, Any] | None:
        file = self.folder / id / REQUEST
        if not file.exists():
            return None
        known: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if known["body"] != body:
            raise RefusedError("This Idempotency-Key was used for another request.", param="Idempotency-Key", status=409)
        return known


async def first_of(work: Awaitable[object], gone: Awaitable[object]) -> None:
    """Returns when ``work`` is done, which goes on if this is cancelled. Raises `ClientDisconnect` if ``gone`` returns before."""
    done, left = asyncio.ensure_future(work), asyncio.ensure_future(gone)
    try:
        await asyncio.wait([done, left], return_when=asyncio.FIRST_COMPLETED)
        if not done.done():
            raise ClientDisconnect
    finally:
        left.cancel()
