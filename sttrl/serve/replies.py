"""Replies in OpenAI's formats: chat completions and their chunks, responses and their events, lists of models, errors."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sttrl.serve.desk import Result
from sttrl.serve.orders import Order, RefusedError
from sttrl.types import Rollout


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One answer as it is sent. ``logprobs``: of each token of ``text``; None: not asked for."""

    text: str
    finish: str
    tokens: int
    logprobs: list[dict[str, Any]] | None


def choice_of(rollout: Rollout, order: Order, tokenizer: Any, ends: Sequence[int]) -> Choice:
    """A response, cut before the first of the order's stop texts. Tokens after it were sampled, and count."""
    text, finish = rollout.text, "stop" if rollout.finish == "stop" else "length"
    cuts = [place for stop in order.stop if (place := text.find(stop)) >= 0]
    if cuts:
        text, finish = text[: min(cuts)], "stop"
    return Choice(
        text=text,
        finish=finish,
        tokens=len(rollout.token_T),
        logprobs=None if order.logprobs is None else list(_logprobs(rollout, order.logprobs, tokenizer, ends, len(text))),
    )


def chat_completion(id: str, created: int, order: Order, result: Result, choices: Sequence[Choice]) -> dict[str, Any]:
    """A ``chat.completion``. ``sttrl``: how the answer came about."""
    return {
        "id": id,
        "object": "chat.completion",
        "created": created,
        "model": order.model,
        "choices": [
            {
                "index": place,
                "message": {"role": "assistant", "content": choice.text, "refusal": None},
                "logprobs": None if choice.logprobs is None else {"content": choice.logprobs, "refusal": None},
                "finish_reason": choice.finish,
            }
            for place, choice in enumerate(choices)
        ],
        "usage": chat_usage(result, choices),
        **({"sttrl": result.about} if result.about else {}),
    }


def chat_usage(result: Result, choices: Sequence[Choice]) -> dict[str, Any]:
    """Tokens. ``adaptation_tokens``: what adapting sampled, trained on and evaluated; it is not part of the other numbers."""
    answered = sum(choice.tokens for choice in choices)
    usage = {"prompt_tokens": result.prompt_tokens, "completion_tokens": answered, "total_tokens": result.prompt_tokens + answered}
    return {**usage, **({"adaptation_tokens": result.spent} if result.spent else {})}


def chunk(id: str, created: int, model: str, index: int, delta: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """A ``chat.completion.chunk`` with one choice."""
    finish, logprobs = more.pop("finish_reason", None), more.pop("logprobs", None)
    inner = {"index": index, "delta": dict(delta), "finish_reason": finish, "logprobs": logprobs}
    return {"id": id, "object": "chat.completion.chunk", "created": created, "model": model, "choices": [inner], **more}


def last_chunks(reply: Mapping[str, Any], with_usage: bool) -> Iterator[dict[str, Any]]:
    """The chunks of a chat completion after adapting: the answers, and the usage if it was asked for."""
    of = (reply["id"], reply["created"], reply["model"])
    about = {"sttrl": reply["sttrl"]} if "sttrl" in reply else {}
    for choice in reply["choices"]:
        role = {"role": "assistant"} if choice["index"] else {}  # the first choice has had its role
        delta = {**role, "content": choice["message"]["content"]}
        yield chunk(*of, choice["index"], delta, logprobs=choice["logprobs"])
        yield chunk(*of, choice["index"], {}, finish_reason=choice["finish_reason"], **about)
    if with_usage:
        head = {"id": reply["id"], "object": "chat.completion.chunk", "created": reply["created"], "model": reply["model"]}
        yield {**head, "choices": [], "usage": reply["usage"]}


def response(
    id: str, created: int, model: str, body: Mapping[str, Any], status: str, output: Sequence[Any] = (), **more: Any
) -> dict[str, Any]:
    """A ``response`` object. ``more``: its usage, its error and how the answer came about."""
    reasoning = body.get("reasoning") or {}
    return {
        "id": id,
        "object": "response",
        "created_at": created,
        "status": status,
        "background": bool(body.get("background")),
        "error": None,
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "metadata": body.get("metadata") or {},
        "model": model,
        "output": list(output),
        "parallel_tool_calls": False,
        "previous_response_id": None,
        "reasoning": {"effort": reasoning.get("effort"), "summary": None},
        "store": True,
        "temperature": body.get("temperature"),
        "text": {"format": {"type": "text"}},
        "tool_choice": "none",
        "tools": [],
        "top_p": body.get("top_p"),
        "truncation": "disabled",
        "usage": None,
        **more,
    }


def finished_response(
    id: str, created: int, order: Order, body: Mapping[str, Any], result: Result, choice: Choice, lines: Sequence[str]
) -> dict[str, Any]:
    """The response when all is done. ``lines``: how adapting went."""
    usage: dict[str, Any] = {
        "input_tokens": result.prompt_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": choice.tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": result.prompt_tokens + choice.tokens,
    }
    usage |= {"adaptation_tokens": result.spent} if result.spent else {}
    status, details = ("incomplete", {"reason": "max_output_tokens"}) if choice.finish == "length" else ("completed", None)
    about = {"sttrl": result.about} if result.about else {}
    output = output_items(id, choice, lines)
    return response(id, created, order.model, body, status, output, usage=usage, incomplete_details=details, **about)


def output_items(id: str, choice: Choice, lines: Sequence[str]) -> list[dict[str, Any]]:
    """The items of a response: how adapting went, as reasoning, and the message."""
    reasoning = {"id": f"rs_{id}", "type": "reasoning", "summary": [{"type": "summary_text", "text": line} for line in lines]}
    part = {"type": "output_text", "text": choice.text, "annotations": [], "logprobs": choice.logprobs or []}
    message = {"id": f"msg_{id}", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
    return [*([reasoning] if lines else []), message]


def error_body(error: RefusedError) -> dict[str, Any]:
    """An error in OpenAI's format."""
    kinds = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
    kind = kinds.get(error.status, "invalid_request_error" if error.status < 500 else "server_error")
    return {"error": {"message": error.message, "type": kind, "param": error.param, "code": error.code}}


def _logprobs(rollout: Rollout, top: int, tokenizer: Any, ends: Sequence[int], chars: int) -> Iterator[dict[str, Any]]:
    """The log-probs of the tokens that make the first ``chars`` characters; a token that ends the turn is left out."""

    def shown(token: int, logprob: float) -> dict[str, Any]:
        text = tokenizer.decode([token])
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}

    def length(count: int) -> int:
        """Characters of the first ``count`` tokens."""
        return len(tokenizer.decode(list(rollout.token_T[:count]), skip_special_tokens=True))

    every = range(len(rollout.token_T) + 1)
    kept = len(rollout.token_T) if chars >= len(rollout.text) else bisect_left(every, chars, key=length)
    for place, (token, logprob) in enumerate(zip(rollout.token_T[:kept], rollout.logprob_T[:kept], strict=True)):
        if token in ends:
            return
        likeliest = rollout.top_T[place][:top] if rollout.top_T else ()
        yield {**shown(token, logprob), "top_logprobs": [shown(*pair) for pair in likeliest]}
