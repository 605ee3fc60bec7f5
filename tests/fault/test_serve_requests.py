"""What happens to a request of the endpoint: streams, the background, seats, hang-ups, deadlines, keys of requests, and lost lanes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from serving import MODEL, Served, ask, served, until
from stand_in import Faults

from sttrl.errors import EngineError
from sttrl.questions.answers import Judge
from sttrl.serve.settings import ServerSettings

SMALL: Any = {"sttrl": {"steps": 2, "n_votes": 8, "n_train": 4}}
ADAPTS: Any = {"model": f"{MODEL}:sttrl", "messages": ask(), "extra_body": SMALL, "seed": 1}


def created(here: Served, key: str | None = None, **changes: Any) -> asyncio.Task[Any]:
    """A chat completion that adapts, in a task of its own."""
    headers = {"extra_headers": {"Idempotency-Key": key}} if key else {}
    return asyncio.create_task(here.client().chat.completions.create(**{**ADAPTS, **changes}, **headers))


async def status_of(call: Awaitable[Any]) -> int:
    """The status with which a request is refused."""
    with pytest.raises(openai.APIStatusError) as caught:
        await call
    return caught.value.status_code


async def test_a_chat_streams_its_steps_and_then_the_answer(tmp_path: Path, judge: Judge) -> None:
    async with served(tmp_path, judge) as here:
        client = here.client()
        whole: Any = await client.chat.completions.create(**ADAPTS, n=2)
        chunks: list[Any] = [
            chunk
            async for chunk in await client.chat.completions.create(**ADAPTS, n=2, stream=True, stream_options={"include_usage": True})
        ]
        assert chunks[0].choices[0].delta.role == "assistant" and len({chunk.id for chunk in chunks}) == 1
        steps = [chunk for chunk in chunks if chunk.choices and hasattr(chunk.choices[0].delta, "reasoning_content")]
        assert [step.choices[0].delta.reasoning_content[:7] for step in steps] == ["step 1:", "step 2:"]
        assert all("tokens and" in step.choices[0].delta.reasoning_content for step in steps)
        answers = [(c.choices[0].index, c.choices[0].delta.content) for c in chunks if c.choices and c.choices[0].delta.content]
        assert answers == [(choice.index, choice.message.content) for choice in whole.choices]
        assert chunks.index(steps[-1]) < next(place for place, c in enumerate(chunks) if c.choices and c.choices[0].delta.content)
        assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage
        ends = [chunk for chunk in chunks if chunk.choices and chunk.choices[0].finish_reason]
        assert {**ends[0].sttrl, "seconds": 0} == {**whole.sttrl, "seconds": 0}
        async with client.chat.completions.stream(**ADAPTS) as stream:
            final = await stream.get_final_completion()
        assert final.choices[0].message.role == "assistant" and final.choices[0].message.content == whole.choices[0].message.content
        plain = [chunk async for chunk in await client.chat.completions.create(model=MODEL, messages=ask(), stream=True, seed=1)]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in plain) and all(chunk.usage is None for chunk in plain)


async def test_the_events_of_a_response_are_in_order(tmp_path: Path, judge: Judge) -> None:
    async with served(tmp_path, judge) as here:
        asked: Any = {"model": f"{MODEL}:sttrl", "input": "What is 9 * 4?", "extra_body": {"sttrl": {**SMALL["sttrl"], "seed": 1}}}
        events: list[Any] = [event async for event in await here.client().responses.create(**asked, stream=True)]
        step = ["part.added", "text.delta", "text.done", "part.done"]
        assert [event.type.removeprefix("response.").removeprefix("reasoning_summary_") for event in events] == [
            "created", "in_progress", "output_item.added", *step, *step, "output_item.done", "output_item.added", "content_part.added",
            "output_text.delta", "output_text.done", "content_part.done", "output_item.done", "completed",
        ]  # fmt: skip
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert events[-1].response.usage.adaptation_tokens["trained"] > 0 and events[-1].response.status == "completed"
        async with here.client().responses.stream(**asked) as stream:
            final: Any = await stream.get_final_response()
        assert final.output_text == events[-1].response.output_text and len(final.output[0].summary) == 2
        stored: Any = await here.client().responses.create(**asked, stream=True, extra_headers={"Idempotency-Key": "k"})
        first = [event async for event in stored]
        again: Any = await here.client().responses.create(**asked, stream=True, extra_headers={"Idempotency-Key": "k"})
        assert [event.model_dump() for event in first][2:] == [event.model_dump() async for event in again][2:], "a reply streams again"


async def test_a_background_response_is_polled_cancelled_and_deleted(tmp_path: Path, judge: Judge) -> None:
    async with served(tmp_path, judge, server=ServerSettings(max_background=2)) as here:
        client, gate = here.client(), here.hold("update")
        asked: Any = {"model": f"{MODEL}:sttrl", "input": "What is 9 * 4?", "background": True, "extra_body": SMALL}
        first: Any = await client.responses.create(**asked)
        second: Any = await client.responses.create(**asked)
        assert first.status in ("queued", "in_progress") and first.background and first.id != second.id
        assert await status_of(client.responses.create(**asked)) == 429
        await until(lambda: here.lane.held["update"] == 2)
        assert (await client.responses.retrieve(first.id)).status == "in_progress"
        assert (await client.responses.cancel(second.id)).status == "cancelled" and here.lane.held["update"] == 1
        assert (await client.responses.retrieve(second.id)).status == "cancelled"
        gate.set()
        await here.idle()
        done: Any = await client.responses.retrieve(first.id)
        assert done.status == "completed" and done.output_text and done.sttrl["answered_by"] == "adapted"
        assert (await client.responses.cancel(first.id)).status == "completed", "what is done stays done"
        await client.responses.delete(first.id)
        assert await status_of(client.responses.retrieve(first.id)) == 404
        assert [folder.name for folder in here.requests] == [second.id.removeprefix("resp_")]


async def test_a_background_response_that_fails_says_so(tmp_path: Path, judge: Judge) -> None:
    faults = Faults({("sample", 1): KeyError("9 * 4")})
    async with served(tmp_path, judge, faults=faults) as here:
        response: Any = await here.client().responses.create(model=MODEL, input="What is 9 * 4?", background=True)
        await here.idle()
        response = await here.client().responses.retrieve(response.id)
        assert response.status == "failed" and response.error.message.startswith("The server failed")
        assert "KeyError" in "".join(here.said) and "9 * 4" not in "".join(here.said), "the log says where, and no prompt"


async def test_requests_in_flight_share_the_engine(tmp_path: Path, judge: Judge) -> None:
    async with served(tmp_path, judge, parallel_problems=3) as here:
        alone = {name: await created(here, messages=ask(f"What is {name}?")) for name in ("3 + 4", "5 - 2", "2 * 2")}
        gate = here.hold("update")
        tasks = {name: created(here, messages=ask(f"What is {name}?")) for name in alone}
        await until(lambda: here.lane.held["update"] == 3)
        plain: Any = await here.client().chat.completions.create(model=MODEL, messages=ask())
        assert plain.choices[0].message.content, "who does not adapt takes no seat"
        gate.set()
        for name, task in tasks.items():
            found = await task
            assert found.choices == alone[name].choices and found.usage == alone[name].usage, "company changes nothing"
        assert len(here.lanes) == 1


async def test_when_all_seats_are_taken_the_client_is_told_when_to_come_back(tmp_path: Path, judge: Judge) -> None:
    async with served(tmp_path, judge, parallel_problems=1, server=ServerSettings(max_waiting=1)) as here:
        gate = here.hold("update")
        first = created(here)
        await until(lambda: here.lane.held["update"] == 1)
        second = created(here)
        await until(lambda: here.endpoint.desk.waiting == 1)
        for stream in (False, True):
            with pytest.raises(openai.RateLimitError) as caught:
                await here.client().chat.completions.create(**ADAPTS, stream=stream)
            assert int(caught.value.response.headers["retry-after"]) >= 1 and "seats" in caught.value.message
        background: Any = await here.client().responses.create(model=f"{MODEL}:vote", input="What?", background=True)
        assert background.status == "queued", "the background waits for a seat"
        late = created(here, extra_body={"sttrl": {**SMALL["sttrl"], "deadline_s": 0.05}})
        second.cancel()
        await until(lambda: here.endpoint.desk.waiting == 1)
        assert await status_of(late) == 429 if late.done() else True
        waits = created(here, extra_body={"sttrl": {**SMALL["sttrl"], "deadline_s": 0.05}})
        assert await status_of(waits) in (429, 504)
        gate.set()
        assert (await first).choices[0].message.content
        await here.idle()
        await asyncio.gather(late, second, waits, return_exceptions=True)
        assert (await here.client().responses.retrieve(background.id)).status == "completed"
        assert here.endpoint.desk.adapting == here.endpoint.desk.waiting == 0


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("model", "kind"), [(f"{MODEL}:sttrl", "sample"), (f"{MODEL}:sttrl", "update"), (f"{MODEL}:vote", "sample"), (MODEL, "sample")]
)
async def test_a_client_that_hangs_up_frees_its_seat_and_its_fork(
    model: str, kind: str, stream: bool, tmp_path: Path, judge: Judge, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(tmp_path, judge, parallel_problems=1) as here:
        here.hold(kind)
        extra = {} if model == MODEL else SMALL
        body = {"model": model, "messages": ask(), "stream": stream, **extra}
        async with here.web as web:
            task = asyncio.create_task(web.post("/v1/chat/completions", json=body))
            await until(lambda: here.lane.held[kind] == 1)
            assert here.lane.open and here.endpoint.desk.adapting == (model != MODEL)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await until(lambda: not here.lane.open and not here.endpoint.desk.adapting and not here.endpoint.jobs.by_id)
        assert here.lane.held[kind] == 0 and not here.requests
        here.lane.holds.clear()
        assert (await created(here)).choices[0].message.content, "the seat is free"
        assert not caplog.records, "a hang-up is no error"


async def test_a_client_that_hangs_up_while_it_waits_for_a_seat_or_in_a_stream(tmp_path: Path, judge: Judge) -> None:
    async with served(tmp_path, judge, parallel_problems=1, server=ServerSettings(max_waiting=4)) as here:
        gate = here.hold("update")
        stream: Any = await here.client().chat.completions.create(**ADAPTS, stream=True)
        await until(lambda: here.lane.held["update"] == 1)
        waiting = [created(here, stream=stream) for stream in (False, True)]
        await until(lambda: here.endpoint.desk.waiting == 2)
        for task in waiting:
            task.cancel()
        await until(lambda: here.endpoint.desk.waiting == 0)
        await stream.close()
        await until(lambda: not here.lane.open and not here.endpoint.jobs.by_id)
        gate.set()
        assert (await created(here)).choices and not here.requests


async def test_with_a_key_a_request_is_done_once(tmp_path: Path, judge: Judge) -> None:
    async with served(tmp_path, judge) as here:
        gate = here.hold("update")
        gone = created(here, key="k")
        await until(lambda: here.lane.held["update"] == 1)
        joined = [created(here, key="k") for _ in range(2)]
        gone.cancel()
        assert await status_of(created(here, key="k", seed=2)) == 409
        assert here.lane.held["update"] == 1, "one does the work, and goes on without its first client"
        gate.set()
        first, second = await asyncio.gather(*joined)
        asked = len(here.lane.asked)
        assert first == second == await created(here, key="k") and len(here.lane.asked) == asked
        assert await status_of(created(here, key="k", seed=2)) == 409
        assert await status_of(created(here, key="k" * 300)) == 400
        assert await status_of(created(here, key="bad", n=99)) == 400
        assert (await created(here, key="bad")).choices, "a refused request leaves its key free"
        assert await status_of(here.client().responses.retrieve(f"resp_{first.id.removeprefix('chatcmpl-')}")) == 404


async def test_a_request_that_a_kill_cut_goes_on_with_its_seed(tmp_path: Path, judge: Judge) -> None:
    async with served(tmp_path, judge) as here:
        here.hold("update")
        cut = created(here, key="k", seed=None)
        background: Any = await here.client().responses.create(
            model=f"{MODEL}:sttrl", input="What is 5 * 5?", background=True, extra_body=SMALL
        )
        cancelled: Any = await here.client().responses.create(model=f"{MODEL}:vote", input="What is 1 + 1?", background=True)
        await here.client().responses.cancel(cancelled.id)
        await until(lambda: here.lane.held["update"] == 2)
        (asked,) = [json.loads((f / "request.json").read_text()) for f in here.requests if (f / "request.json").read_text().count("9 * 4")]
    with pytest.raises(openai.APIError):
        await cut
    async with served(tmp_path, judge) as here:
        await here.idle()
        found: Any = await here.client().responses.retrieve(background.id)
        assert found.status == "completed" and found.output_text, "it begins again by itself"
        assert (await here.client().responses.retrieve(cancelled.id)).status == "cancelled"
        reply = await created(here, key="k", seed=None)
        assert reply.sttrl["seed"] == asked["seed"], "the seed that was drawn at first"
        folder = next(f for f in here.requests if reply.id.endswith(f.name))
        (folder / "reply.json").unlink()
    async with served(tmp_path, judge) as here:
        again = await created(here, key="k", seed=None)
        same, other = again.model_dump(), reply.model_dump()
        same["sttrl"]["seconds"] = other["sttrl"]["seconds"] = 0
        assert same == other and not here.lane.asked, "a finished run is not done again"


async def test_a_background_response_that_the_new_settings_refuse_has_failed(tmp_path: Path, judge: Judge) -> None:
    async with served(tmp_path, judge) as here:
        here.hold("update")
        sent: Any = await here.client().responses.create(
            model=f"{MODEL}:sttrl", input="What?", background=True, max_output_tokens=14, extra_body=SMALL
        )
    async with served(tmp_path, judge, max_response_tokens=8) as here:
        found: Any = await here.client().responses.retrieve(sent.id)
        assert found.status == "failed" and "max_output_tokens is 14" in found.error.message


@pytest.mark.parametrize("at", [1, 2, 3, 5])
@pytest.mark.parametrize("lanes", [1, 2])
async def test_a_lane_that_dies_costs_nobody_an_answer(lanes: int, at: int, tmp_path: Path, judge: Judge) -> None:
    async with served(tmp_path / "whole", judge) as here:
        whole = await created(here)
    faults = Faults({("sample", at): EngineError("The sampler died.", "Run again.")})
    async with served(tmp_path / "dies", judge, faults=faults, lanes=lanes) as here:
        plain = here.client().chat.completions.create(model=MODEL, messages=ask(), seed=1)
        found, others, answer = await asyncio.gather(created(here), created(here, messages=ask("What is 5?")), plain)
        assert found.choices == whole.choices and found.usage == whole.usage, "tokens of the lost lane are not counted"
        assert {**found.sttrl, "seconds": 0} == {**whole.sttrl, "seconds": 0}
        assert others.choices and answer.choices
        assert here.endpoint.desk.session.lanes.starts == (2 if lanes == 1 else 1)
        async with here.web as web:
            assert (await web.get("/health")).status_code == 200


async def test_a_vote_is_held_again_if_its_lane_dies(tmp_path: Path, judge: Judge) -> None:
    async with served(tmp_path / "whole", judge) as here:
        whole = await created(here, model=f"{MODEL}:vote")
    faults = Faults({("sample", 2): EngineError("The sampler died.", "Run again.")})
    async with served(tmp_path / "dies", judge, faults=faults) as here:
        found = await created(here, model=f"{MODEL}:vote")
        assert here.endpoint.desk.session.lanes.starts == 2
        assert found.choices == whole.choices and {**found.sttrl, "seconds": 0} == {**whole.sttrl, "seconds": 0}


async def test_an_engine_that_dies_again_and_again_is_a_503(tmp_path: Path, judge: Judge) -> None:
    async with served(tmp_path, judge) as here:
        here.lane.faults.plan[("fork", 1)] = EngineError("It died.", "Look at the logs.")
        session = here.endpoint.desk.session
        start = session.lanes.start

        async def dies(*given: Any) -> list[Any]:
            lanes = await start(*given)
            lanes[0].faults.plan[("fork", 1)] = EngineError("It died.", "Look at the logs.")
            return lanes

        session.lanes.start = dies
        for model in (MODEL, f"{MODEL}:sttrl"):
            assert await status_of(here.client().chat.completions.create(model=model, messages=ask())) == 503
        session.lanes.start = start
        assert (await created(here)).choices, "and the next request starts it again"


async def test_a_deadline_is_kept_with_what_is_best_by_then(tmp_path: Path, judge: Judge) -> None:
    soon = {"sttrl": {**SMALL["sttrl"], "deadline_s": 1.0}}
    async with served(tmp_path, judge) as here:
        here.hold("update")
        reply = await created(here, extra_body=soon)
        assert reply.sttrl["answered_by"] == "base" and "deadline_s" in reply.sttrl["reason"] and reply.choices[0].message.content
        assert reply.sttrl["base"]["text"] == reply.choices[0].message.content and reply.sttrl["stop"] == "time"
    async with served(tmp_path / "second", judge) as here:
        seen = 0

        async def pause(kind: str) -> None:
            nonlocal seen
            seen += kind == "update"
            await asyncio.sleep(3600 if seen == 2 else 0)

        here.lane.pause = pause  # type: ignore[method-assign]
        reply = await created(here, extra_body=soon)
        assert reply.sttrl["steps"] == 1 and reply.sttrl["answered_by"] == "vote"
        assert reply.choices[0].message.content.startswith(reply.sttrl["answer"]) and not here.lane.open
    async with served(tmp_path / "third", judge) as here:
        here.hold("sample")
        for model in (f"{MODEL}:sttrl", f"{MODEL}:vote"):
            assert await status_of(created(here, model=model, extra_body={"sttrl": {"deadline_s": 0.2}})) == 504
        await here.idle()
        assert not here.lane.open and not here.requests


async def test_a_budget_ends_adapting(tmp_path: Path, judge: Judge) -> None:
    async with served(tmp_path, judge) as here:
        free = await created(here, extra_body={"sttrl": {**SMALL["sttrl"], "steps": 4}})
        spent = free.usage.adaptation_tokens
        budget = (spent["sampled"] + spent["trained"]) // 2 + 5
        bound = await created(here, extra_body={"sttrl": {**SMALL["sttrl"], "steps": 4, "budget_tokens": budget}})
        took = bound.usage.adaptation_tokens
        assert 1 <= bound.sttrl["steps"] < 4 and took["sampled"] + took["trained"] <= budget
        assert "budget_tokens" in bound.sttrl["reason"] and bound.sttrl["answered_by"] == "adapted"
        vote = await created(here, model=f"{MODEL}:vote", extra_body={"sttrl": {"n_votes": 4, "budget_tokens": 200}})
        assert vote.usage.adaptation_tokens["sampled"] <= 200


async def test_a_failed_adaptation_is_answered_by_the_base(tmp_path: Path, judge: Judge) -> None:
    async with served(tmp_path, judge, faults=Faults({("update", 1): ValueError("It is broken.")})) as here:
        reply = await created(here)
        assert reply.sttrl["status"] == "failed" and "broken" in reply.sttrl["reason"] and reply.sttrl["answered_by"] == "base"
        assert reply.choices[0].message.content == reply.sttrl["base"]["text"]
    async with served(tmp_path / "late", judge) as here:
        here.lane.faults.plan[("sample", 4)] = ValueError("It is broken.")  # the base and two votes came before
        reply = await created(here)
        assert reply.sttrl["status"] == "failed" and reply.sttrl["answered_by"] == "base"


async def test_the_log_has_prompts_only_where_it_was_asked_for(tmp_path: Path, judge: Judge) -> None:
    async with served(tmp_path, judge) as here:
        await created(here)
        assert "9 * 4" not in "".join(here.said)
    async with served(tmp_path, judge, server=ServerSettings(log_prompts=True)) as here:
        await created(here)
        assert "9 * 4" in "".join(here.said)


async def test_what_ended_leaves_nothing_in_memory(tmp_path: Path, judge: Judge) -> None:
    async with served(tmp_path, judge, server=ServerSettings(max_waiting=20)) as here:
        tasks = [created(here, messages=ask(f"What is {place}?")) for place in range(6)]
        await until(lambda: here.endpoint.desk.adapting == 2)
        tasks[0].cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert not [each for each in found[1:] if isinstance(each, BaseException)]
        await here.idle()
        session = here.endpoint.desk.session
        assert not session.turns and not session.shared.tables and not here.endpoint.jobs.waking and not here.requests
        assert not here.lane.open and here.lane.most_open <= 4, "two seats, two forks each"


async def test_a_client_that_hangs_up_in_its_body_is_no_error(tmp_path: Path, judge: Judge, caplog: pytest.LogCaptureFixture) -> None:
    async with served(tmp_path, judge) as here:
        host, port = httpx.URL(here.url).host, httpx.URL(here.url).port
        _, writer = await asyncio.open_connection(host, port)
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        assert (await created(here)).choices and not caplog.records
