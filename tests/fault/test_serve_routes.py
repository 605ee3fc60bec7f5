"""What the endpoint answers: routes, models, fields, and what it refuses. The official client asks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai
import pytest
from serving import MODEL, Served, ask, served, wordy

from sttrl.questions.answers import Judge
from sttrl.serve.settings import EFFORTS, ServerSettings

SMALL = {"sttrl": {"steps": 2, "n_votes": 8, "n_train": 4}}


async def test_every_route_answers(tmp_path: Path, judge: Judge) -> None:
    async with served(tmp_path, judge) as here, here.web as web:
        health = await web.get("/health")
        assert health.status_code == 200 and health.json() == {"status": "ok"}
        names = [model.id async for model in here.client().models.list()]
        assert names == [MODEL, *(f"{MODEL}:{name}" for name in ("sttrl", "ttrl", "ttft", "slot", "memo", "vote"))]
        assert (await here.client().models.retrieve(f"{MODEL}:slot")).id == f"{MODEL}:slot"
        reply = await here.client().chat.completions.create(model=MODEL, messages=ask())
        assert reply.choices[0].message.content and reply.model == MODEL
        metrics = (await web.get("/metrics")).text
        assert f'sttrl_requests_total{{model="{MODEL}",status="200"}} 1.0' in metrics and "sttrl_seats 2.0" in metrics
        for path, method in (("/v1/nothing", "GET"), ("/v1/chat/completions", "GET"), ("/v1/models/none", "GET")):
            refused = await web.request(method, path)
            assert refused.status_code in (404, 405) and refused.json()["error"]["message"], path


@pytest.mark.parametrize("method", ["sttrl", "ttrl", "ttft", "slot", "memo"])
async def test_every_method_adapts_and_says_how(method: str, tmp_path: Path, judge: Judge) -> None:
    async with served(tmp_path, judge) as here:
        reply: Any = await here.client().chat.completions.create(
            model=f"{MODEL}:{method}", messages=ask(), reasoning_effort="low", seed=3, extra_body={"sttrl": {"keep_adapter": True}}
        )
        about, usage = reply.sttrl, reply.usage.model_dump()
        assert about["method"] == method and about["seed"] == 3 and about["status"] == "done" and about["base"]["text"]
        assert usage["adaptation_tokens"]["evaluated"] > 0 and usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
        if about["answered_by"] == "adapted":
            assert usage["adaptation_tokens"]["trained"] > 0 and about["steps"] >= 1
            assert about["adapter"].startswith("sttrl/")
            kept = await here.client().chat.completions.create(model=about["adapter"], messages=ask(), temperature=0)
            assert kept.choices[0].message.content == reply.choices[0].message.content
        assert not here.requests, "the folder of a finished request is removed"


async def test_the_adapted_policy_answers_and_the_vote_stands_beside_it(tmp_path: Path, judge: Judge) -> None:
    async with served(tmp_path, judge) as here:
        client = here.client()
        adapted: Any = await client.chat.completions.create(model=f"{MODEL}:sttrl", messages=ask(), seed=1)
        about = adapted.sttrl
        assert about["answered_by"] == "adapted" and about["vote"]["samples"] == 32 and about["steps"] == 3
        assert about["answer"] == adapted.choices[0].message.content.split()[0] == about["vote"]["answer"]
        voted: Any = await client.chat.completions.create(model=f"{MODEL}:vote", messages=ask(), seed=1)
        spent, took = adapted.usage.adaptation_tokens, voted.usage.adaptation_tokens
        assert voted.sttrl["method"] == "vote" and voted.choices[0].message.content.startswith(voted.sttrl["answer"])
        assert took["trained"] == 0 and abs(took["sampled"] / (spent["sampled"] + spent["trained"]) - 1) < 0.15
        again: Any = await client.chat.completions.create(model=f"{MODEL}:sttrl", messages=ask(), seed=1)
        assert again.choices == adapted.choices and again.usage == adapted.usage
        assert {**again.sttrl, "seconds": 0} == {**about, "seconds": 0}
        drawn: Any = await client.chat.completions.create(model=f"{MODEL}:sttrl", messages=ask())
        assert drawn.sttrl["seed"] != 1, "a seed is drawn"


@pytest.mark.parametrize("effort", EFFORTS)
async def test_effort_stands_for_steps_and_votes(effort: Any, tmp_path: Path, judge: Judge) -> None:
    async with served(tmp_path, judge) as here:
        client, preset = here.client(), EFFORTS[effort]
        reply: Any = await client.chat.completions.create(model=f"{MODEL}:sttrl", messages=ask(), reasoning_effort=effort)
        assert reply.sttrl["steps"] == preset["steps"] and reply.sttrl["vote"]["samples"] == preset["n_votes"]
        reply = await client.responses.create(
            model=MODEL, input="What is 9 * 4?", reasoning={"effort": effort}, extra_body={"sttrl": {"method": "sttrl", "n_votes": 5}}
        )
        assert reply.sttrl["steps"] == preset["steps"] and reply.sttrl["vote"]["samples"] == 5, "the fields win"
        none: Any = await client.chat.completions.create(model=f"{MODEL}:sttrl", messages=ask(), reasoning_effort="none")
        assert not hasattr(none, "sttrl") and "adaptation_tokens" not in none.usage.model_dump()


async def test_every_field_of_sttrl_counts(tmp_path: Path, judge: Judge) -> None:
    fields = {
        "method": "sttrl", "steps": 2, "n_votes": 8, "n_train": 4, "lr": 1e-3, "temp": 0.5, "max_response_tokens": 12,
        "voting_function": "confidence", "answer_kind": "number", "instruction": "Reply with a number.", "budget_tokens": 100_000,
        "deadline_s": 600.0, "keep_adapter": True, "seed": -7,
    }  # fmt: skip
    async with served(tmp_path, judge, server=ServerSettings(keep_runs=True)) as here:
        reply: Any = await here.client().chat.completions.create(model=MODEL, messages=ask(), extra_body={"sttrl": fields})
        assert reply.sttrl["seed"] == -7 and reply.sttrl["adapter"]
        (folder,) = here.requests
        config = json.loads((folder / "run" / "config.json").read_text())
        named = {"method": "adaptation_method"}
        own = {name: value for name, value in fields.items() if name not in ("budget_tokens", "deadline_s", "keep_adapter")}
        assert {name: config[named.get(name, name)] for name in own} == own and config["save_adapters"]
        assert "Reply with a number." in here.lane.tokenizer.decode(here.lane.asked[0].prompt_T)


async def test_fields_of_sampling_shape_the_answer(tmp_path: Path, judge: Judge) -> None:
    async with served(tmp_path, judge) as here:
        client = here.client()
        several = await client.chat.completions.create(model=MODEL, messages=ask(), n=4, seed=5, logprobs=True, top_logprobs=2)
        texts = [choice.message.content for choice in several.choices]
        assert len(set(texts)) > 1 and [choice.index for choice in several.choices] == [0, 1, 2, 3]
        for choice in several.choices:
            assert choice.logprobs is not None and choice.logprobs.content is not None
            assert "".join(token.token for token in choice.logprobs.content) == choice.message.content
            assert all(len(token.top_logprobs) == 2 and token.bytes for token in choice.logprobs.content)
        assert several.usage is not None and several.usage.completion_tokens == sum(len(c.logprobs.content) + 1 for c in several.choices)  # type: ignore[union-attr, arg-type]
        again = await client.chat.completions.create(model=MODEL, messages=ask(), n=4, seed=5)
        assert [choice.message.content for choice in again.choices] == texts
        cut = await client.chat.completions.create(model=MODEL, messages=ask(), seed=5, stop=[" it"], logprobs=True)
        assert cut.choices[0].message.content == texts[0].split(" it")[0] and cut.choices[0].finish_reason == "stop"  # type: ignore[union-attr]
        assert [token.token for token in cut.choices[0].logprobs.content] == [cut.choices[0].message.content]  # type: ignore[union-attr]
        short = await client.chat.completions.create(model=MODEL, messages=ask(), max_completion_tokens=2)
        assert short.choices[0].finish_reason == "length" and short.usage and short.usage.completion_tokens == 2
        await client.chat.completions.create(
            model=f"{MODEL}:sttrl", messages=ask(), temperature=0.7, top_p=0.5, max_tokens=9, extra_body=SMALL
        )
        asked = [request.sampling for request in here.lane.asked if request.sampling.top_p == 0.5]
        assert len(asked) == 1 and asked[0].temperature == 0.7 and asked[0].max_tokens == 9, "only the answer is sampled so"
        said: Any = await client.responses.create(
            model=f"{MODEL}:slot", input="What is 2 + 5?", include=["message.output_text.logprobs"], max_output_tokens=2,
            metadata={"a": "b"}, reasoning={"effort": "low"},
        )  # fmt: skip
        assert said.status == "incomplete" and said.incomplete_details.reason == "max_output_tokens" and said.metadata == {"a": "b"}
        assert len(said.output[-1].content[0].logprobs) == 2 and said.usage.output_tokens == 2


async def test_messages_come_as_the_client_has_them(tmp_path: Path, judge: Judge) -> None:
    async with served(tmp_path, judge) as here:
        client = here.client()
        first: Any = await client.responses.create(model=f"{MODEL}:sttrl", input="What is 9 * 4?", reasoning={"effort": "low"})
        assert [item.type for item in first.output] == ["reasoning", "message"]
        items = [{"role": "user", "content": "What is 9 * 4?"}, *(item.model_dump(exclude_none=True) for item in first.output)]
        await client.responses.create(model=MODEL, input=[*items, {"role": "user", "content": "Sure?"}], instructions="Be brief.")
        read = here.lane.tokenizer.decode(here.lane.asked[-1].prompt_T)
        places = [read.index(text) for text in ("Be brief.", "9 * 4", first.output_text, "Sure?")]
        assert places == sorted(places) and "say" not in read.replace(first.output_text, "")
        parts: Any = [{"role": "user", "content": [{"type": "text", "text": "What is "}, {"type": "text", "text": "9 * 4?"}]}]
        await client.chat.completions.create(model=MODEL, messages=parts)
        assert "What is 9 * 4?" in here.lane.tokenizer.decode(here.lane.asked[-1].prompt_T)


async def test_free_text_is_answered_by_the_base(tmp_path: Path, judge: Judge) -> None:
    async with served(tmp_path, judge, texts=wordy) as here:
        for name in ("sttrl", "vote"):
            reply: Any = await here.client().chat.completions.create(model=f"{MODEL}:{name}", messages=ask("Tell me about Paris."))
            assert reply.choices[0].message.content == "Paris is lovely." and "No sample has an answer" in reply.sttrl["reason"]
            assert "answer" not in reply.sttrl and reply.sttrl.get("answered_by", "base") == "base"
            assert reply.usage.adaptation_tokens["trained"] == 0 < reply.usage.adaptation_tokens["sampled"]


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("model", {"model": "nope"}),
    ("model", {"model": "sttrl/abc"}),
    ("model", {"model": "sttrl/../../etc"}),
    ("n", {"n": 17}),
    ("n", {"n": 0}),
    ("foo", {"extra_body": {"foo": 1}}),
    ("sttrl.stepz", {"extra_body": {"sttrl": {"stepz": 1}}}),
    ("tools", {"tools": []}),
    ("temperature", {"temperature": 3}),
    ("top_p", {"top_p": 0}),
    ("reasoning_effort", {"reasoning_effort": "low"}),
    ("reasoning_effort", {"reasoning_effort": "huge"}),
    ("max_tokens", {"max_tokens": 999}),
    ("max_completion_tokens", {"max_completion_tokens": 17}),
    ("stop", {"stop": ["a", "b", "c", "d", "e"]}),
    ("stop", {"stop": ""}),
    ("top_logprobs", {"top_logprobs": 3}),
    ("logit_bias", {"logit_bias": {"3": 1}}),
    ("frequency_penalty", {"frequency_penalty": 0.5}),
    ("response_format", {"response_format": {"type": "json_object"}}),
    ("seed", {"seed": 2**63}),
    ("stream_options", {"stream": True, "stream_options": {"include": True}}),
    ("messages", {"messages": []}),
    ("messages", {"messages": [{"role": "user", "content": " "}]}),
    ("messages", {"messages": [{"role": "assistant", "content": "I."}]}),
    ("messages", {"messages": [{"role": "user", "content": "I."}, {"role": "system", "content": "You."}]}),
    ("messages", {"messages": [{"role": "user", "content": "x " * 3000}]}),
    ("messages", {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}),
    ("messages", {"messages": [{"role": "user", "content": "I.", "name": "Ann"}]}),
    ("messages", {"messages": [{"role": "tool", "content": "I.", "tool_call_id": "x"}]}),
    ("sttrl.steps", {"extra_body": {"sttrl": {"steps": 1}}}),
    ("sttrl.keep_adapter", {"extra_body": {"sttrl": {"keep_adapter": True}}}),
    ("sttrl.keep_adapter", {"model": f"{MODEL}:vote", "extra_body": {"sttrl": {"keep_adapter": True}}}),
    ("sttrl.lr", {"model": f"{MODEL}:vote", "extra_body": {"sttrl": {"lr": 1e-3}}}),
    ("sttrl.method", {"model": f"{MODEL}:slot", "extra_body": {"sttrl": {"method": "memo"}}}),
    ("sttrl.method", {"extra_body": {"sttrl": {"method": "finetune"}}}),
    ("sttrl.n_votes", {"model": f"{MODEL}:slot", "extra_body": {"sttrl": {"n_votes": 4}}}),
    ("sttrl.n_votes", {"model": f"{MODEL}:sttrl", "extra_body": {"sttrl": {"n_votes": 1}}}),
    ("sttrl.n_train", {"model": f"{MODEL}:sttrl", "extra_body": {"sttrl": {"n_votes": 4, "n_train": 9}}}),
    ("sttrl.n_votes", {"model": f"{MODEL}:sttrl", "extra_body": {"sttrl": {"n_votes": 100_000}}}),
    ("sttrl.max_response_tokens", {"model": f"{MODEL}:sttrl", "extra_body": {"sttrl": {"max_response_tokens": 17}}}),
    ("sttrl.voting_function", {"model": f"{MODEL}:sttrl", "extra_body": {"sttrl": {"voting_function": "os:system"}}}),
    ("sttrl.answer_kind", {"model": f"{MODEL}:sttrl", "extra_body": {"sttrl": {"answer_kind": "essay"}}}),
    ("sttrl.budget_tokens", {"model": f"{MODEL}:sttrl", "extra_body": {"sttrl": {"budget_tokens": 10**9}}}),
    ("sttrl.deadline_s", {"model": f"{MODEL}:sttrl", "extra_body": {"sttrl": {"deadline_s": 1e9}}}),
]


async def test_what_is_unknown_or_not_supported_is_refused_by_its_name(tmp_path: Path, judge: Judge) -> None:
    async with served(tmp_path, judge) as here:
        client = here.client()
        for field, changes in REFUSED:
            with pytest.raises(openai.APIStatusError) as caught:
                await client.chat.completions.create(**{"model": MODEL, "messages": ask(), **changes})
            error = caught.value
            assert error.status_code == (404 if field == "model" else 400), (field, changes, error.message)
            named = f"{error.param} {error.message}"
            assert field in named, (field, changes, error.message)
        for field, changes in (
            ("previous_response_id", {"previous_response_id": "resp_1"}),
            ("background", {"background": True, "stream": True}),
            ("reasoning", {"reasoning": {"effort": "huge"}}),
            ("tools", {"tools": [{"type": "web_search"}]}),
            ("text", {"text": {"format": {"type": "json_object"}}}),
            ("truncation", {"truncation": "auto"}),
            ("input", {"input": []}),
            ("input", {"input": [{"type": "item_reference", "id": "x"}]}),
            ("max_output_tokens", {"max_output_tokens": 17}),
        ):
            with pytest.raises(openai.BadRequestError) as caught:
                await client.responses.create(**{"model": MODEL, "input": "What?", **changes})  # type: ignore[call-overload]
            assert field in f"{caught.value.param} {caught.value.message}", (field, caught.value.message)
        assert not here.requests and not here.endpoint.jobs.by_id and not here.lane.asked, "nothing was done"


async def test_bodies_that_are_too_large_or_no_json_are_refused(tmp_path: Path, judge: Judge) -> None:
    async with served(tmp_path, judge, server=ServerSettings(max_body_kib=4, max_n=2)) as here, here.web as web:
        for content, status in ((b"{", 400), (b"[1]", 400), (b"\xff", 400), (b"[" * 4000, 400), (b" " * 5000, 413)):
            reply = await web.post("/v1/chat/completions", content=content)
            assert reply.status_code == status and reply.json()["error"]["message"], content[:9]
        lone = b'{"model": "%s", "messages": [{"role": "user", "content": "\\ud800"}]}' % MODEL.encode()
        assert (await web.post("/v1/chat/completions", content=lone)).status_code == 400
        with pytest.raises(openai.BadRequestError, match="at most 2"):
            await here.client().chat.completions.create(model=MODEL, messages=ask(), n=3)


async def test_only_who_has_a_key_is_answered(tmp_path: Path, judge: Judge) -> None:
    async with served(tmp_path, judge, keys=["first", "second"]) as here, here.web as web:
        assert (await web.get("/health")).status_code == 200
        for path in ("/v1/models", "/metrics", "/v1/responses/resp_1"):
            assert (await web.get(path)).status_code == 401, path
        for key in ("third", "firs", "first "):
            refused = await web.get("/v1/models", headers={"Authorization": f"Bearer {key}x"})
            assert refused.status_code == 401 and refused.json()["error"]["code"] == "invalid_api_key"
        for key in ("first", "second"):
            assert (await here.client(key).chat.completions.create(model=MODEL, messages=ask())).choices


async def kept_by(here: Served, key: str) -> str:
    """An adapter of the client with this key."""
    reply: Any = await here.client(key).chat.completions.create(
        model=f"{MODEL}:sttrl",
        messages=ask(f"What is 7 * 6, {key}?"),
        extra_body={"sttrl": {"steps": 1, "n_votes": 8, "keep_adapter": True}},
    )
    return str(reply.sttrl["adapter"])


async def test_nothing_of_one_client_reaches_another(tmp_path: Path, judge: Judge) -> None:
    async with served(tmp_path, judge, keys=["ann", "ben"]) as here:
        ann, ben = here.client("ann"), here.client("ben")
        adapter = await kept_by(here, "ann")
        await kept_by(here, "ben")
        assert adapter in [model.id async for model in ann.models.list()]
        assert adapter not in [model.id async for model in ben.models.list()]
        for call in (ben.models.retrieve(adapter), ben.chat.completions.create(model=adapter, messages=ask())):
            with pytest.raises(openai.NotFoundError):
                await call
        hers = await ann.responses.create(model=MODEL, input="Ann's secret?", background=True)
        for call in (ben.responses.retrieve(hers.id), ben.responses.cancel(hers.id), ben.responses.delete(hers.id)):
            with pytest.raises(openai.NotFoundError):
                await call
        key: Any = {"extra_headers": {"Idempotency-Key": "same"}}
        texts = [
            await client.chat.completions.create(model=MODEL, messages=ask(f"Who am I, {name}?"), **key)
            for name, client in (("Ann", ann), ("Ben", ben))
        ]
        assert texts[0].id != texts[1].id, "a key of Ann's is not Ben's"
        prompts = [here.lane.tokenizer.decode(request.prompt_T) for request in here.lane.asked]
        assert not [prompt for prompt in prompts if ("Ann" in prompt or "ann" in prompt) and ("Ben" in prompt or "ben" in prompt)]
        assert not [line for line in here.said if "secret" in line or "7 * 6" in line]
