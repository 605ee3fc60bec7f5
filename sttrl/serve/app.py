"""The routes of the endpoint: a Starlette application over jobs."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from sttrl.errors import SttrlError
from sttrl.serve.bodies import ChatBody, ResponseBody
from sttrl.serve.counters import Counters
from sttrl.serve.desk import Desk, Result
from sttrl.serve.jobs import Job, Jobs, first_of
from sttrl.serve.orders import KEPT, RefusedError, chat_order, response_order
from sttrl.serve.replies import chat_completion, choice_of, chunk, error_body, finished_response, last_chunks, response

NOBODY: Final = "anyone"
"""The owner of what is asked without a key."""
LONGEST_KEY: Final = 255
ENDED: Final = "The server ended before the answer. The same request with the same Idempotency-Key goes on."

B = TypeVar("B", bound=BaseModel)


class Endpoint:
    """The endpoint's routes. ``keys``: those that clients may use; none: no key is needed."""

    def __init__(self, desk: Desk, keys: Sequence[str], say: Callable[[str], None]) -> None:
        self.desk, self.keys, self.say = desk, tuple(keys), say
        self.counters = Counters(desk)
        self.starting: asyncio.Task[None] | None = None
        self.jobs = Jobs(desk, desk.session.folder / "requests", self.counters.count)
        self.tokenizer, self.ends = desk.session.parts.tokenizer, desk.session.parts.settings.stop_token_ids
        routes = [
            Route("/health", self.health),
            Route("/metrics", self.metrics),
            Route("/v1/models", self.models),
            Route("/v1/models/{name:path}", self.model),
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/v1/responses", self.respond, methods=["POST"]),
            Route("/v1/responses/{id}", self.response, methods=["GET"]),
            Route("/v1/responses/{id}", self.delete, methods=["DELETE"]),
            Route("/v1/responses/{id}/cancel", self.cancel, methods=["POST"]),
        ]
        handlers: dict[Any, Any] = {RefusedError: _refused, HTTPException: _no_route, ClientDisconnect: _left, Exception: _failed}
        self.app = Starlette(routes=routes, exception_handlers=handlers)

    def resume(self) -> int:
        """Begin again the background responses that an earlier process left unfinished. Returns how many."""
        left = self.jobs.unfinished()
        for id, request in left:
            try:
                order = response_order(ResponseBody.model_validate(request["body"]), self.desk.house)
                self.desk.check(order, request["owner"])
            except (ValidationError, RefusedError) as error:  # the server's settings are other ones now
                self.jobs.fail(id, str(error))
                continue
            order = replace(order, seed=request["seed"])
            job = Job(id, request["owner"], request["created"], order, request["body"], self.jobs.folder / id, lasts=True, kept=True)
            self.jobs.start(job, self._write_response, background=True)
        return len(left)

    async def health(self, request: Request) -> Response:
        """``GET /health``. Whoever asks after the last lane has died lets the engine start again, without waiting for it."""
        alive = self.desk.session.lanes.alive
        if not alive and (self.starting is None or self.starting.done()):
            self.starting = asyncio.create_task(self._start_again())
        return JSONResponse({"status": "ok" if alive else "starting the engine"}, 200 if alive else 503)

    async def _start_again(self) -> None:
        try:
            await self.desk.session.start()
        except SttrlError as error:
            self.say(f"the engine was not started again: {error}")

    async def metrics(self, request: Request) -> Response:
        """``GET /metrics``"""
        self._owner(request)
        return PlainTextResponse(self.counters.text(), media_type="text/plain; version=0.0.4")

    async def models(self, request: Request) -> Response:
        """``GET /v1/models``"""
        owner = self._owner(request)
        kept = [_model(f"{KEPT}{name}", created) for name, created in self.desk.kept_names(owner)]
        return JSONResponse({"object": "list", "data": [*(_model(name, 0) for name in self.desk.house.names), *kept]})

    async def model(self, request: Request) -> Response:
        """``GET /v1/models/{name}``"""
        owner, name = self._owner(request), request.path_params["name"]
        if name.startswith(KEPT):
            self.desk.kept(name.removeprefix(KEPT), owner)
        elif name not in self.desk.house.names:
            raise RefusedError(f"There is no model {name!r}.", param="model", status=404, code="model_not_found")
        return JSONResponse(_model(name, 0))

    async def chat(self, request: Request) -> Response:
        """``POST /v1/chat/completions``"""
        owner, body = self._owner(request), await self._body(request)
        parsed = _parsed(ChatBody, body)
        order = chat_order(parsed, self.desk.house)
        self._log(order.model, body)
        begun = self.jobs.begin(owner, order, body, self._write_chat, key=_key(request))
        if parsed.stream:
            with_usage = parsed.stream_options is not None and parsed.stream_options.include_usage
            return Events(self.jobs, begun, self._chat_chunks(begun, with_usage))
        return JSONResponse(begun if isinstance(begun, dict) else await self.jobs.wait(begun, gone(request.receive)))

    async def respond(self, request: Request) -> Response:
        """``POST /v1/responses``"""
        owner, body = self._owner(request), await self._body(request)
        parsed = _parsed(ResponseBody, body)
        order = response_order(parsed, self.desk.house)
        self._log(order.model, body)
        begun = self.jobs.begin(owner, order, body, self._write_response, key=_key(request), background=parsed.background)
        if parsed.stream:
            return Events(self.jobs, begun, self._response_events(begun))
        if isinstance(begun, dict):
            return JSONResponse(begun)
        if parsed.background:
            return JSONResponse(self._unfinished(begun))
        return JSONResponse(await self.jobs.wait(begun, gone(request.receive)))

    async def response(self, request: Request) -> Response:
        """``GET /v1/responses/{id}``"""
        id, found = self._stored(request)
        if found["reply"] is not None:
            return JSONResponse(found["reply"])
        job = self.jobs.by_id.get(id)
        if job is not None:
            return JSONResponse(self._unfinished(job))
        body, failed = found["request"]["body"], found["request"].get("failed", ENDED)
        error = {"code": "server_error", "message": failed}
        return JSONResponse(response(f"resp_{id}", found["request"]["created"], body["model"], body, "failed", error=error))

    async def cancel(self, request: Request) -> Response:
        """``POST /v1/responses/{id}/cancel``"""
        id, found = self._stored(request)
        job = self.jobs.by_id.get(id)
        if job is None:
            return await self.response(request)
        await self.jobs.cancel(job)
        reply = response(f"resp_{id}", job.created, job.order.model, job.body, "cancelled")
        await asyncio.to_thread(self.jobs.settle, job, reply)
        return JSONResponse(reply)

    async def delete(self, request: Request) -> Response:
        """``DELETE /v1/responses/{id}``"""
        id, _ = self._stored(request)
        if (job := self.jobs.by_id.get(id)) is not None:
            await self.jobs.cancel(job)
        await asyncio.to_thread(self.jobs.forget, id)
        return JSONResponse({"id": f"resp_{id}", "object": "response", "deleted": True})

    def _owner(self, request: Request) -> str:
        """Who asks: a name made from the key. Raises `RefusedError` for a missing or a wrong key."""
        if not self.keys:
            return NOBODY
        given = request.headers.get("authorization", "").removeprefix("Bearer ").strip().encode()
        same = [hmac.compare_digest(given, key.encode()) for key in self.keys]
        if not any(same):
            raise RefusedError("The API key is missing or wrong.", status=401, code="invalid_api_key")
        return hashlib.sha256(given).hexdigest()[:32]

    async def _body(self, request: Request) -> dict[str, Any]:
        """The body of a request. Raises `RefusedError` for one that is too large or no JSON object."""
        most, data = self.desk.server.max_body_kib << 10, bytearray()
        async for part in request.stream():
            data += part
            if len(data) > most:
                raise RefusedError(f"The body has more than {most >> 10} KiB.", status=413)
        try:
            body = json.loads(bytes(data))
        except (ValueError, RecursionError) as error:
            raise RefusedError(f"The body is no JSON: {error}.") from error
        if not isinstance(body, dict):
            raise RefusedError("The body is no JSON object.")
        return body

    def _stored(self, request: Request) -> tuple[str, dict[str, Any]]:
        owner, id = self._owner(request), request.path_params["id"].removeprefix("resp_")
        found = self.jobs.stored(id, owner)
        if found is None:
            raise RefusedError(f"There is no response resp_{id}.", status=404, code="response_not_found")
        return id, found

    def _log(self, model: str, body: dict[str, Any]) -> None:
        if self.desk.server.log_prompts:
            self.say(f"{model}: {json.dumps(body.get('messages', body.get('input')), ensure_ascii=False)}")

    def _write_chat(self, job: Job, result: Result) -> dict[str, Any]:
        choices = [choice_of(rollout, job.order, self.tokenizer, self.ends) for rollout in result.rollouts]
        return chat_completion(f"chatcmpl-{job.id}", job.created, job.order, result, choices)

    def _write_response(self, job: Job, result: Result) -> dict[str, Any]:
        choice = choice_of(result.rollouts[0], job.order, self.tokenizer, self.ends)
        return finished_response(f"resp_{job.id}", job.created, job.order, job.body, result, choice, job.lines)

    def _unfinished(self, job: Job) -> dict[str, Any]:
        status = "in_progress" if job.began else "queued"
        return response(f"resp_{job.id}", job.created, job.order.model, job.body, status)

    async def _chat_chunks(self, begun: Job | dict[str, Any], with_usage: bool) -> AsyncIterator[str]:
        """The events of a chat completion: a chunk for each step of adapting as reasoning content, then the answer."""
        if isinstance(begun, Job):
            of = (f"chatcmpl-{begun.id}", begun.created, begun.order.model)
        else:
            of = (begun["id"], begun["created"], begun["model"])
        yield _data(chunk(*of, 0, {"role": "assistant", "content": ""}))
        if isinstance(begun, Job):
            async for line in begun.follow():
                yield _data(chunk(*of, 0, {"reasoning_content": f"{line}\n"}))
        reply = await _outcome(begun)
        if "error" in reply:
            yield _data(reply)
        else:
            for part in last_chunks(reply, with_usage):
                yield _data(part)
        yield "data: [DONE]\n\n"

    async def _response_events(self, begun: Job | dict[str, Any]) -> AsyncIterator[str]:
        """The events of a response: a part of the reasoning's summary for each step, then the message."""
        number = 0

        def event(kind: str, **content: Any) -> str:
            nonlocal number
            number += 1
            return f"event: {kind}\ndata: {json.dumps({'type': kind, 'sequence_number': number - 1, **content})}\n\n"

        if isinstance(begun, Job):
            shown, lines = {**self._unfinished(begun), "status": "in_progress"}, begun.follow()
        else:
            shown, lines = {**begun, "status": "in_progress", "output": [], "usage": None, "incomplete_details": None}, _told(begun)
        yield event("response.created", response=shown)
        yield event("response.in_progress", response=shown)
        item, place = f"rs_{shown['id']}", 0
        async for line in lines:
            if not place:
                empty = {"id": item, "type": "reasoning", "summary": []}
                yield event("response.output_item.added", output_index=0, item=empty)
            where = {"item_id": item, "output_index": 0, "summary_index": place}
            part = {"type": "summary_text", "text": line}
            yield event("response.reasoning_summary_part.added", **where, part={**part, "text": ""})
            yield event("response.reasoning_summary_text.delta", **where, delta=line)
            yield event("response.reasoning_summary_text.done", **where, text=line)
            yield event("response.reasoning_summary_part.done", **where, part=part)
            place += 1
        reply = await _outcome(begun)
        if not reply.get("output"):
            message = reply["error"]["message"] if reply.get("error") else "The request was cancelled."
            error = {"code": "server_error", "message": message}
            yield event("response.failed", response={**shown, "status": "failed", "error": error})
            return
        *before, message = reply["output"]
        for index, done in enumerate(before):
            yield event("response.output_item.done", output_index=index, item=done)
        where = {"item_id": message["id"], "output_index": len(before), "content_index": 0}
        content = message["content"][0]
        empty = {**message, "status": "in_progress", "content": []}
        yield event("response.output_item.added", output_index=len(before), item=empty)
        yield event("response.content_part.added", **where, part={**content, "text": "", "logprobs": []})
        yield event("response.output_text.delta", **where, delta=content["text"], logprobs=[])
        yield event("response.output_text.done", **where, text=content["text"], logprobs=[])
        yield event("response.content_part.done", **where, part=content)
        yield event("response.output_item.done", output_index=len(before), item=message)
        yield event(f"response.{reply['status']}", response=reply)


class Events(StreamingResponse):
    """Server-sent events about a job, or about the reply of an earlier one. A client that hangs up ends a job that does not last.

    It begins when the job does, so that a refusal still has its status.
    """

    def __init__(self, jobs: Jobs, begun: Job | dict[str, Any], parts: AsyncIterator[str]) -> None:
        super().__init__(parts, media_type="text/event-stream", headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self.jobs, self.begun = jobs, begun

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events. Raises `RefusedError`, and `ClientDisconnect` if the client hangs up before the first."""
        if isinstance(self.begun, dict):
            await super().__call__(scope, receive, send)
            return
        async with self.jobs.watched(self.begun):
            await first_of(self.begun.first_news(), gone(receive))
            if self.begun.done:
                await self.begun.reply()
            await super().__call__(scope, receive, send)


async def gone(receive: Receive) -> None:
    """Returns when the client hangs up."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _told(reply: dict[str, Any]) -> AsyncIterator[str]:
    """How adapting went, as the reply of a finished response has it."""
    for item in reply["output"]:
        for part in item.get("summary", ()):
            yield part["text"]


async def _outcome(begun: Job | dict[str, Any]) -> dict[str, Any]:
    """The reply, or its error as a body: the stream has begun, so its last event is the only place that can say it."""
    try:
        return begun if isinstance(begun, dict) else await begun.reply()
    except RefusedError as error:
        return error_body(error)


INTERNAL: Final = RefusedError("The server failed; its log says why.", status=500)


def _parsed(kind: type[B], body: dict[str, Any]) -> B:
    """A body as its model. Raises `RefusedError` that names the first bad field."""
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        first = max(found, key=lambda each: len(each["loc"]))  # of a field that may have several forms, the one that fits best
        name = ".".join(str(part) for part in first["loc"] if part != "str" and not str(part).endswith("]"))
        if first["type"] == "extra_forbidden":
            message = f"{name} is unknown or not supported."
        else:
            message = f"{name}: {first['msg']}." if name else f"{first['msg'].removeprefix('Value error, ')}."
        raise RefusedError(message, param=name or None) from None


def _key(request: Request) -> str | None:
    """The client's name for the request, so that it is done once."""
    key = request.headers.get("idempotency-key")
    if key is not None and not 0 < len(key) <= LONGEST_KEY:
        raise RefusedError(f"Idempotency-Key must have 1 to {LONGEST_KEY} characters.", param="Idempotency-Key")
    return key


def _data(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value)}\n\n"


def _model(name: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": "sttrl"}


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    headers = {"Retry-After": str(round(error.retry_s + 0.5))} if error.retry_s is not None else {}
    return JSONResponse(error_body(error), error.status, headers=headers)


async def _left(request: Request, error: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    refused = RefusedError(f"{request.method} {request.url.path}: {error.detail}.", status=error.status_code)
    return JSONResponse(error_body(refused), refused.status)


async def _failed(request: Request, error: Exception) -> Response:
    return JSONResponse(error_body(INTERNAL), 500)
